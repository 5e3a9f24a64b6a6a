"""One run that makes proposals, from a prompt or by steering: progress, cancel, and what came of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

from ProGiDiffSlicerLib.errors import SegmentationError
from ProGiDiffSlicerLib.job import Job
from ProGiDiffSlicerLib.job_view import JobView, time_left

_LOG = logging.getLogger("ProGiDiffSlicer")
_STAGES = {
    "starting": "Starting the engine…",
    "loading": "Loading the model…",
    "reading": "Reading the volume…",
    "working": "Making proposals…",
}
_SETUP_PROBLEMS = {"MissingPackage", "InterpreterMissing", "StartTimeout"}
_WITHOUT_ADAPTER = " Or choose “nothing” beside Adapted to."
_WHERE = {"cpu": "the processor", "cuda": "the graphics card"}


class ProposalsRun:
    """Args:
    logic: ProGiDiffSlicerLogic.
    view: where its progress is shown.
    on_changed: called when proposals of a volume came or changed; with the id to select or "".
    on_setup_problem: called with the error when the engine cannot run as it is installed.
    """

    def __init__(
        self,
        logic: Any,
        view: JobView,
        on_changed: Callable[[str], None],
        on_setup_problem: Callable[[SegmentationError], None],
    ) -> None:
        self._logic, self._view, self._on_changed = logic, view, on_changed
        self._on_setup_problem = on_setup_problem
        self._job: Job | None = None
        self._arrived: set[str] = set()  # ids: what had to be made again arrives again
        self._messages: list[str] = []
        self._device = ""

    @property
    def is_running(self) -> bool:
        """This one, not just any job of the engine."""
        return self._job is not None and not self._job.finished

    def start(self, job: Job) -> None:
        self._arrived, self._messages, self._device = set(), [], ""
        self._job = job
        job.on_progress, job.on_proposal, job.on_message = self._progress, self._proposal, self._message
        job.on_done, job.on_failed = self._done, self._failed
        self._view.say("")
        self._view.progress(0, _STAGES["starting"])
        try:
            self._logic.propose(job)
        except SegmentationError as error:
            job.finished = True
            self._failed(error)

    def cancel(self) -> None:
        self._view.say("Stopping after this step…")
        self._logic.engine.cancel()

    def stopped(self, why: str) -> None:
        """It was ended from outside, for instance because the scene is being closed."""
        self._view.end()
        self._view.say(why)

    def _progress(self, stage: str, params: dict[str, Any]) -> None:
        text = _STAGES[stage]
        if stage == "working" and not params and self._logic.engine.device:
            self._view.say(f"Running on {_where(self._logic.engine.device)}.")
        if stage == "working" and params:
            ready, wanted = int(params.get("proposal") or 0), int(params.get("proposals") or 0)
            organ = str(params.get("organ") or "").replace("_", " ")
            text = f"{organ.capitalize()}: {ready} of {wanted} ready{time_left(params.get('seconds_left'))}"
        self._view.progress(float(params.get("fraction") or 0.0), text)

    def _proposal(self, proposal_id: str) -> None:
        self._arrived.add(proposal_id)
        volume = self._logic.node(self._job.volume_id)
        proposal = self._logic.proposals_of(volume).get(proposal_id) if volume is not None else None
        if proposal is not None and self._job.has_brought(proposal_id):  # as made now, after a fall-back too
            self._device = str(proposal.provenance.get("device", ""))
        self._on_changed(proposal_id if len(self._arrived) == 1 else "")

    def _message(self, text: str) -> None:
        if text not in self._messages:
            self._messages.append(text)
        self._view.say(text)

    def _done(self, result: dict[str, Any]) -> None:
        self._view.end()
        self._on_changed("")
        self._view.say(self._summary(result))

    def _summary(self, result: dict[str, Any]) -> str:
        if result.get("cancelled"):
            return f"Cancelled.{self._kept()}"
        missing = [s.get("reason") or f"No {s['name']} was found." for s in result["sets"] if not s["found"]]
        seconds = (result.get("seconds") or {}).get("total")
        after = f" in {math.ceil(seconds)} s" if seconds else ""
        device = self._device or self._logic.engine.device
        made = f"{_count(len(self._arrived))}{after} on {_where(device)}.{self._listed_before()}"
        return " ".join([made, *missing, *self._messages])

    def _new(self) -> int:
        """How many have arrived that were not in the list before."""
        return len([i for i in self._arrived if self._job.has_brought(i)])

    def _kept(self) -> str:
        return f" {_count(self._new())} kept." if self._new() else ""

    def _listed_before(self) -> str:
        """The same seed draws the same again: says why the list has not grown as one might expect."""
        new, known = self._new(), len(self._arrived) - self._new()
        if known and not new:
            return " Already in the list; change the seed in Advanced for others."
        return f" Already in the list: {known}." if known else ""

    def _failed(self, error: SegmentationError) -> None:
        error = self._logic.models.way_out(error)
        if error.details:
            _LOG.error("%s\n%s", error, error.details)
        self._view.end()
        self._on_changed("")
        way_out = _WITHOUT_ADAPTER if error.kind == "AdapterError" else ""
        self._view.say(f"{error}{way_out}{self._kept()}", problem=True)
        if error.kind in _SETUP_PROBLEMS:
            self._on_setup_problem(error)


def _count(proposals: int) -> str:
    return f"{proposals} proposal{'' if proposals == 1 else 's'}"


def _where(device: str) -> str:
    return _WHERE.get(device.split(":", maxsplit=1)[0], device)
