"""What the slice views show: the volume behind, the selected proposal in the middle."""

from __future__ import annotations

from typing import Any

import slicer


def show_volume(volume: Any) -> None:
    """Puts the volume behind everything else, unless some view shows it already."""
    composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    if not any(node.GetBackgroundVolumeID() == volume.GetID() for node in composites):
        slicer.util.setSliceViewerLayers(background=volume, fit=True)


def jump_to(point: tuple[float, float, float] | None) -> None:
    """Moves all slice views to a RAS point, without recentring them."""
    if point is not None:
        slicer.vtkMRMLSliceNode.JumpAllSlices(
            slicer.mrmlScene, *point, slicer.vtkMRMLSliceNode.OffsetJumpSlice
        )


def hide_all_but(node: Any, nodes: list[Any]) -> None:
    """Of several segmentations only one stays in the views; None for none of them."""
    for other in nodes:
        display = other.GetDisplayNode()
        if other is not node and display is not None:
            display.SetVisibility(False)


def show_proposals(node: Any, selected: str, ticked: list[str]) -> None:
    """The selected proposal filled and outlined; ticked ones as contours; all others hidden."""
    display = node.GetDisplayNode()
    if display is None:
        return
    with slicer.util.NodeModify(display):
        display.SetVisibility(True)
        for segment_id in node.GetSegmentation().GetSegmentIDs():
            display.SetSegmentVisibility(segment_id, segment_id == selected or segment_id in ticked)
            display.SetSegmentVisibility2DFill(segment_id, segment_id == selected)
            display.SetSegmentVisibility2DOutline(segment_id, True)
            display.SetSegmentOpacity2DFill(segment_id, 0.7)
            display.SetSegmentVisibility3D(segment_id, True)


def show_surfaces(node: Any, shown: bool) -> None:
    """The visible proposals in the 3D view, or not."""
    display = node.GetDisplayNode()
    if display is None:
        return
    if shown:
        node.CreateClosedSurfaceRepresentation()
    display.SetVisibility3D(shown)
