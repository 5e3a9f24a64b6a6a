"""Volume, prompt, Propose/Cancel, progress: the first section of the panel."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

from ProGiDiffSlicerLib import slice_views
from ProGiDiffSlicerLib.engine import Job
from ProGiDiffSlicerLib.errors import SegmentationError
from ProGiDiffSlicerLib.parameters import QUALITIES, Parameters
from ProGiDiffSlicerLib.prompt_line import PromptLine

_LOG = logging.getLogger("ProGiDiffSlicer")
_STAGES = {
    "starting": "Starting the engine…",
    "loading": "Loading the model…",
    "reading": "Reading the volume…",
    "proposing": "Making proposals…",
}
_SETUP_PROBLEMS = {"MissingPackage", "InterpreterMissing", "StartTimeout"}
_WHERE = {"cpu": "the processor", "cuda": "the graphics card"}


class ProposeSection:
    """Args:
    ui: the panel's widgets.
    logic: ProGiDiffSlicerLogic.
    on_changed: called when proposals of a volume came or changed; with the id to select or "".
    on_setup_problem: called with the error when the engine cannot run as it is installed.
    """

    def __init__(
        self,
        ui: Any,
        logic: Any,
        on_changed: Callable[[str], None],
        on_setup_problem: Callable[[SegmentationError], None],
    ) -> None:
        self._ui, self._logic, self._on_changed = ui, logic, on_changed
        self._on_setup_problem = on_setup_problem
        self._parameters: Parameters | None = None
        self._arrived: set[str] = set()  # ids: what had to be made again arrives again
        self._messages: list[str] = []
        self._device = ""
        self.prompt = PromptLine(ui.promptEdit, ui.historyButton, self.start, logic.engine.warm_up)
        ui.proposeButton.connect("clicked()", self.start_or_cancel)
        ui.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.refresh)
        ui.promptEdit.connect("textChanged(QString)", self.refresh)

    def set_parameters(self, parameters: Parameters | None) -> None:
        self._parameters = parameters
        self.refresh()

    def refresh(self) -> None:
        """Enables what can be pressed and says what is missing."""
        ui, busy = self._ui, self._logic.engine.is_busy()
        volume = ui.volumeSelector.currentNode()
        ready = volume is not None and bool(self.prompt.text())
        ui.proposeButton.setText("Cancel" if busy else "Propose")
        ui.proposeButton.setEnabled(busy or ready)
        ui.progressBar.setVisible(busy)
        for widget in (ui.volumeSelector, ui.promptEdit, ui.historyButton, ui.proposalsBox, ui.qualityBox):
            widget.setEnabled(not busy)
        if not busy and not ready:
            missing = (
                "Load a CT or MR first." if volume is None else "Type what to segment, then press Enter."
            )
            ui.proposeButton.setToolTip(missing)
        elif not busy:
            ui.proposeButton.setToolTip("Suggest outlines for what you typed (Enter)")

    def start_or_cancel(self) -> None:
        if self._logic.engine.is_busy():
            self._say("Stopping after this step…")
            self._logic.engine.cancel()
        else:
            self.start()

    def start(self) -> None:
        """Proposes for the chosen volume and prompt, unless something is missing or running."""
        parameters, volume = self._parameters, self._ui.volumeSelector.currentNode()
        if parameters is None or volume is None or not self.prompt.text() or self._logic.engine.is_busy():
            return
        self.prompt.remember()
        slice_views.show_volume(volume)
        self._arrived, self._messages, self._device = set(), [], ""
        job = Job(
            volume_id=volume.GetID(),
            prompt=self.prompt.text(),
            proposals=parameters.proposals,
            quality=QUALITIES[parameters.quality],
            seed=parameters.seed,
            on_progress=self._progress,
            on_proposal=self._proposal,
            on_message=self._message,
            on_done=self._done,
            on_failed=self._failed,
        )
        self._show_progress(0, _STAGES["starting"])
        self._say("")
        try:
            self._logic.propose(job)
        except SegmentationError as error:
            self._failed(error)
        self.refresh()

    def stopped(self, why: str) -> None:
        """The job was ended from outside, for instance because the scene is being closed."""
        self._say(why)
        self.refresh()

    def _progress(self, stage: str, params: dict[str, Any]) -> None:
        text = _STAGES[stage]
        if stage == "proposing" and not params and self._logic.engine.device:
            self._say(f"Running on {_where(self._logic.engine.device)}.")
        if stage == "proposing" and params:
            ready, wanted = int(params.get("proposal") or 0), int(params.get("proposals") or 0)
            organ = str(params.get("organ") or "").replace("_", " ")
            text = f"{organ.capitalize()}: {ready} of {wanted} ready{_time_left(params.get('seconds_left'))}"
        self._show_progress(float(params.get("fraction") or 0.0), text)

    def _show_progress(self, fraction: float, text: str) -> None:
        self._ui.progressBar.setValue(round(1000 * fraction))
        self._ui.progressBar.setFormat(text)

    def _proposal(self, proposal_id: str) -> None:
        self._arrived.add(proposal_id)
        volume = self._ui.volumeSelector.currentNode()
        proposal = self._logic.proposals_of(volume).get(proposal_id) if volume is not None else None
        if proposal is not None:  # what it was really made on, after a fall-back too
            self._device = str(proposal.provenance.get("device", ""))
        self._on_changed(proposal_id if len(self._arrived) == 1 else "")

    def _message(self, text: str) -> None:
        if text not in self._messages:
            self._messages.append(text)
        self._say(text)

    def _done(self, result: dict[str, Any]) -> None:
        self._on_changed("")
        self._say(self._summary(result))
        self.refresh()

    def _summary(self, result: dict[str, Any]) -> str:
        count = _count(len(self._arrived))
        if result.get("cancelled"):
            return f"Cancelled. {count} kept." if self._arrived else "Cancelled."
        missing = [s.get("reason") or f"No {s['name']} was found." for s in result["sets"] if not s["found"]]
        seconds = (result.get("seconds") or {}).get("total")
        after = f" in {math.ceil(seconds)} s" if seconds else ""
        device = self._device or self._logic.engine.device
        return " ".join([f"{count}{after} on {_where(device)}.", *missing, *self._messages])

    def _failed(self, error: SegmentationError) -> None:
        if error.details:
            _LOG.error("%s\n%s", error, error.details)
        kept = f" {_count(len(self._arrived))} kept." if self._arrived else ""
        self._on_changed("")
        self._say(f"{error}{kept}", problem=True)
        if error.kind in _SETUP_PROBLEMS:
            self._on_setup_problem(error)
        self.refresh()

    def _say(self, text: str, problem: bool = False) -> None:
        self._ui.statusLabel.setStyleSheet("color: #b3261e;" if problem else "")
        self._ui.statusLabel.setText(text)


def _count(proposals: int) -> str:
    return f"{proposals} proposal{'' if proposals == 1 else 's'}"


def _where(device: str) -> str:
    return _WHERE.get(device.split(":", maxsplit=1)[0], device)


def _time_left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return (
        f", about {max(1, round(seconds))} s left"
        if seconds < 90
        else f", about {round(seconds / 60)} min left"
    )
