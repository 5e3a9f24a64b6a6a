"""Sets of voxels: what a user marks, however it was marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from progidiff.errors import UsageError
from progidiff.proposals.proposal import Region
from progidiff.proposals.regions import (
    NOWHERE,
    bounding_region,
    common_region,
    is_nowhere,
    recrop,
    shape_of,
    union_region,
)
from progidiff.volumes.volume import Grid


@dataclass(frozen=True)
class Voxels:
    """Some voxels of a grid, kept only in the box that holds them.

    Attributes:
        region: box of the grid.
        inside: bool, shape of `region`.
    """

    region: Region
    inside: NDArray[np.bool_]

    @classmethod
    def of_mask(cls, mask: NDArray, region: Region | None = None) -> Voxels:
        """The non-zero voxels of `mask`, which covers the whole grid or the box `region` of it."""
        if region is not None and shape_of(region) != mask.shape:
            raise UsageError(
                f"The mask has {_times(mask.shape)} voxels, its region {_times(shape_of(region))}.",
                "Send a mask with the shape of its region.",
            )
        inner = bounding_region(mask)
        if is_nowhere(inner):
            return NOTHING
        starts = [side.start for side in region] if region is not None else [0, 0, 0]
        sides = [slice(s + n.start, s + n.stop) for s, n in zip(starts, inner, strict=True)]
        return cls((sides[0], sides[1], sides[2]), mask[inner] != 0)

    @classmethod
    def of_points(cls, points: ArrayLike, grid: Grid) -> Voxels:
        """The voxels in which points lie.

        Args:
            points: (N, 3) RAS mm, none at all included.
            grid: the volume's grid.

        Raises:
            UsageError: a point outside the volume, or something that is not points.
        """
        ras = _numbers(points, "points")
        if ras.size == 0:
            return NOTHING
        if ras.ndim != 2 or ras.shape[1] != 3:
            raise UsageError("A point needs three coordinates.", "Give right, anterior, superior in mm.")
        to_voxel = np.linalg.inv(grid.affine)
        index = np.rint(ras @ to_voxel[:3, :3].T + to_voxel[:3, 3]).astype(int)
        beyond = ((index < 0) | (index >= np.asarray(grid.shape))).any(1)
        if beyond.any():
            place = ", ".join(f"{value:.1f}" for value in ras[beyond][0])
            raise UsageError(f"The point ({place}) mm lies outside the volume.", "Remove it or move it.")
        low = index.min(0)
        mask = np.zeros(index.max(0) - low + 1, bool)
        mask[tuple((index - low).T)] = True
        sides = [slice(int(a), int(a) + n) for a, n in zip(low, mask.shape, strict=True)]
        return cls((sides[0], sides[1], sides[2]), mask)

    @classmethod
    def of_box(cls, box: Sequence[Sequence[int] | slice], grid: Grid) -> Voxels:
        """All voxels of an index box.

        Args:
            box: (start, stop), end exclusive, for i, j, k; what exceeds the grid is cut off.
            grid: the volume's grid.

        Raises:
            UsageError: no box, or one that has no voxel of the volume.
        """
        ends = [(side.start, side.stop) if isinstance(side, slice) else tuple(side) for side in box]
        if len(ends) != 3 or any(len(e) != 2 or not all(_is_whole(n) for n in e) for e in ends):
            raise UsageError(f"{ends} is not a box of voxels.", "Give (start, stop) for three axes.")
        wanted = [slice(int(a), max(int(a), int(b))) for a, b in ends]
        whole = (slice(0, grid.shape[0]), slice(0, grid.shape[1]), slice(0, grid.shape[2]))
        region = common_region((wanted[0], wanted[1], wanted[2]), whole)
        return cls(_not_empty(region), np.ones(shape_of(region), bool))

    @classmethod
    def of_slices(cls, first: int, last: int, grid: Grid) -> Voxels:
        """The slices `first` … `last` (both included) across the axis nearest to the patient's long axis."""
        axis = long_axis(grid)
        box = [slice(0, n) for n in grid.shape]
        box[axis] = slice(max(0, first), last + 1)
        return cls.of_box(box, grid)

    @classmethod
    def of_roi(cls, center: ArrayLike, size: ArrayLike, grid: Grid, axes: ArrayLike | None = None) -> Voxels:
        """The voxels whose centres lie in a box of the patient, which may be turned.

        Args:
            center: (3,) RAS mm.
            size: (3,) edge lengths in mm.
            grid: the volume's grid.
            axes: 3×3, the columns are the unit vectors of the box's edges in RAS; by default R, A and S.

        Raises:
            UsageError: numbers that make no box, or a box without a voxel of the volume.
        """
        middle, edges = _numbers(center, "centre"), _numbers(size, "size")
        directions = np.eye(3) if axes is None else _numbers(axes, "axes")
        if middle.shape != (3,) or edges.shape != (3,) or directions.shape != (3, 3) or (edges <= 0).any():
            raise UsageError(
                "The region is not a box in the patient.", "Give its centre and its size, each three numbers."
            )
        region, position = _around(middle, edges, directions, grid)
        inside = np.all(np.abs((position - middle) @ directions) <= edges / 2 + 1e-6, axis=-1)
        if not inside.any():
            _not_empty(NOWHERE)
        return cls.of_mask(inside, region)

    def joined(self, other: Voxels) -> Voxels:
        """The voxels of both sets."""
        region = union_region([self.region, other.region])
        return NOTHING if is_nowhere(region) else Voxels(region, self.on(region) | other.on(region))

    @property
    def count(self) -> int:
        return int(np.count_nonzero(self.inside))

    def on(self, region: Region) -> NDArray[np.bool_]:
        """The set on another box of the grid (not to be written to)."""
        return recrop(self.inside, self.region, region)

    def check_within(self, grid: Grid, what: str) -> None:
        """Raises UsageError if the set does not belong to the grid; `what` names it."""
        if any(side.start < 0 or side.stop > n for side, n in zip(self.region, grid.shape, strict=True)):
            raise UsageError(
                f"The {what} reaches beyond the volume.", "Mark it on the volume that is segmented."
            )


