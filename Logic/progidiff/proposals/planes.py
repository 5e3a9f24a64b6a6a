"""Flat pictures cut out of volumes in patient space, whatever way their voxels lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from progidiff.proposals.proposal import Proposal
from progidiff.volumes.conversion import storable
from progidiff.volumes.volume import Grid

_MARGIN_MM = 20.0
_SMALLEST_SIDE_MM = 110.0  # closer than this nobody sees where in the body an adrenal lies
_ENOUGH_POINTS = 200_000

# How the coordinates of a picture's pixels run through the patient, in RAS, the way radiologists hang
# films: the patient's right on the left side, front or head at the top.
_DIRECTIONS = {
    "axial": (np.array([-1.0, 0.0, 0.0]), np.array([0.0, -1.0, 0.0])),
    "coronal": (np.array([-1.0, 0.0, 0.0]), np.array([0.0, 0.0, -1.0])),
}


@dataclass(frozen=True)
class Plane:
    """A square picture in the patient.

    Attributes:
        view: "axial" or "coronal".
        center: (3,) RAS mm.
        side: mm.
    """

    view: Literal["axial", "coronal"]
    center: NDArray[np.float64]
    side: float

    @property
    def position(self) -> str:
        """Where the plane lies, such as "S 1042 mm" or "P 13 mm", in Slicer's letters."""
        value = self.center[2] if self.view == "axial" else self.center[1]
        letters = "SI" if self.view == "axial" else "AP"
        return f"{letters[int(value < 0)]} {abs(value):.0f} mm"

    def points(self, pixels: int) -> NDArray[np.float64]:
        """(3, pixels, pixels) RAS mm of the pixel centres, rows from top to bottom."""
        right, down = _DIRECTIONS[self.view]
        offsets = ((np.arange(pixels) + 0.5) / pixels - 0.5) * self.side
        flat = down[:, None, None] * offsets[None, :, None] + right[:, None, None] * offsets[None, None, :]
        return self.center[:, None, None] + flat


def cut(array: NDArray, grid: Grid, plane: Plane, pixels: int, outside: float) -> NDArray[np.float32]:
    """(pixels, pixels) float32 values of `array`, which covers `grid`, linearly interpolated."""
    index = _voxel_index(grid, plane, pixels)
    # Half a voxel beyond the outermost centres still belongs to the volume.
    shape = np.array(grid.shape)[:, None, None]
    covered = ((index > -0.5 - 1e-6) & (index < shape - 0.5 + 1e-6)).all(axis=0)
    values = ndimage.map_coordinates(storable(array), index, output=np.float32, order=1, mode="nearest")
    return np.where(covered, values, np.float32(outside))


def cut_proposal(proposal: Proposal, plane: Plane, pixels: int) -> NDArray[np.float32]:
    """(pixels, pixels) probability of a proposal in the plane, zero outside its region."""
    probability = proposal.probability_in_region
    if probability.size == 0:
        return np.zeros((pixels, pixels), np.float32)
    starts = np.array([[[side.start]] for side in proposal.region])
    index = _voxel_index(proposal.grid, plane, pixels) - starts
    # Falls to zero within a voxel of the region's faces.
    return ndimage.map_coordinates(probability, index, output=np.float32, order=1, mode="grid-constant")


def _voxel_index(grid: Grid, plane: Plane, pixels: int) -> NDArray[np.float64]:
    """(3, pixels, pixels) fractional voxel index of the pixel centres."""
    to_voxels = np.linalg.inv(grid.affine)
    return np.tensordot(to_voxels[:3, :3], plane.points(pixels), axes=1) + to_voxels[:3, 3, None, None]


def planes_that_show(proposals: Sequence[Proposal], axial: int = 5) -> list[Plane]:
    """Axial planes spread over an organ, from head to foot, and one coronal plane where it is largest.

    The axial planes cut the union of the masks into parts of equal volume; all planes are centred on
    the organ and large enough to hold it. An empty list for empty proposals.
    """
    points = _points_in(proposals)
    if points.shape[1] == 0:
        return []
    low, high = points.min(axis=1), points.max(axis=1)
    center = (low + high) / 2
    side = max(float((high - low).max()) + 2 * _MARGIN_MM, _SMALLEST_SIDE_MM)
    heights = np.sort(points[2])[::-1]
    shares = (np.arange(axial) + 0.5) / axial
    chosen = dict.fromkeys(float(heights[int(share * heights.size)]) for share in shares)
    planes = [Plane("axial", np.array([center[0], center[1], height]), side) for height in chosen]
    if high[2] - low[2] > 0:
        front = _commonest(points[1])
        planes.append(Plane("coronal", np.array([center[0], front, center[2]]), side))
    return planes


def planes_through_middle(grid: Grid, axial: int = 5) -> list[Plane]:
    """Axial planes spread over a whole volume, for an organ that was not found."""
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * (
        np.array(grid.shape) - 1
    )
    points = grid.affine[:3, :3] @ corners.T + grid.affine[:3, 3:]
    low, high = points.min(axis=1), points.max(axis=1)
    center = (low + high) / 2
    side = float((high - low)[:2].max()) + float(grid.spacing.max())
    heights = dict.fromkeys(float(h) for h in high[2] - (np.arange(axial) + 0.5) / axial * (high - low)[2])
    return [Plane("axial", np.array([center[0], center[1], height]), side) for height in heights]


def _points_in(proposals: Sequence[Proposal]) -> NDArray[np.float64]:
    """(3, n) RAS mm of voxels in any of the masks: all of them, or evenly thinned where there are many."""
    parts = [np.zeros((3, 0))]
    for proposal in proposals:
        voxels = np.flatnonzero(proposal.mask_in_region)
        step = max(1, voxels.size * len(proposals) // _ENOUGH_POINTS)
        index = np.array(np.unravel_index(voxels[::step], proposal.probability_in_region.shape))
        index = index + np.array([[side.start] for side in proposal.region])
        parts.append(proposal.grid.affine[:3, :3] @ index + proposal.grid.affine[:3, 3:])
    # Rounded, so that voxels of one slice have one height.
    return np.concatenate(parts, axis=1).round(3)


def _commonest(values: NDArray[np.float64]) -> float:
    """The middle of the fullest of the 5 mm bins that the values fall into."""
    counts, edges = np.histogram(values, bins=max(1, int(np.ptp(values) / 5.0)))
    fullest = int(np.argmax(counts))
    return float((edges[fullest] + edges[fullest + 1]) / 2)
