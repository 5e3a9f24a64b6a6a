"""Where the model may change anything: everywhere, in a box, or in some slices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ProGiDiffSlicerLib import marking, scene_choice, voxels
from ProGiDiffSlicerLib.errors import SegmentationError
from ProGiDiffSlicerLib.scene_choice import SceneChoice
from ProGiDiffSlicerLib.slice_range import SliceRange
from ProGiDiffSlicerLib.volume_image import VolumeImage

_WAYS = ("Anywhere", "Only in a box", "Only in some slices")
_ANYWHERE, _BOX, _SLICES = range(3)


class RegionChoice:
    """Args:
    ui: the panel's widgets.
    on_changed: called when the choice changed.
    """

    def __init__(self, ui: Any, on_changed: Callable[[], None]) -> None:
        self._ui, self._on_changed = ui, on_changed
        for way in _WAYS:
            ui.regionBox.addItem(way)
        self._box = SceneChoice(ui.roiButton, scene_choice.boxes, "No box", on_changed=on_changed)
        self._slices = SliceRange(ui.regionFirstBox, ui.regionLastBox)
        ui.regionBox.connect("currentIndexChanged(int)", self._way_changed)

    @property
    def is_anywhere(self) -> bool:
        return self._ui.regionBox.currentIndex == _ANYWHERE

    def show(self, volume: Any) -> None:
        self._slices.show(volume)
        self._box.refresh()

    def show_details(self) -> None:
        """Only the widgets of the chosen way."""
        ui, way = self._ui, self._ui.regionBox.currentIndex
        for widget in (ui.roiButton, ui.newRoiButton):
            widget.setVisible(way == _BOX)
        for widget in (ui.regionFirstLabel, ui.regionFirstBox, ui.regionLastLabel, ui.regionLastBox):
            widget.setVisible(way == _SLICES)

    def voxels(self) -> voxels.Voxels | None:
        """None for everywhere.

        Raises:
            SegmentationError: no box is chosen, or it has no size.
        """
        way = self._ui.regionBox.currentIndex
        if way == _ANYWHERE:
            return None
        if way == _SLICES:
            return voxels.of_slices(*self._slices.value())
        chosen = self._box.chosen()
        if not chosen:
            raise SegmentationError("No box is chosen.", "Press New box, then drag its handles in the views.")
        return voxels.of_roi(chosen[0].node)

    def new_box(self, volume: Any, mask: np.ndarray | None) -> None:
        """A box around a mask, or in the middle of the volume."""
        image = VolumeImage.of(volume)
        if mask is None:
            mask = np.zeros(image.array.shape, bool)
            mask[tuple(slice(n // 4, max(n // 4 + 1, 3 * n // 4)) for n in mask.shape)] = True
        node = marking.new_box("Work here", *voxels.world_box(mask, image.affine))
        self._box.choose((node.GetID(), ""))

    def forget(self) -> None:
        self._box.forget()
        self._ui.regionBox.setCurrentIndex(_ANYWHERE)

    def _way_changed(self) -> None:
        self.show_details()
        self._on_changed()
