"""The proposals' own segmentation node: one per volume, one segment and one layer per proposal."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from ProGiDiffSlicerLib.organs import organs
from ProGiDiffSlicerLib.proposal import CONSENSUS, Proposal

ROLE_ATTRIBUTE = "ProGiDiff.role"
_LABELMAP = "Binary labelmap"
# Brightness and hue steps that keep the proposals of one organ apart, the consensus in its standard colour.
_TINTS = ((0.15, 0.0), (-0.18, 0.0), (0.0, 0.09), (0.0, -0.09), (0.22, 0.05), (-0.12, -0.06))


def find_node(volume: Any) -> Any:
    """The node with the proposals for `volume`, or None."""
    return next((node for node in all_nodes() if reference_volume(node) is volume), None)


def all_nodes() -> list[Any]:
    """The nodes with proposals, one for each volume that has some."""
    segmentations = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return [node for node in segmentations if node.GetAttribute(ROLE_ATTRIBUTE) == "proposals"]


def ensure_node(volume: Any) -> Any:
    """The node with the proposals for `volume`, made if there is none.

    Proposals overlap by design, and the Segment Editor's default would let one erase the others, so they
    never share a node with finished segments.
    """
    node = find_node(volume)
    if node is not None:
        follow_volume(node)
        return node
    node = new_segmentation(volume, f"Proposals for {volume.GetName()}")
    node.SetAttribute(ROLE_ATTRIBUTE, "proposals")
    return node


def new_segmentation(volume: Any, name: str) -> Any:
    """A segmentation on the grid of `volume`, in its study and under its transform."""
    node = slicer.mrmlScene.AddNewNodeByClass(
        "vtkMRMLSegmentationNode", slicer.mrmlScene.GenerateUniqueName(name)
    )
    node.CreateDefaultDisplayNodes()
    attach_to_volume(node, volume)
    return node


def attach_to_volume(node: Any, volume: Any) -> None:
    """Reference geometry, transform and study: what display and DICOM SEG export need."""
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    volume_item, item = hierarchy.GetItemByDataNode(volume), hierarchy.GetItemByDataNode(node)
    if volume_item and item:
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(volume_item))


def follow_volume(node: Any) -> None:
    """Proposals are voxels of their volume: where it was moved to by a transform, they go too."""
    volume = reference_volume(node)
    if volume is not None and node.GetTransformNodeID() != volume.GetTransformNodeID():
        node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())


def reference_volume(node: Any) -> Any:
    return node.GetNodeReference(slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole())


def add(node: Any, proposal: Proposal) -> None:
    """Writes a proposal as a segment whose id is the proposal's; an existing one is replaced."""
    volume = reference_volume(node)
    segmentation = node.GetSegmentation()
    if segmentation.GetSegment(proposal.id) is not None:
        segmentation.RemoveSegment(proposal.id)
    segment = slicer.vtkSegment()
    segment.SetName(proposal.name)
    segment.SetColor(*_color(proposal, _number_of_siblings(node, proposal)))
    organ = organs().get(proposal.organ)
    if organ is not None:
        segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), organ.terminology)
    proposal.write_tags(segment)
    segment.AddRepresentation(_LABELMAP, labelmap(proposal.mask, proposal.region, volume))
    segmentation.AddSegment(segment, proposal.id)
    set_status(segment, "InProgress")
    display = node.GetDisplayNode()
    display.SetSegmentVisibility(proposal.id, False)


def remove(node: Any, proposal_id: str) -> None:
    node.GetSegmentation().RemoveSegment(proposal_id)


def update_mask(node: Any, proposal: Proposal) -> None:
    """Shows a new threshold; keeps every other segment and the 3D surfaces."""
    image = labelmap(proposal.mask, proposal.region, reference_volume(node))
    slicer.vtkSlicerSegmentationsModuleLogic.SetBinaryLabelmapToSegment(image, node, proposal.id)
    proposal.write_tags(node.GetSegmentation().GetSegment(proposal.id))


