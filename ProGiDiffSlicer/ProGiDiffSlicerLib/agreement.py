"""Where the proposals agree and where they do not, as colours over the slices."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer

_ORGAN_ATTRIBUTE = "ProGiDiff.agreement"
_VOLUME_REFERENCE = "ProGiDiff.volume"  # a reference, which survives saving and loading, unlike an id
_COLORS = "ProGiDiff agreement"
_OUTSIDE = -1.0
_OPACITY = 0.6
# From disputed to agreed; readable over grey, also for the colour-blind.
_STOPS = ((0.85, 0.25, 0.10), (0.98, 0.68, 0.20), (0.95, 0.95, 0.65), (0.45, 0.75, 0.88), (0.15, 0.35, 0.65))


def find_map(volume: Any, organ: str) -> Any:
    """The agreement map of one organ on a volume, or None."""
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        of_organ = node.GetAttribute(_ORGAN_ATTRIBUTE) == organ
        if of_organ and node.GetNodeReference(_VOLUME_REFERENCE) is volume:
            return node
    return None


def write_map(
    volume: Any,
    organ: str,
    organ_name: str,
    region: list[list[int]],
    agreement: np.ndarray,
    touched: np.ndarray,
) -> Any:
    """A volume of the proposals' agreement in [0, 1] where any of them says organ, -1 elsewhere.

    Args:
        agreement: (I, J, K) over `region`, float in [0, 1] or uint8 with 255 = 1.
        touched: (I, J, K) bool over `region`: voxels inside at least one proposal.
    """
    node = find_map(volume, organ)
    if node is None:
        node = slicer.vtkMRMLScalarVolumeNode()
        node.SetName(f"Agreement on the {organ_name} in {volume.GetName()}")
        node.SetHideFromEditors(True)  # it is no image to segment
        node = slicer.mrmlScene.AddNode(node)
        node.SetAttribute(_ORGAN_ATTRIBUTE, organ)
        node.SetNodeReferenceID(_VOLUME_REFERENCE, volume.GetID())
    values = agreement / np.float32(255) if agreement.dtype == np.uint8 else agreement.astype(np.float32)
    full = np.full(volume.GetImageData().GetDimensions(), _OUTSIDE, np.float32)
    full[tuple(slice(start, stop) for start, stop in region)] = np.where(touched, values, _OUTSIDE)
    slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(full.transpose(2, 1, 0)))
    _copy_geometry(volume, node)
    _set_display(node, values[touched])
    return node


class Overlay:
    """The map over the slices, and what lay there before it."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[str | None, float]] = {}

    def show(self, node: Any) -> None:
        """Lays the map over the slices; None takes it away and puts back what was there."""
        views = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        if node is None:
            for view in views:
                if view.GetID() in self._before:
                    foreground, opacity = self._before[view.GetID()]
                    view.SetForegroundVolumeID(foreground)
                    view.SetForegroundOpacity(opacity)
            self._before = {}
            return
        for view in views:
            now = (view.GetForegroundVolumeID(), view.GetForegroundOpacity())
            self._before.setdefault(view.GetID(), now)
            view.SetForegroundVolumeID(node.GetID())
            view.SetForegroundOpacity(_OPACITY)


def _copy_geometry(volume: Any, node: Any) -> None:
    node.CopyOrientation(volume)
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())


def _set_display(node: Any, values: np.ndarray) -> None:
    """A range between the percentiles of what occurs, since most of an organ is agreed upon."""
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    low, high = np.percentile(values, (2, 98)) if values.size else (0.0, 1.0)
    if high - low < 0.05:
        low, high = max(0.0, high - 0.05), max(high, 0.05)
    display.SetAndObserveColorNodeID(_color_node().GetID())
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(float(low), float(high))
    display.SetThreshold(0.0, 1.0)
    display.ApplyThresholdOn()


def _color_node() -> Any:
    existing = slicer.mrmlScene.GetFirstNodeByName(_COLORS)
    if existing is not None:
        return existing
    node = slicer.vtkMRMLColorTableNode()
    node.SetTypeToUser()
    node.SetName(_COLORS)
    node.SetNumberOfColors(256)
    stops = np.linspace(0, 1, len(_STOPS))
    for i, x in enumerate(np.linspace(0, 1, 256)):
        red, green, blue = (float(np.interp(x, stops, [c[a] for c in _STOPS])) for a in range(3))
        node.SetColor(i, f"{x:.2f}", red, green, blue, 1.0)
    node.SetHideFromEditors(True)
    return slicer.mrmlScene.AddNode(node)
