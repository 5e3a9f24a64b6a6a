"""A volume as the engine gets it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk

from ProGiDiffSlicerLib.errors import SegmentationError


@dataclass(frozen=True)
class VolumeImage:
    """A volume's voxels and place as they were when a job was started; its node may go meanwhile.

    Attributes:
        id: of the volume's node.
        array: (I, J, K), any number type.
        affine: (4, 4) voxel indices to RAS millimetres.
        fingerprint: changes when voxels or place change, so that the worker gets the new image.
    """

    id: str
    name: str
    array: np.ndarray
    affine: np.ndarray
    fingerprint: str

    @classmethod
    def of(cls, node: Any) -> VolumeImage:
        """Raises SegmentationError for a volume without voxels."""
        _check(node)
        affine = ijk_to_world(node)
        array = slicer.util.arrayFromVolume(node).transpose(2, 1, 0)
        fingerprint = f"{node.GetImageData().GetMTime()} {affine.round(6).tolist()}"
        return cls(node.GetID(), node.GetName(), array, affine, fingerprint)


def first_image() -> Any:
    """The first volume that one could segment: no label map, colour picture or agreement map."""
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if not node.GetHideFromEditors() and node.GetClassName() == "vtkMRMLScalarVolumeNode":
            return node
    return None


def ijk_to_world(node: Any) -> np.ndarray:
    """(4, 4) from voxel indices to RAS millimetres, through a linear parent transform if there is one."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    parent = node.GetParentTransformNode()
    if parent is not None and parent.IsTransformToWorldLinear():
        to_world = vtk.vtkMatrix4x4()
        parent.GetMatrixTransformToWorld(to_world)
        vtk.vtkMatrix4x4.Multiply4x4(to_world, matrix, matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def slice_axis(node: Any) -> int:
    """The voxel axis (0, 1, 2) nearest to the patient's long axis, along which slices are counted."""
    affine = ijk_to_world(node)
    return int(np.argmax(np.abs(affine[2, :3]) / np.linalg.norm(affine[:3, :3], axis=0)))


def _check(node: Any) -> None:
    if node is None or slicer.mrmlScene.GetNodeByID(node.GetID()) is not node:
        raise SegmentationError("The volume has left the scene.", "Choose another volume.", kind="VolumeGone")
    if node.GetImageData() is None or 0 in node.GetImageData().GetDimensions():
        raise SegmentationError(
            f"The volume {node.GetName()} holds no image.", "Choose another volume.", kind="VolumeError"
        )
