"""From a proposal to a finished segment, and back."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer

from ProGiDiffSlicerLib import proposals_scene
from ProGiDiffSlicerLib.errors import SegmentationError
from ProGiDiffSlicerLib.organs import organs
from ProGiDiffSlicerLib.proposal import Proposal, copy_provenance


@dataclass(frozen=True)
class Accepted:
    """One acceptance: where the finished segment lies and what it looked like."""

    node_id: str
    segment_id: str
    name: str
    fingerprint: int
    proposals_node_id: str
    proposal_id: str


def accept(proposal: Proposal, proposals_node: Any, target: Any = None) -> Accepted:
    """Copies a proposal into a segmentation as a finished segment.

    A finished segment is never touched: accepting an organ twice makes "pancreas 2" beside "pancreas".

    Args:
        proposals_node: the node the proposal lies in, with whatever edits were made there.
        target: vtkMRMLSegmentationNode; None makes "Segmentation of <volume>".

    Raises:
        SegmentationError: the proposal is empty, or the target belongs to another image.
    """
    volume = proposals_scene.reference_volume(proposals_node)
    if volume is None:
        raise SegmentationError("The volume of this proposal has left the scene.", "Load it again.")
    proposals_scene.follow_volume(proposals_node)
    mask = proposals_scene.mask_in_volume(proposals_node, proposal.id)
    if not mask.any():
        raise SegmentationError(f"{proposal.name} is empty.", "Choose another proposal.")
    if target is None:
        target = proposals_scene.new_segmentation(volume, f"Segmentation of {volume.GetName()}")
    elif target.GetAttribute(proposals_scene.ROLE_ATTRIBUTE):
        raise SegmentationError(
            f"{target.GetName()} holds proposals and cannot hold finished segments.",
            "Choose another target, or a new segmentation.",
        )
    elif proposals_scene.reference_volume(target) is None:
        proposals_scene.attach_to_volume(target, volume)
    elif proposals_scene.reference_volume(target) is not volume:
        raise SegmentationError(
            f"{target.GetName()} belongs to {proposals_scene.reference_volume(target).GetName()}, "
            f"not to {volume.GetName()}.",
            "Choose another target, or a new segmentation.",
        )
    elif target.GetTransformNodeID() != volume.GetTransformNodeID():
        raise SegmentationError(
            f"{target.GetName()} lies under another transform than {volume.GetName()}.",
            "Choose another target, or a new segmentation.",
        )
    source = proposals_node.GetSegmentation().GetSegment(proposal.id)
    segment = _finished_segment(proposal, source, mask, volume, target)
    segment_id = target.GetSegmentation().GenerateUniqueSegmentID(segment.GetName())
    target.GetSegmentation().AddSegment(segment, segment_id)
    proposals_scene.set_status(source, "Completed")
    return Accepted(
        target.GetID(), segment_id, segment.GetName(), _fingerprint(mask), proposals_node.GetID(), proposal.id
    )


def take_back(accepted: Accepted) -> None:
    """Removes an accepted segment again.

    Raises:
        SegmentationError: it was changed since, or its volume is gone, so removing it might lose work.
    """
    node = slicer.mrmlScene.GetNodeByID(accepted.node_id)
    if node is None or node.GetSegmentation().GetSegment(accepted.segment_id) is None:
        raise SegmentationError(f"{accepted.name} is no longer in the scene.", "There is nothing to undo.")
    if proposals_scene.reference_volume(node) is None:
        raise SegmentationError(
            f"The volume of {accepted.name} has left the scene, so {accepted.name} is kept.",
            "Remove it in the Segment Editor if you do not want it.",
        )
    if _fingerprint(proposals_scene.mask_in_volume(node, accepted.segment_id)) != accepted.fingerprint:
        raise SegmentationError(
            f"{accepted.name} was changed after it was accepted, so it is kept.",
            "Remove it in the Segment Editor if you do not want it.",
        )
    node.GetSegmentation().RemoveSegment(accepted.segment_id)
    proposals_node = slicer.mrmlScene.GetNodeByID(accepted.proposals_node_id)
    source = proposals_node.GetSegmentation().GetSegment(accepted.proposal_id) if proposals_node else None
    if source is not None:
        proposals_scene.set_status(source, "InProgress")


def _finished_segment(proposal: Proposal, source: Any, mask: np.ndarray, volume: Any, target: Any) -> Any:
    organ = organs().get(proposal.organ)
    segment = slicer.vtkSegment()
    segment.SetName(_free_name(target, organ.name if organ else proposal.organ_name))
    segment.SetColor(*(organ.color if organ else source.GetColor()))
    if organ is not None:
        segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), organ.terminology)
    copy_provenance(proposal, segment)
    region = [[int(i.min()), int(i.max()) + 1] for i in np.nonzero(mask)]
    box = tuple(slice(start, stop) for start, stop in region)
    segment.AddRepresentation("Binary labelmap", proposals_scene.labelmap(mask[box], region, volume))
    proposals_scene.set_status(segment, "Completed")
    return segment


def _free_name(target: Any, wanted: str) -> str:
    segmentation = target.GetSegmentation()
    taken = {segmentation.GetSegment(i).GetName() for i in segmentation.GetSegmentIDs()}
    names = [wanted, *(f"{wanted} {n}" for n in range(2, len(taken) + 3))]
    return next(name for name in names if name not in taken)


def _fingerprint(mask: np.ndarray) -> int:
    return zlib.crc32(np.packbits(mask).tobytes())
