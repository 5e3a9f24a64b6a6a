"""A 3D image and where it lies in the patient."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Modality = Literal["CT", "MR", "unknown"]
FloatArray = NDArray[np.floating]


@dataclass(frozen=True)
class Volume:
    """Voxels and the affine that places them in the patient.

    Attributes:
        array: shape (I, J, K), indexed ``array[i, j, k]``; any real dtype.
        affine: 4×4 float64, voxel index (i, j, k, 1) → patient millimetres in **RAS**
            (+x right, +y anterior, +z superior), as in NIfTI and Slicer.
        modality: what the file said, or "unknown".
        name: a short name for messages and reports, such as the file's stem.
    """

    array: NDArray
    affine: NDArray[np.float64]
    modality: Modality = "unknown"
    name: str = "volume"
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        i, j, k = self.array.shape
        return i, j, k

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Voxel edge lengths (3,) in mm along i, j, k."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @property
    def grid(self) -> Grid:
        return Grid(self.shape, self.affine)


@dataclass(frozen=True)
class Grid:
    """A lattice of voxels in the patient, without values.

    Attributes:
        shape: (I, J, K).
        affine: 4×4, voxel index → RAS mm.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    @property
    def spacing(self) -> NDArray[np.float64]:
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def voxel_ml(self) -> float:
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @property
    def superior_axis(self) -> int:
        """The voxel axis nearest to the patient's long axis: axial slices are cut across it."""
        return int(np.argmax(np.abs(self.affine[2, :3]) / self.spacing))


def axial_grid(shape: tuple[int, int, int], spacing: tuple[float, float, float], center: NDArray) -> Grid:
    """The model's canonical orientation: i → patient left, j → posterior, k → superior ("LPS" order).

    A slice ``array[:, :, k].T`` is then the picture radiologists know: rows from anterior to
    posterior, columns from the patient's right to left.

    Args:
        shape: (I, J, K) voxels.
        spacing: (i, j, k) mm.
        center: (3,) RAS mm of the grid's centre.
    """
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-spacing[0], -spacing[1], spacing[2]])
    affine[:3, 3] = np.asarray(center) - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Grid(shape, affine)
