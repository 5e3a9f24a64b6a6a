"""Cases to learn from: keep a checked mask with its volume, see what is there, remove it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer

from ProGiDiffSlicerLib import settings
from ProGiDiffSlicerLib.cases_list import CasesList
from ProGiDiffSlicerLib.errors import SegmentationError
from ProGiDiffSlicerLib.job_view import JobView, breakable
from ProGiDiffSlicerLib.organs import organs
from ProGiDiffSlicerLib.proposals_section import ProposalsSection
from ProGiDiffSlicerLib.slice_range import SliceRange
from ProGiDiffSlicerLib.source_choice import SourceChoice
from ProGiDiffSlicerLib.teaching import add_case_job

_ALL, _SOME = range(2)
_OUTCOMES = {
    "added": "Added: {organ} of {volume}.",
    "replaced": "Replaced the earlier {organ} of {volume}; the older mask is kept as a numbered version.",
    "unchanged": "This {organ} of {volume} was there already.",
}


class CasesSection:
    """Args:
    ui: the panel's widgets.
    logic: ProGiDiffSlicerLogic.
    proposals: the list, whose selected proposal is kept unless a segment is chosen.
    on_cases: called when it is known which cases there are.
    """

    def __init__(
        self, ui: Any, logic: Any, proposals: ProposalsSection, on_cases: Callable[[], None]
    ) -> None:
        self._ui, self._logic, self._on_cases = ui, logic, on_cases
        self.count: int | None = None  # None: not asked yet
        self._view = JobView(None, ui.caseStatus)
        for text in ("All slices", "Only some slices"):
            ui.checkedBox.addItem(text)
        self._source = SourceChoice(ui.caseSourceButton, ui.caseOrganBox, proposals, self.refresh)
        self._slices = SliceRange(ui.checkedFirstBox, ui.checkedLastBox)
        self.list = CasesList(ui.casesTree, self.refresh)
        ui.byEdit.setText(settings.checked_by())
        ui.byEdit.connect("textEdited(QString)", settings.set_checked_by)
        ui.checkedBox.connect("currentIndexChanged(int)", self._show_details)
        ui.libraryButton.connect("clicked()", self.choose_library)
        ui.addCaseButton.connect("clicked()", self.add)
        ui.removeCaseButton.connect("clicked()", self.remove)
        ui.teachSection.connect("contentsCollapsed(bool)", self._unfolded)
        self.refresh()

    def refresh(self) -> None:
        """Enables what can be pressed."""
        ui, busy, volume = self._ui, self._logic.engine.is_busy(), self._ui.volumeSelector.currentNode()
        self._source.refresh()
        self._slices.show(volume)
        ui.libraryEdit.setText(settings.case_library())
        ui.libraryEdit.setToolTip(settings.case_library() or "Images and masks are copied into this folder")
        ui.libraryButton.setEnabled(not busy)
        ready = volume is not None and bool(self._source.name) and bool(self._source.organ)
        ui.addCaseButton.setEnabled(ready and not busy)
        ui.addCaseButton.setToolTip(
            "Copy this volume and mask into the folder; nothing leaves this computer"
            if ready
            else "Select a proposal, or choose a segment and its organ, first."
        )
        ui.removeCaseButton.setEnabled(self.list.selected() is not None and not busy)

    def forget(self) -> None:
        """The scene is closing; a case on its way is kept all the same."""
        self._source.forget()

    def choose_library(self) -> bool:
        """Asks for the folder; True when there is one now."""
        folder = qt.QFileDialog.getExistingDirectory(
            self._ui.teachSection, "Choose a folder for your cases", settings.case_library()
        )
        if folder:
            settings.set_case_library(folder)
            self.look()
        self.refresh()
        return bool(folder)

    def look(self) -> None:
        """Asks the engine which cases there are."""
        if settings.case_library():
            self._logic.engine.ask("cases_list", self._listed, self._failed, self._library())

    def add(self) -> None:
        """Copies the chosen mask and its volume into the folder."""
        if self._logic.engine.is_busy() or not (settings.case_library() or self.choose_library()):
            return
        volume, slices = self._ui.volumeSelector.currentNode(), None
        if self._ui.checkedBox.currentIndex == _SOME:
            slices = self._slices.value()
        try:
            source = self._source.mask(volume)
            job = add_case_job(volume, source, settings.case_library(), slices, settings.checked_by())
            job.on_progress = lambda _stage, _params: self._view.say("Saving the case…")
            job.on_done = self._added
            job.on_failed = self._not_added
            self._logic.engine.submit(job)
        except SegmentationError as error:
            self._failed(error)

    def remove(self) -> None:
        case, organ = self.list.selected()
        name = organs()[organ].name if organ in organs() else organ
        question = (
            f"Delete the {name} of {case['source']} from your cases? "
            "The copied image goes too when it was its last organ. What was learnt from it stays."
            if organ
            else f"Delete the damaged {case['source']} with all its files? It can be added again then."
        )
        if slicer.util.confirmOkCancelDisplay(question, "Remove a case"):
            order = {**self._library(), "case_id": case["case_id"], "organ": organ}
            self._logic.engine.ask("cases_remove", lambda _answer: self.look(), self._failed, order)

    def _library(self) -> dict[str, str]:
        return {"library": settings.case_library()}

    def _listed(self, answer: dict[str, Any]) -> None:
        self.list.show(answer["cases"], answer["damaged"])
        self.count = len(answer["cases"])
        counts = f"Images: {self.count}, checked organs: {sum(answer['organs'].values())}."
        self._ui.casesLabel.setText(breakable(" ".join([counts, *answer["problems"]])))
        self.refresh()
        self._on_cases()

    def _added(self, result: dict[str, Any]) -> None:
        organ = result["organ"]
        name = organs()[organ].name if organ in organs() else organ
        self._view.say(_OUTCOMES[result["outcome"]].format(organ=name, volume=result["case"]["source"]))
        self.count = None
        self.look()

    def _not_added(self, error: SegmentationError) -> None:
        self._failed(
            SegmentationError(
                f"The case was not saved. {error.message}",
                "Nothing else is lost; press Add to cases again.",
                details=error.details,
            )
            if error.kind == "WorkerDied"
            else error
        )

    def _failed(self, error: SegmentationError) -> None:
        self._view.say(str(error), problem=True)
        self.refresh()

    def _unfolded(self, collapsed: bool) -> None:
        if not collapsed:
            self._show_details()
            self.refresh()
            if self.count is None:
                self.look()

    def _show_details(self) -> None:
        ui, some = self._ui, self._ui.checkedBox.currentIndex == _SOME
        for widget in (ui.checkedFirstLabel, ui.checkedFirstBox, ui.checkedLastLabel, ui.checkedLastBox):
            widget.setVisible(some)