def stored_proposals(node: Any) -> list[Proposal]:
    """What the segments' tags say, for a re-opened scene; the probabilities are not stored."""
    segmentation = node.GetSegmentation()
    found = (Proposal.from_segment(i, segmentation.GetSegment(i)) for i in segmentation.GetSegmentIDs())
    return [proposal for proposal in found if proposal is not None]


def set_status(segment: Any, status: str) -> None:
    """Slicer's own mark: NotStarted, InProgress, Completed or Flagged."""
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    logic.SetSegmentStatus(segment, getattr(logic, status))


def mask_in_volume(node: Any, segment_id: str, volume: Any = None) -> np.ndarray:
    """(I, J, K) bool of a segment as it now is, edits included, on a volume's grid.

    Args:
        volume: None for the one the segmentation was made on.
    """
    volume = reference_volume(node) if volume is None else volume
    mask = np.zeros(volume.GetImageData().GetDimensions(), bool)
    image = slicer.vtkOrientedImageData()
    node.GetBinaryLabelmapRepresentation(segment_id, image)
    extent = image.GetExtent()
    if extent[0] > extent[1] or image.GetPointData().GetScalars() is None:
        return mask
    moved = node.GetTransformNodeID() != volume.GetTransformNodeID()
    if moved or not _is_on_grid_of(image, volume):  # somebody chose another geometry in the Segment Editor
        array = slicer.util.arrayFromSegmentBinaryLabelmap(node, segment_id, volume)
        return array.transpose(2, 1, 0) > 0
    shape = [extent[2 * a + 1] - extent[2 * a] + 1 for a in range(3)]
    values = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape[::-1]).transpose(2, 1, 0)
    inside = [(max(extent[2 * a], 0), min(extent[2 * a + 1] + 1, mask.shape[a])) for a in range(3)]
    source = tuple(slice(lo - extent[2 * a], hi - extent[2 * a]) for a, (lo, hi) in enumerate(inside))
    mask[tuple(slice(lo, hi) for lo, hi in inside)] = values[source] > 0
    return mask


def _is_on_grid_of(image: Any, volume: Any) -> bool:
    of_image, of_volume = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(of_image)
    volume.GetIJKToRASMatrix(of_volume)
    both = [slicer.util.arrayFromVTKMatrix(m) for m in (of_image, of_volume)]
    return bool(np.allclose(*both, atol=1e-4))


def labelmap(mask: np.ndarray, region: list[list[int]], volume: Any) -> Any:
    """vtkOrientedImageData of an (I, J, K) mask over `region` of the grid of `volume`."""
    image = slicer.vtkOrientedImageData()
    (i0, i1), (j0, j1), (k0, k1) = region
    image.SetExtent(i0, i1 - 1, j0, j1 - 1, k0, k1 - 1)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    # VTK's memory runs with i fastest, which is the transposed array in C order.
    if mask.size:
        vtk_to_numpy(image.GetPointData().GetScalars())[:] = mask.transpose(2, 1, 0).ravel()
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    image.SetGeometryFromImageToWorldMatrix(matrix)
    return image


def voxel_ml(volume: Any) -> float:
    return float(np.prod(volume.GetSpacing())) / 1000.0


def _number_of_siblings(node: Any, proposal: Proposal) -> int:
    return sum(1 for p in stored_proposals(node) if p.organ == proposal.organ and p.kind != CONSENSUS)


def _color(proposal: Proposal, number: int) -> tuple[float, float, float]:
    organ = organs().get(proposal.organ)
    base = organ.color if organ else (0.9, 0.6, 0.2)
    if proposal.kind == CONSENSUS:
        return base
    lighter, turned = _TINTS[number % len(_TINTS)]
    hue, saturation, value = colorsys.rgb_to_hsv(*base)
    return colorsys.hsv_to_rgb((hue + turned) % 1.0, saturation, min(max(value + lighter, 0.3), 1.0))
