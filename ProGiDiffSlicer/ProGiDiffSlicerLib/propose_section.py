"""Volume, prompt, Propose/Cancel, progress: the first section of the panel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ProGiDiffSlicerLib import slice_views
from ProGiDiffSlicerLib.errors import SegmentationError
from ProGiDiffSlicerLib.job import segment_job
from ProGiDiffSlicerLib.job_view import JobView
from ProGiDiffSlicerLib.parameters import Parameters, drawing
from ProGiDiffSlicerLib.prompt_line import PromptLine
from ProGiDiffSlicerLib.proposals_run import ProposalsRun

_BUSY = "The engine is busy below; wait for it, or cancel it there."


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
        self._ui, self._logic = ui, logic
        self._parameters: Parameters | None = None
        self._view = JobView(ui.progressBar, ui.statusLabel)
        self.run = ProposalsRun(logic, self._view, on_changed, on_setup_problem)
        self.prompt = PromptLine(
            ui.promptEdit, ui.historyButton, self.start, logic.engine.warm_up, logic.models
        )
        ui.proposeButton.connect("clicked()", self.start_or_cancel)
        ui.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.refresh)
        ui.promptEdit.connect("textChanged(QString)", self.refresh)

    def set_parameters(self, parameters: Parameters | None) -> None:
        self._parameters = parameters
        self.refresh()

    def refresh(self) -> None:
        """Enables what can be pressed and says what is missing."""
        ui, busy, mine = self._ui, self._logic.engine.is_busy(), self.run.is_running
        volume = ui.volumeSelector.currentNode()
        ready = volume is not None and bool(self.prompt.text())
        if not mine:
            self._view.end()
        ui.proposeButton.setText("Cancel" if mine else "Propose")
        ui.proposeButton.setEnabled(mine or (ready and not busy))
        ui.adapterBox.setEnabled(not busy)
        # While the engine learns, for minutes, one can look at other volumes and prepare the next prompt.
        drawing_now = busy and bool(self._logic.engine.job.volume_id)
        inputs = (ui.promptEdit, ui.historyButton, ui.proposalsBox, ui.qualityBox)
        for widget in (ui.volumeSelector, *inputs):
            widget.setEnabled(not drawing_now)
        ui.proposeButton.setToolTip(self._hint(volume is not None, ready, busy, mine))

    def _hint(self, has_volume: bool, ready: bool, busy: bool, mine: bool) -> str:
        if mine:
            return "Stop; what has arrived is kept"
        if busy:
            return _BUSY
        if ready:
            return "Suggest outlines for what you typed (Enter)"
        return "Type what to segment, then press Enter." if has_volume else "Load a CT or MR first."

    def say(self, error: SegmentationError) -> None:
        """Something beside the prompt went wrong."""
        self._view.say(str(error), problem=True)

    def start_or_cancel(self) -> None:
        if self.run.is_running:
            self.run.cancel()
        else:
            self.start()

    def start(self) -> None:
        """Proposes for the chosen volume and prompt, unless something is missing or running."""
        parameters, volume = self._parameters, self._ui.volumeSelector.currentNode()
        if parameters is None or volume is None or not self.prompt.text():
            return
        if self._logic.engine.is_busy():
            self._view.say(_BUSY)
            return
        self.prompt.remember()
        slice_views.show_volume(volume)
        try:
            job = segment_job(volume, self.prompt.text(), drawing(parameters))
        except SegmentationError as error:
            self._view.say(str(error), problem=True)
            return
        self._ui.proposalsTree.setFocus()  # the keys step through the list now; Space must not press Cancel
        self.run.start(job)
