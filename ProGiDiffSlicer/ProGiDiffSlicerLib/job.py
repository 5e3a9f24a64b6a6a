"""What the engine is asked to do, from the click to the answer."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ProGiDiffSlicerLib.errors import SegmentationError
from ProGiDiffSlicerLib.volume_image import VolumeImage


@dataclass
class Job:
    """One request of the worker's protocol and what becomes of its answers.

    Attributes:
        method: of the worker, such as "segment".
        params: its parameters; numpy arrays among them are handed over as files. `job_id` and `volume_id`
            are added where `has_id` and `image` say so.
        image: what has to be open in the worker; None where no volume is needed.
        volume_id: the node the job ends with when it leaves the scene; "" for a job that goes on.
        has_id: the method takes a `job_id`: it can be cancelled and reports progress.
        cancel_seconds: how long it may take to stop before the worker is ended.
        made: the worker's id of each proposal, and the id in the list of the very same, be it new or older.

    The callbacks are called on the main thread:
        keep(description, probability): each proposal as soon as it exists; puts it into the scene.
        keep_result(result): the worker's final result; adds what is only known at the end.
        on_progress(stage, params): stage is "starting", "loading", "reading" or "working".
        on_proposal(proposal_id): a proposal has been kept.
        on_message(text): something to tell the user, such as a fall-back to the processor.
        on_done(result): all is kept; `result["cancelled"]` when the user stopped it.
        on_failed(error)
    """

    method: str
    params: dict[str, Any]
    image: VolumeImage | None = None
    volume_id: str = ""
    has_id: bool = True
    cancel_seconds: float | None = None
    keep: Callable[[dict[str, Any], np.ndarray], str] = lambda _description, _probability: ""
    keep_result: Callable[[dict[str, Any]], None] = lambda _result: None
    on_progress: Callable[[str, dict[str, Any]], None] = lambda _stage, _params: None
    on_proposal: Callable[[str], None] = lambda _proposal_id: None
    on_message: Callable[[str], None] = lambda _text: None
    on_done: Callable[[dict[str, Any]], None] = lambda _result: None
    on_failed: Callable[[SegmentationError], None] = lambda _error: None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    stage: str = "starting"
    cancelled: bool = False
    finished: bool = False
    made: dict[str, str] = field(default_factory=dict)

    def new_id(self, worker_id: str) -> str:
        """The id in the list of a proposal that was not there before."""
        return f"{self.id[:8]}-{worker_id}"

    def has_brought(self, proposal_id: str) -> bool:
        """False for a proposal of the list that was there before."""
        return proposal_id.startswith(self.new_id(""))


@dataclass(frozen=True)
class Drawing:
    """How many proposals, and how carefully drawn.

    Attributes:
        quality: draft, standard or fine.
        seed: the same seed gives the same proposals.
    """

    proposals: int = 5
    quality: str = "standard"
    seed: int = 0


def job_on(volume: Any, method: str, params: dict[str, Any], drawing: Drawing) -> Job:
    """A job that makes proposals for a volume and ends when the volume leaves the scene.

    Raises:
        SegmentationError: the volume is empty or gone.
    """
    image = VolumeImage.of(volume)
    return Job(method, {**params, **vars(drawing)}, image, image.id)


def segment_job(volume: Any, prompt: str, drawing: Drawing) -> Job:
    """What the prompt asks for. Raises as `job_on`."""
    return job_on(volume, "segment", {"prompt": prompt}, drawing)