NOTHING = Voxels(NOWHERE, np.zeros((0, 0, 0), bool))
"""The empty set."""


def long_axis(grid: Grid) -> int:
    """The array axis nearest to the patient's long axis."""
    return int(np.argmax(np.abs(grid.affine[2, :3]) / grid.spacing))


def _around(middle: NDArray, edges: NDArray, directions: NDArray, grid: Grid) -> tuple[Region, NDArray]:
    """The index box around a turned box, and the RAS position (I, J, K, 3) of each of its voxels."""
    signs = np.stack(np.meshgrid(*[(-0.5, 0.5)] * 3, indexing="ij"), -1).reshape(-1, 3)
    corners = middle + (signs * edges) @ directions.T
    to_voxel = np.linalg.inv(grid.affine)
    index = corners @ to_voxel[:3, :3].T + to_voxel[:3, 3]
    size = np.asarray(grid.shape)
    low = np.clip(np.floor(index.min(0)), 0, size).astype(int)
    high = np.clip(np.ceil(index.max(0)) + 1, low, size).astype(int)
    sides = [slice(int(a), int(b)) for a, b in zip(low, high, strict=True)]
    places = np.stack(np.meshgrid(*[np.arange(s.start, s.stop) for s in sides], indexing="ij"), -1)
    return (sides[0], sides[1], sides[2]), places @ grid.affine[:3, :3].T + grid.affine[:3, 3]


def _not_empty(region: Region) -> Region:
    if is_nowhere(region):
        raise UsageError("The region holds no voxel of the volume.", "Move or enlarge it.")
    return region


def _numbers(values: ArrayLike, what: str) -> NDArray[np.float64]:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"The {what} are not numbers.", "Give numbers in mm.") from error
    if not np.isfinite(array).all():
        raise UsageError(f"The {what} are not finite numbers.", "Give numbers in mm.")
    return array


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(str(n) for n in shape)
