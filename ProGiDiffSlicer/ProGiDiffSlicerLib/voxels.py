"""Which voxels the user means: segments, point lists, boxes and slices of the scene, for the worker.

Each function gives the worker's VOXELS object (Logic/progidiff/worker/PROTOCOL.md); where an array belongs
into it, the array itself, which the engine hands over as a file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer

from ProGiDiffSlicerLib import proposals_scene
from ProGiDiffSlicerLib.errors import SegmentationError

Voxels = dict[str, Any]


def of_segment(node: Any, segment_id: str, volume: Any) -> Voxels:
    """A segment, painted or accepted or proposed, on the volume's grid.

    Raises:
        SegmentationError: it is empty, or lies outside the volume.
    """
    mask = proposals_scene.mask_in_volume(node, segment_id, volume)
    if not mask.any():
        name = node.GetSegmentation().GetSegment(segment_id).GetName()
        raise SegmentationError(
            f"{name} is empty in {volume.GetName()}.", "Paint something in it, or choose another."
        )
    region = [[int(a.min()), int(a.max()) + 1] for a in np.nonzero(mask)]
    box = tuple(slice(start, stop) for start, stop in region)
    return {"array": np.where(mask[box], 255, 0).astype(np.uint8), "region": region}


def of_points(node: Any) -> Voxels:
    """The voxels in which the points of a Markups list lie.

    Raises:
        SegmentationError: no point has been placed.
    """
    points = []
    for number in range(node.GetNumberOfControlPoints()):
        if node.GetNthControlPointPositionStatus(number) == node.PositionDefined:
            points.append(list(map(float, node.GetNthControlPointPositionWorld(number))))
    if not points:
        raise SegmentationError(
            f"{node.GetName()} has no points yet.", "Click into the slice views to place some."
        )
    return {"points": points}


def of_roi(node: Any) -> Voxels:
    """The box of a Markups ROI, which may be turned."""
    center, size = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]
    node.GetCenterWorld(center)
    node.GetSizeWorld(size)
    if min(size) <= 0:
        raise SegmentationError(f"The box {node.GetName()} has no size yet.", "Draw it first.")
    axes = slicer.util.arrayFromVTKMatrix(node.GetObjectToWorldMatrix())[:3, :3]
    axes = axes / np.linalg.norm(axes, axis=0)
    return {"roi": {"center": center, "size": size, "axes": axes.tolist()}}


def of_slices(first: int, last: int) -> Voxels:
    """Slices across the patient's long axis, both included, counted from 0."""
    return {"slices": [int(min(first, last)), int(max(first, last))]}


def of_region(region: Any) -> Voxels | None:
    """A Markups ROI node, or (first, last) slices; None stays None."""
    if region is None:
        return None
    return of_slices(*region) if isinstance(region, tuple | list) else of_roi(region)


def of_things(things: Any, volume: Any) -> list[Voxels]:
    """A list of Markups point lists and (segmentation node, segment id) pairs."""
    pairs = [thing if isinstance(thing, tuple | list) else (thing, "") for thing in things]
    return [of_marks(node, segment_id, volume) for node, segment_id in pairs]


def of_marks(node: Any, segment_id: str, volume: Any) -> Voxels:
    """Points of a Markups list, or a segment."""
    return of_segment(node, segment_id, volume) if segment_id else of_points(node)


def world_box(mask: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre and size in RAS mm of the upright box around an (I, J, K) mask with something in it."""
    corners = [(a.min() - 0.5, a.max() + 0.5) for a in np.nonzero(mask)]
    index = np.array(np.meshgrid(*corners)).reshape(3, -1)
    world = affine[:3, :3] @ index + affine[:3, 3:]
    low, high = world.min(axis=1), world.max(axis=1)
    return (low + high) / 2, high - low
