"""Steer a proposal or any segment: vary it, or let the model keep to what the expert marked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ProGiDiffSlicerLib import marking, scene_choice, voxels
from ProGiDiffSlicerLib.errors import SegmentationError
from ProGiDiffSlicerLib.job import Job
from ProGiDiffSlicerLib.job_view import JobView
from ProGiDiffSlicerLib.parameters import Parameters, drawing
from ProGiDiffSlicerLib.proposals_run import ProposalsRun
from ProGiDiffSlicerLib.proposals_section import ProposalsSection
from ProGiDiffSlicerLib.region_choice import RegionChoice
from ProGiDiffSlicerLib.scene_choice import SceneChoice
from ProGiDiffSlicerLib.source_choice import SourceChoice
from ProGiDiffSlicerLib.source_mask import SourceMask
from ProGiDiffSlicerLib.steering import Marks, constrain_job, vary_job

_HINT = "Select a proposal above, or choose a segment to start from."


class SteerSection:
    """Args:
    ui: the panel's widgets.
    logic: ProGiDiffSlicerLogic.
    proposals: the list, whose selected proposal is steered unless a segment is chosen.
    on_setup_problem: called with the error when the engine cannot run as it is installed.
    """

    def __init__(
        self,
        ui: Any,
        logic: Any,
        proposals: ProposalsSection,
        on_setup_problem: Callable[[SegmentationError], None],
    ) -> None:
        self._ui, self._logic = ui, logic
        self._parameters: Parameters | None = None
        self._view = JobView(ui.steerBar, ui.steerStatus)
        self.run = ProposalsRun(logic, self._view, proposals.changed, on_setup_problem)
        self._running_button: Any = None
        self._source = SourceChoice(
            ui.steerSourceButton, ui.steerOrganBox, proposals, self.refresh, with_draft=True
        )
        self._region = RegionChoice(ui, self.refresh)
        self._inside = self._marks(ui.insideButton, scene_choice.marks)
        self._outside = self._marks(ui.outsideButton, scene_choice.marks)
        self._fixed = self._marks(ui.finishedButton, scene_choice.segments)
        ui.varyButton.connect("clicked()", lambda: self._pressed(ui.varyButton, self._vary))
        ui.constrainButton.connect("clicked()", lambda: self._pressed(ui.constrainButton, self._constrain))
        ui.newRoiButton.connect("clicked()", self._new_box)
        ui.insidePointsButton.connect(
            "clicked()", lambda: self._mark_points(self._inside, "Inside", marking.INSIDE_COLOR)
        )
        ui.outsidePointsButton.connect(
            "clicked()", lambda: self._mark_points(self._outside, "Outside", marking.OUTSIDE_COLOR)
        )
        ui.steerSection.connect("contentsCollapsed(bool)", self._unfolded)

    def _marks(self, button: Any, offers: Callable[[], list[scene_choice.Offer]]) -> SceneChoice:
        return SceneChoice(button, offers, "Nothing", several=True, on_changed=self.refresh)

    def set_parameters(self, parameters: Parameters | None) -> None:
        self._parameters = parameters
        self.refresh()

    def forget(self) -> None:
        """The scene is closing."""
        for choice in (self._source, self._region, self._inside, self._outside, self._fixed):
            choice.forget()

    def refresh(self) -> None:
        """Enables what can be pressed and says what is missing."""
        ui, busy, volume = self._ui, self._logic.engine.is_busy(), self._volume()
        if not self.run.is_running:
            self._view.end()
        self._source.refresh()
        self._region.show(volume)
        for choice in (self._inside, self._outside, self._fixed):
            choice.refresh()
        is_draft = self._source.is_draft
        has_mask = volume is not None and bool(self._source.name)
        can_vary = has_mask and bool(self._source.organ)
        can_constrain = volume is not None and bool(self._source.organ) and (has_mask or is_draft)
        for button, title, can in (
            (ui.varyButton, "Vary", can_vary),
            (ui.constrainButton, "Draw with these marks", can_constrain),
        ):
            mine = self.run.is_running and button == self._running_button
            button.setText("Cancel" if mine else title)
            button.setEnabled(mine or (can and not busy))
        for button in (ui.newRoiButton, ui.insidePointsButton, ui.outsidePointsButton):
            button.setEnabled(volume is not None)
        missing = volume is None or not (has_mask or is_draft)
        if missing and not ui.steerStatus.text:
            self._view.say(_HINT)
        elif not missing and ui.steerStatus.text == _HINT:
            self._view.say("")

    def _unfolded(self, collapsed: bool) -> None:
        if not collapsed:
            self._region.show_details()
            self.refresh()

    def _volume(self) -> Any:
        return self._ui.volumeSelector.currentNode()

    def _pressed(self, button: Any, make_job: Callable[[], Job]) -> None:
        if self.run.is_running:
            self.run.cancel()
            return
        if self._parameters is None or self._logic.engine.is_busy():
            return
        marking.stop_placing()
        self._running_button = button
        self._try(lambda: self.run.start(make_job()))

    def _vary(self) -> Job:
        source = self._source.mask(self._volume())
        strength = self._ui.strengthSlider.value / 100
        return vary_job(self._volume(), source, strength, self._region.voxels(), drawing(self._parameters))

    def _constrain(self) -> Job:
        volume = self._volume()
        marks = Marks(*(self._read(choice) for choice in (self._inside, self._outside, self._fixed)))
        return constrain_job(
            volume,
            self._source.mask(volume),
            self._source.organ,
            marks,
            self._region.voxels(),
            drawing(self._parameters),
        )

    def _read(self, choice: SceneChoice) -> list[voxels.Voxels]:
        return [voxels.of_marks(offer.node, offer.segment_id, self._volume()) for offer in choice.taken()]

    def _new_box(self) -> None:
        def do() -> None:
            source: SourceMask | None = None
            if self._source.name and self._source.organ:
                source = self._source.mask(self._volume())
            self._region.new_box(self._volume(), _whole(source, self._volume()))
            self._view.say("Drag the handles of the box in the views.")

        self._try(do)

    def _mark_points(self, choice: SceneChoice, name: str, color: tuple[float, float, float]) -> None:
        """Goes on with the row's own list, or makes one."""
        lists = [offer.node for offer in choice.chosen() if not offer.segment_id]
        if not lists:
            lists = [marking.new_points(name, color)]
            choice.choose((lists[0].GetID(), ""))
        marking.start_placing(lists[-1])
        self._view.say("Click into the slice views; press Esc when you are done.")

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except SegmentationError as error:
            self._view.say(str(error), problem=True)
        self.refresh()


def _whole(source: SourceMask | None, volume: Any) -> np.ndarray | None:
    """(I, J, K) bool of a mask that is known in its region."""
    if source is None:
        return None
    mask = np.zeros(volume.GetImageData().GetDimensions(), bool)
    mask[tuple(slice(start, stop) for start, stop in source.voxels["region"])] = source.voxels["array"] > 0
    return mask
