"""The list of proposals and what can be done with them: step, compare, merge, accept, edit, undo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer

from ProGiDiffSlicerLib import agreement, proposals_scene, slice_views, thumbnails
from ProGiDiffSlicerLib.errors import SegmentationError
from ProGiDiffSlicerLib.job_view import JobView
from ProGiDiffSlicerLib.merging import MEAN, WAYS
from ProGiDiffSlicerLib.parameters import Parameters
from ProGiDiffSlicerLib.proposal import EDITED, MERGED, Proposal
from ProGiDiffSlicerLib.proposals_list import ProposalsList, milliliters
from ProGiDiffSlicerLib.volume_proposals import VolumeProposals


class ProposalsSection:
    """Args:
    ui: the panel's widgets.
    logic: ProGiDiffSlicerLogic.
    on_edit: called with (segmentation node, segment id) when one should open in the Segment Editor.
    """

    def __init__(self, ui: Any, logic: Any, on_edit: Callable[[Any, str], None]) -> None:
        self._ui, self._logic, self._on_edit = ui, logic, on_edit
        self._overlay = agreement.Overlay()
        self._view = JobView(None, ui.statusLabel)
        self._watched: tuple[Any, list[int]] | None = None
        self._look = qt.QTimer()  # once, after all that is being changed
        self._look.setSingleShot(True)
        self._look.connect("timeout()", self._look_again)
        self._parameters: Parameters | None = None
        self.on_selected: Callable[[], None] = lambda: None  # after selection or list changed
        self.list = ProposalsList(ui.proposalsTree, self._selected, self._show_chosen)
        for way in WAYS:
            ui.mergeBox.addItem(way)
        ui.mergeBox.setCurrentIndex(list(WAYS).index("Majority"))
        ui.previousButton.connect("clicked()", lambda: self.list.step(-1))
        ui.nextButton.connect("clicked()", lambda: self.list.step(1))
        ui.agreementButton.connect("toggled(bool)", self.show_agreement)
        ui.surfacesButton.connect("toggled(bool)", lambda _shown: self._show_chosen())
        ui.clearButton.connect("clicked()", self.clear)
        ui.mergeButton.connect("clicked()", self.merge)
        ui.thresholdSlider.connect("valueChanged(double)", self._threshold_moved)
        ui.acceptButton.connect("clicked()", self.accept)
        ui.editButton.connect("clicked()", self.edit)
        ui.undoButton.connect("clicked()", self.undo)
        self.refresh()

    def set_parameters(self, parameters: Parameters | None) -> None:
        self._parameters = parameters

    @property
    def proposals(self) -> VolumeProposals | None:
        """Those of the chosen volume."""
        volume = self._ui.volumeSelector.currentNode()
        return self._logic.proposals_of(volume) if volume is not None else None

    @property
    def current(self) -> Proposal | None:
        proposals = self.proposals
        return proposals.get(self.list.selected()) if proposals else None

    def changed(self, select: str = "") -> None:
        """Proposals came, went or changed: shows them, and selects one if asked to."""
        proposals = self.proposals
        self._watch(proposals.node if proposals else None)
        if proposals:
            proposals.look_again()
        self.list.show(proposals)
        if select:
            self.list.select(select)
        elif proposals and not self.list.selected() and proposals.everything():
            self.list.select(proposals.everything()[0].id)
        self._show_chosen()
        if self._ui.agreementButton.checked:
            self.show_agreement(True)

    def leave(self) -> None:
        """The module is being left, or the scene closes."""
        self._watch(None)
        self._look.stop()

    def _watch(self, node: Any) -> None:
        """Segments may be removed in the Segment Editor, or added by a script."""
        segmentation = node.GetSegmentation() if node is not None else None
        if self._watched is not None:
            before, tags = self._watched
            if before is segmentation:
                return
            for tag in tags:
                before.RemoveObserver(tag)
        self._watched = None
        if segmentation is not None:
            events = (slicer.vtkSegmentation.SegmentAdded, slicer.vtkSegmentation.SegmentRemoved)
            changed = [segmentation.AddObserver(e, lambda *_: self._look.start(0)) for e in events]
            self._watched = (segmentation, changed)

    def _look_again(self) -> None:
        proposals = self.proposals
        if proposals is not None and proposals.look_again():
            self.changed()

    def _selected(self, _proposal_id: str) -> None:
        self._show_chosen()
        current, proposals = self.current, self.proposals
        if current is not None and proposals.node is not None:
            known = proposals.with_probability(current.id)
            slice_views.jump_to(thumbnails.best_point(proposals.volume, known.mask, known.region))
            self._show_threshold(current)
        if self._ui.agreementButton.checked:
            self.show_agreement(True)

    def volume_chosen(self) -> None:
        """Another volume: its own proposals are shown, and its own segmentation takes what is accepted."""
        volume, target = self._ui.volumeSelector.currentNode(), self._ui.targetSelector.currentNode()
        if target is not None and volume is not None:
            made_on = proposals_scene.reference_volume(target)
            if made_on is not None and made_on is not volume:
                self._ui.targetSelector.setCurrentNode(None)
        if self.proposals is not None and self.proposals.everything():
            slice_views.show_volume(volume)  # or its proposals would lie over another image
        self.changed()

    def forget(self) -> None:
        """The scene is closing."""
        self.leave()
        self._overlay = agreement.Overlay()
        self._ui.agreementButton.setChecked(False)

    def _show_chosen(self) -> None:
        proposals = self.proposals
        slice_views.hide_all_but(proposals.node if proposals else None, proposals_scene.all_nodes())
        if proposals is not None and proposals.node is not None:
            slice_views.show_proposals(proposals.node, self.list.selected(), self.list.ticked())
            slice_views.show_surfaces(proposals.node, self._ui.surfacesButton.checked)
        self.refresh()

    def refresh(self) -> None:
        """Enables what can be pressed."""
        ui, current, proposals = self._ui, self.current, self.proposals
        something = bool(proposals and proposals.everything())
        for button in (ui.previousButton, ui.nextButton, ui.agreementButton, ui.surfacesButton):
            button.setEnabled(something)
        ui.clearButton.setEnabled(bool(proposals and proposals.groups))
        ui.acceptButton.setEnabled(current is not None)
        ui.editButton.setEnabled(current is not None)
        ui.mergeButton.setEnabled(len(self.list.ticked()) > 1)
        ui.thresholdSlider.setEnabled(_has_movable_border(current))
        step = self._logic.undo.next_step()
        self.on_selected()
        ui.undoButton.setEnabled(bool(step))
        ui.undoButton.setToolTip(f"Take back {step}" if step else "Nothing to take back")

    def show_agreement(self, shown: bool) -> None:
        """Lays the agreement map of the selected organ over the slices, or takes it away."""
        proposals, current = self.proposals, self.current
        organ = current.organ if current else next(iter(proposals.groups), "") if proposals else ""
        node = agreement.find_map(proposals.volume, organ) if shown and proposals else None
        self._overlay.show(node)
        if shown and node is None:
            self._say("There is no agreement map for this organ: it needs at least two proposals.")

    def merge(self) -> None:
        def do() -> None:
            way = self._ui.mergeBox.currentText
            merged = self._logic.merge(
                self.proposals, self.list.ticked(), way, self._ui.thresholdSlider.value
            )
            self.changed(merged.id)
            self._say(f"Added {merged.name}, {milliliters(merged.volume_ml)}.")

        self._try(do)

    def accept(self) -> None:
        def do() -> None:
            accepted = self._logic.accept(
                self.proposals, self.current.id, self._ui.targetSelector.currentNode()
            )
            target = self._logic.node(accepted.node_id)
            self._ui.targetSelector.setCurrentNode(target)
            self._say(f"Accepted as {accepted.name} in {target.GetName()}.")
            if self._ui.openEditorBox.checked:
                self._on_edit(target, accepted.segment_id)

        if self.current is not None:
            self._try(do)

    def edit(self) -> None:
        def do() -> None:
            copy = self.proposals.edited_copy(self.current.id)
            self.changed(copy.id)
            self._on_edit(self.proposals.node, copy.id)

        if self.current is not None:
            self._try(do)

    def undo(self) -> None:
        self._try(lambda: self._say(f"Took back {self._logic.undo.undo()}."))
        self.changed()

    def clear(self) -> None:
        """Removes all proposals of this volume; finished segments lie elsewhere and stay."""
        proposals = self.proposals
        if proposals is not None and self._may_clear(proposals):
            self._ui.agreementButton.setChecked(False)
            self._logic.clear(proposals)
            self.changed()

    def _may_clear(self, proposals: VolumeProposals) -> bool:
        """What the model drew it draws again; what was made by hand must not go by a slip."""
        own = [p.name for p in proposals.everything() if p.kind in (MERGED, EDITED)]
        question = f"Remove all proposals, also what you made of them ({', '.join(own)})?"
        return not own or slicer.util.confirmOkCancelDisplay(question, "Clear")

    def edited(self, segment_id: str) -> None:
        """The Segment Editor changed a proposal: shows its new picture and numbers."""
        proposals = self.proposals
        if proposals is not None and proposals.get(segment_id) is not None:
            proposals.measure_again(segment_id)
            self.list.update_row(proposals, proposals.get(segment_id))

    def _threshold_moved(self, value: float) -> None:
        current = self.current
        if _has_movable_border(current) and abs(current.threshold - value) > 1e-6:
            self.proposals.set_threshold(current.id, value)
            self.list.update_row(self.proposals, current)

    def _show_threshold(self, current: Proposal) -> None:
        if _has_movable_border(current):
            self._ui.thresholdSlider.setValue(current.threshold)

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except SegmentationError as error:
            self._say(str(error), problem=True)
        self.refresh()

    def _say(self, text: str, problem: bool = False) -> None:
        self._view.say(text, problem)


def _has_movable_border(proposal: Proposal | None) -> bool:
    """A mean of probabilities has a border to choose, as long as the probabilities are in memory."""
    return (
        proposal is not None
        and proposal.has_probabilities
        and proposal.provenance.get("method") == f"merged:{WAYS[MEAN]}"
    )
