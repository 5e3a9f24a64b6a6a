"""From the locator's coarse probabilities to the box in which an organ is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from progidiff.pipelines.crop import crop_pixel_mm
from progidiff.prompts import Organ
from progidiff.volumes.volume import Grid, axial_grid

FINEST_SLICE_MM = 3.0
BEYOND_COARSE_MM = 12.0  # slices drawn above and below a coarse box; training draws as many
BEYOND_SEEN_MM = 6.0  # the same for a box in which the fine pass saw the organ
# What is no organ: a probability that stays below this everywhere, or whose sum stays below this share of the
# organ's usual box, or of what the field of view holds of it. Testing/Benchmarks/presence.py measures both.
_LEAST_PEAK = 0.15
_LEAST_SHARE = 0.015
_LARGEST_SHARE = 1.8  # of the typical extent: what exceeds it is not all organ
_SMALLEST_SHARE = 0.7  # what is smaller was probably not seen whole, as happens to thin vessels


@dataclass(frozen=True)
class OrganBox:
    """Where an organ is.

    Attributes:
        low, high: (3,) corners in canonical mm (left, posterior, superior).
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def center(self) -> NDArray[np.float64]:
        return (self.low + self.high) / 2

    @property
    def extent(self) -> NDArray[np.float64]:
        return self.high - self.low


def locate(probability: NDArray[np.floating], grid: Grid, organ: Organ) -> OrganBox | None:
    """The box of one organ.

    Args:
        probability: (I, J, K) on `grid`, a canonical axial grid.
        grid: the coarse grid.
        organ: the organ, whose usual size bounds the box.

    Returns:
        None if the organ is not in the field of view.
    """
    peak, mass_ml = float(probability.max()), float(probability.sum()) * grid.voxel_ml
    in_view_mm = np.minimum(organ.typical_extent_mm, np.asarray(grid.shape) * grid.spacing)
    if peak < _LEAST_PEAK or mass_ml < _LEAST_SHARE * float(in_view_mm.prod()) / 1000:
        return None
    inside = probability > max(0.4 * peak, 0.1)
    parts, count = ndimage.label(inside)
    if count > 1:
        mass = ndimage.sum_labels(probability, parts, np.arange(1, count + 1))
        inside = np.isin(parts, 1 + np.flatnonzero(mass >= 0.25 * mass.max()))
    return box_of(np.argwhere(inside), grid, organ)


def box_of(where: NDArray[np.integer], grid: Grid, organ: Organ) -> OrganBox:
    """The box around voxels that show an organ, kept within what is plausible for its size.

    Args:
        where: (N, 3) voxel indices on `grid`, a canonical axial grid.
        grid: their grid.
        organ: gives the usual extent.
    """
    corner, spacing = canonical_mm(grid.affine[:3, 3]), grid.spacing
    typical = np.asarray(organ.typical_extent_mm, float)
    center = corner + np.median(where, 0) * spacing
    low = np.maximum(corner + (where.min(0) - 0.5) * spacing, center - _LARGEST_SHARE * typical)
    high = np.minimum(corner + (where.max(0) + 0.5) * spacing, center + _LARGEST_SHARE * typical)
    missing = np.maximum(_SMALLEST_SHARE * typical - (high - low), 0) / 2
    return OrganBox(low - missing, high + missing)


def crop_around(
    box: OrganBox, crop: int, slice_mm: float, field_of_view: Grid, beyond_mm: float = BEYOND_COARSE_MM
) -> Grid:
    """The fine grid in which the organ is drawn: a square window, and the slices that may show the organ.

    Slices lie where those of `field_of_view` lie, so that thick slices are not interpolated.

    Args:
        box: where the organ is.
        crop: edge of the window in pixels.
        slice_mm: distance of slices.
        field_of_view: canonical grid over the whole volume with that distance.
        beyond_mm: how far above and below the box slices are taken.
    """
    pixel = crop_pixel_mm(box.extent[:2], crop)
    bottom = float(canonical_mm(field_of_view.affine[:3, 3])[2])
    first = max(0, int(np.floor((box.low[2] - beyond_mm - bottom) / slice_mm)))
    last = min(field_of_view.shape[2] - 1, int(np.ceil((box.high[2] + beyond_mm - bottom) / slice_mm)))
    count = max(1, last - first + 1)
    middle = bottom + (first + (count - 1) / 2) * slice_mm
    center = canonical_mm(np.array([*box.center[:2], middle]))
    return axial_grid((crop, crop, count), (pixel, pixel, slice_mm), center)


def slice_distance(spacing_mm: float) -> float:
    """Distance of the model's slices: the volume's own, or, if finer, a multiple near 3 mm."""
    return spacing_mm * max(1, round(FINEST_SLICE_MM / spacing_mm))


def canonical_mm(ras: NDArray[np.floating]) -> NDArray[np.float64]:
    """RAS millimetres ↔ canonical millimetres (left, posterior, superior); its own inverse."""
    return np.asarray(ras, float) * np.array([-1.0, -1.0, 1.0])
