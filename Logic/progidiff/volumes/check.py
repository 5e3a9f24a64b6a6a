"""What the engine refuses to work on, and why."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from progidiff.errors import VolumeError
from progidiff.volumes.volume import Grid, Volume

# Cosine between two voxel axes above which a matrix counts as sheared rather than rounded (0.6°).
MAX_SHEAR = 0.01
MAX_EXTENT_MM = 3000.0  # no scanner sees more; beyond it the unit is wrong


def check_volume(volume: Volume, *, allow_constant: bool = False) -> Volume:
    """Make sure that voxels and geometry can be worked with; returns the volume unchanged.

    Args:
        volume: any volume.
        allow_constant: accept an image without contrast, as an empty label map is.

    Raises:
        VolumeError: not 3D, empty, complex or non-numeric, NaN/Inf voxels, all voxels the same, or an
            affine that is not finite, has no volume, is sheared, or covers more than three metres.
    """
    check_affine(volume.affine, volume.name)
    if volume.array.ndim == 3:
        check_extent(volume.grid, volume.name)
    check_voxels(volume.array, volume.name, allow_constant=allow_constant)
    return volume


def check_affine(affine: NDArray, name: str) -> None:
    """Raise VolumeError unless `affine` is a finite, invertible 4×4 with axes at right angles."""
    if np.shape(affine) != (4, 4) or not np.isfinite(affine).all():
        raise VolumeError(
            f"The position matrix of “{name}” is not a 4×4 matrix of finite numbers.",
            "Repair the header, or export the scan again from the original DICOM files.",
        )
    axes = np.asarray(affine, float)[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    if (spacing < 1e-6).any():
        raise VolumeError(
            f"The voxel spacing of “{name}” is zero along an axis.",
            "Repair the spacing in the header, or export the scan again from the original DICOM files.",
        )
    directions = axes / spacing
    if abs(np.linalg.det(directions)) < 0.1:
        raise VolumeError(
            f"The position matrix of “{name}” is singular: two voxel axes point the same way.",
            "Repair the header, or export the scan again from the original DICOM files.",
        )
    cosines = np.abs(directions.T @ directions - np.eye(3)).max()
    if cosines > MAX_SHEAR:
        raise VolumeError(
            f"The voxel axes of “{name}” are {np.rad2deg(np.arcsin(cosines)):.1f}° off right angles.",
            "Resample the scan to an orthogonal grid first, for instance by hardening the transform "
            "(or the gantry tilt correction) in 3D Slicer.",
        )


def check_extent(grid: Grid, name: str) -> None:
    """Raise VolumeError for a field of view that no scanner has."""
    extent = np.array(grid.shape) * grid.spacing
    if (extent > MAX_EXTENT_MM).any():
        raise VolumeError(
            f"“{name}” would be {extent.max() / 1000:.1f} metres long: its spacing or unit is wrong.",
            "Repair the spacing in the header, or export the scan again from the original DICOM files.",
        )


def check_voxels(array: NDArray, name: str, *, allow_constant: bool = False) -> None:
    """Raise VolumeError unless `array` is a 3D real image with finite values and some contrast."""
    if array.ndim != 3:
        raise VolumeError(f"“{name}” has {array.ndim} dimensions instead of 3.", "Choose a single 3D volume.")
    if array.size == 0:
        raise VolumeError(f"“{name}” has no voxels.", "Choose a volume that is not empty.")
    if array.dtype.kind not in "buif":
        raise VolumeError(
            f"The voxels of “{name}” are of type {array.dtype}, not real numbers.", "Choose a CT or MR image."
        )
    lowest, highest = array.min(), array.max()
    # A NaN anywhere makes minimum and maximum NaN, so two fast passes suffice.
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        count = int(array.size - np.isfinite(array).sum())
        raise VolumeError(
            f"“{name}” has {count} voxels that are NaN or infinite.",
            "Replace them with the background value before segmenting.",
        )
    if lowest == highest and not allow_constant:
        raise VolumeError(f"All voxels of “{name}” have the same value {lowest}.", "Choose another volume.")
