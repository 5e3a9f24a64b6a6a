"""What the worker keeps warm between requests: one model and the opened volumes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from progidiff.errors import AdapterError, UsageError
from progidiff.out_of_memory import is_out_of_memory, release_memory
from progidiff.volumes.volume import Volume
from progidiff.worker.array_store import ArrayStore
from progidiff.worker.jobs import Jobs

if TYPE_CHECKING:
    from progidiff.segmenter import PreparedVolume, Segmenter

T = TypeVar("T")
Notify = Callable[[str, dict[str, Any]], None]
Loader = Callable[[str, str, str], "Segmenter"]


@dataclass
class OpenVolume:
    """A volume and what the present model knows of it (None after the model was changed)."""

    volume: Volume
    modality: str
    prepared: PreparedVolume | None = None


@dataclass(frozen=True)
class Choice:
    """Which model to use, as the user asked for it."""

    model: str = "embedded"
    device: str = "auto"
    adapter: str = ""


class Session:
    """State of one worker; everything but `jobs` and `notify` belongs to the job thread.

    Args:
        load_segmenter: (model, device, adapter) → Segmenter.
        store: where arrays are exchanged.
        notify: sends a notification to the application; may be called from any thread.
        choice: the model that is loaded if the application does not ask for another.
    """

    def __init__(self, load_segmenter: Loader, store: ArrayStore, notify: Notify, choice: Choice) -> None:
        self._load_segmenter = load_segmenter
        self.store = store
        self.notify = notify
        self.jobs = Jobs()
        self._choice = choice
        self._segmenter: Segmenter | None = None
        self._volumes: dict[str, OpenVolume] = {}

    def say(self, text: str, level: str = "info", job_id: str = "") -> None:
        """Tells the user something, such as that the GPU's memory did not suffice."""
        self.notify("message", {"level": level, "text": text, **({"job_id": job_id} if job_id else {})})

    # -- model ---------------------------------------------------------------------------------

    def load(self, choice: Choice) -> tuple[Segmenter, float]:
        """Loads a model unless it is there already; returns it and the seconds that took.

        Where only the adapter differs, the warm model stays and changes its adapter.
        """
        start = time.monotonic()
        if self._segmenter is not None and replace(choice, adapter=self._choice.adapter) == self._choice:
            self._switch_adapter(self._segmenter, choice)
        elif self._segmenter is None or choice != self._choice:
            self._drop_model()
            self._choice = choice
            self._segmenter = self._load_or_fall_back(choice)
        assert self._segmenter is not None
        return self._segmenter, time.monotonic() - start

    def _switch_adapter(self, segmenter: Segmenter, choice: Choice) -> None:
        """Takes effect at once; opened volumes are looked at anew when they are asked for."""
        if choice == self._choice:
            return
        self._choice = replace(choice, adapter="")  # what holds if the new one cannot be loaded
        segmenter.unload_adapter()
        if choice.adapter:
            segmenter.load_adapter(Path(choice.adapter))
        self._choice = choice

    def use_adapter(self, path: str) -> tuple[Segmenter, float]:
        """Puts the adapter in a folder on the present model, or takes it off ("").

        Raises:
            AdapterError: it is not one, or belongs to another model; no adapter is active then.
        """
        return self.load(replace(self._choice, adapter=path))

    @property
    def adapter_path(self) -> str:
        """Folder of the active adapter, or ""."""
        return self._choice.adapter

    @property
    def adapter_id(self) -> str:
        """Id of the adapter on the loaded model, or ""."""
        return str(self._segmenter.adapter) if self._segmenter is not None else ""

    @property
    def model_hash(self) -> str:
        """Of the loaded model; "" as long as none is loaded."""
        return self._segmenter.model_hash if self._segmenter is not None else ""

    def segmenter(self) -> Segmenter:
        return self.load(self._choice)[0]

    def _load_or_fall_back(self, choice: Choice) -> Segmenter:
        try:
            return self._load_segmenter(choice.model, choice.device, choice.adapter)
        except AdapterError:
            self._choice = replace(choice, adapter="")  # or every later request would fail for it
            raise
        except Exception as error:
            if choice.device == "cpu" or not is_out_of_memory(error):
                raise
        self._say_cpu()
        return self._load_segmenter(choice.model, "cpu", choice.adapter)

    def _drop_model(self) -> None:
        self._segmenter = None
        for opened in self._volumes.values():
            opened.prepared = None
        release_memory()

    # -- volumes -------------------------------------------------------------------------------

    def open_volume(self, volume_id: str, volume: Volume, modality: str) -> PreparedVolume:
        """Keeps a volume and computes its features; replaces an earlier one of the same id."""
        self._volumes[volume_id] = OpenVolume(volume, modality)
        try:
            return self.prepared(volume_id)
        except BaseException:
            self.close_volume(volume_id)
            raise

    def close_volume(self, volume_id: str) -> None:
        self._volumes.pop(volume_id, None)

    def opened(self, volume_id: str) -> OpenVolume:
        """A volume as it was opened.

        Raises:
            UsageError: no volume is open under this id.
        """
        if volume_id not in self._volumes:
            raise UsageError(f"The volume {volume_id!r} is not open.", "Open it again and repeat the prompt.")
        return self._volumes[volume_id]

    def prepared(self, volume_id: str) -> PreparedVolume:
        """The features of an opened volume, computed again if the model has changed since.

        Raises:
            UsageError: no volume is open under this id.
        """
        opened = self.opened(volume_id)
        if opened.prepared is None:
            opened.prepared = self.sparing_memory(
                lambda: self.segmenter().prepare(opened.volume, modality=opened.modality)
            )
        return opened.prepared

    # -- memory --------------------------------------------------------------------------------

    def sparing_memory(self, action: Callable[[], T], job_id: str = "") -> T:
        """Runs an action again with less memory until it fits: smaller batches first, then the CPU.

        The action must fetch `segmenter()` and `prepared()` itself, since they may have been replaced.
        """
        while True:
            try:
                return action()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                failure = error.with_traceback(None)  # the traceback would keep the tensors alive
            if not self._use_less_memory(job_id):
                raise failure

    def _use_less_memory(self, job_id: str) -> bool:
        """Takes the next step down, and says so; False if there is none."""
        release_memory()
        reduce = getattr(self._segmenter, "reduce_memory", None)
        if reduce is not None and reduce():
            self.say("Not enough memory: trying again with smaller batches.", "warning", job_id)
            return True
        if self._segmenter is None or self._segmenter.device == "cpu":
            return False
        self._say_cpu(job_id)
        self._drop_model()
        self._segmenter = self._load_segmenter(self._choice.model, "cpu", self._choice.adapter)
        return True

    def _say_cpu(self, job_id: str = "") -> None:
        self.say("Not enough GPU memory: continuing on the CPU, which is slower.", "warning", job_id)
