"""A mask to go on from: a proposal or any segment, with the organ it shows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import slicer
import vtk

from ProGiDiffSlicerLib import voxels
from ProGiDiffSlicerLib.errors import SegmentationError
from ProGiDiffSlicerLib.organs import organs


@dataclass(frozen=True)
class SourceMask:
    """Attributes:
    name: what its descendants call their parent.
    organ: id in the organ table.
    prompt: what was asked for when it was made; "" for a segment of another origin.
    voxels: see :mod:`voxels`.
    """

    name: str
    organ: str
    prompt: str
    voxels: voxels.Voxels


def source_mask(node: Any, segment_id: str, volume: Any, organ: str = "") -> SourceMask:
    """A segment as it now is, edits included.

    Args:
        organ: id of the organ table; "" takes the segment's own.

    Raises:
        SegmentationError: it is gone or empty, or nobody says which organ it shows.
    """
    segment = node.GetSegmentation().GetSegment(segment_id) if node is not None else None
    if segment is None:
        raise SegmentationError("The segment is no longer in the scene.", "Choose another one.")
    organ = organ or organ_of(segment)
    if not organ:
        raise SegmentationError(
            f"It is not known which organ {segment.GetName()} shows.", "Choose the organ beside it."
        )
    prompt = tag(segment, "ProGiDiff.from.prompt")
    return SourceMask(segment.GetName(), organ, prompt, voxels.of_segment(node, segment_id, volume))


def organ_of(segment: Any) -> str:
    """Id of the organ a segment shows, by its tag, its terminology or its name; "" if none of them says."""
    known = organs()
    if (organ := tag(segment, "ProGiDiff.organ")) in known:
        return organ
    terminology = tag(segment, slicer.vtkSegment.GetTerminologyEntryTagName())
    name = re.sub(r"[\s_]+", " ", segment.GetName()).strip().lower()
    name = re.sub(r" \d+$", "", name)
    for organ in known.values():
        if organ.terminology == terminology or organ.name.lower() == name:
            return organ.id
    return ""


def tag(segment: Any, name: str) -> str:
    value = vtk.reference("")
    return str(value) if segment.GetTag(name, value) else ""
