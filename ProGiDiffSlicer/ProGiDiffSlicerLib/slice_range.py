"""Two boxes for the first and the last of some slices; turning them moves the views there."""

from __future__ import annotations

from typing import Any

import numpy as np

from ProGiDiffSlicerLib import slice_views
from ProGiDiffSlicerLib.volume_image import ijk_to_world, slice_axis


class SliceRange:
    """Slices are counted from 0 along the patient's long axis, as Slicer's Data Probe counts them.

    Args:
        first, last: QSpinBoxes.
    """

    def __init__(self, first: Any, last: Any) -> None:
        self._first, self._last = first, last
        self._volume: Any = None
        self._count = 0
        first.connect("valueChanged(int)", self._first_moved)
        last.connect("valueChanged(int)", self._last_moved)

    def show(self, volume: Any) -> None:
        """All slices of a volume, unless it is the one that is shown already."""
        has_voxels = volume is not None and volume.GetImageData() is not None
        count = volume.GetImageData().GetDimensions()[slice_axis(volume)] if has_voxels else 0
        if volume is self._volume and count == self._count:
            return
        self._volume, self._count = None, count  # no jumping while the limits change
        for box, value in ((self._first, 0), (self._last, max(count - 1, 0))):
            box.setMaximum(max(count - 1, 0))
            box.setValue(value)
        self._volume = volume if has_voxels else None

    def value(self) -> tuple[int, int]:
        """First and last, both included."""
        return self._first.value, self._last.value

    def _first_moved(self, value: int) -> None:
        self._last.setValue(max(self._last.value, value))
        self._jump(value)

    def _last_moved(self, value: int) -> None:
        self._first.setValue(min(self._first.value, value))
        self._jump(value)

    def _jump(self, number: int) -> None:
        if self._volume is None or not self._first.isVisible():
            return
        index = (np.array(self._volume.GetImageData().GetDimensions()) - 1) / 2
        index[slice_axis(self._volume)] = number
        slice_views.jump_to(tuple((ijk_to_world(self._volume) @ [*index, 1])[:3]))
