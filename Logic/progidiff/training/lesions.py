"""Synthesised lesions inside organs: so that prompts such as "liver tumor" have something to learn from.

Public tumour sets are for users to train on; these lesions need none. A lesion is an irregular
ellipsoid, darker or brighter than its organ, some with a rim or a dead core. Arrays may have any axis
order, as long as `spacing` has the same.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from progidiff.errors import UsageError
from progidiff.prompts import Organ, organ_table
from progidiff.volumes.volume import Volume

HU_PER_UNIT = 200.0
"""Normalised intensity −1…1 spans 400 Hounsfield units."""

_LEAST_ML = 3.0  # smaller pieces of an organ do not get a lesion
_SMALLEST_MM, _LARGEST_MM = 5.0, 35.0  # radius
_ROUGHNESS = 0.25

FloatArray = NDArray[np.floating]


def finding_in(organ_label: int) -> Organ | None:
    """The table's finding that lies in the organ with this number, such as the liver's tumor."""
    organ = organ_table().by_label(organ_label)
    return next((f for f in organ_table().findings if organ is not None and f.within == organ.id), None)


def lesion_cover(
    inside: NDArray[np.bool_], spacing: tuple[float, float, float], rng: np.random.Generator
) -> NDArray[np.float32] | None:
    """How much of each voxel one random lesion covers.

    Args:
        inside: the organ; the lesion grows only there.
        spacing: mm along the array's axes.
        rng: random numbers.

    Returns:
        The array's shape, in [0, 1]; None where the organ is too small or barely seen.
    """
    voxels = np.argwhere(inside)
    organ_ml = len(voxels) * float(np.prod(spacing)) / 1000
    if organ_ml < _LEAST_ML:
        return None
    widest = 0.5 * (organ_ml * 1000 * 3 / (4 * np.pi)) ** (1 / 3)
    radius = float(np.clip(np.exp(rng.normal(np.log(13.0), 0.45)), _SMALLEST_MM, min(widest, _LARGEST_MM)))
    center = voxels[rng.integers(len(voxels))]
    reach = np.ceil(1.6 * radius / np.asarray(spacing)).astype(int)
    low, high = np.maximum(center - reach, 0), np.minimum(center + reach + 1, inside.shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    cover = np.zeros(inside.shape, np.float32)
    cover[box] = _ellipsoid(center, low, high, radius, spacing, rng) * inside[box]
    return cover if (cover > 0.5).sum() >= 8 else None


def _ellipsoid(
    center: NDArray,
    low: NDArray,
    high: NDArray,
    radius: float,
    spacing: tuple[float, float, float],
    rng: np.random.Generator,
) -> FloatArray:
    """Cover of an ellipsoid with a rough surface, on the box from `low` to `high`."""
    axes = radius * np.exp(rng.normal(0, 0.2, 3))
    offsets = [
        (np.arange(a, b) - c) * s / r for a, b, c, s, r in zip(low, high, center, spacing, axes, strict=True)
    ]
    z, y, x = np.meshgrid(*offsets, indexing="ij")
    distance = np.sqrt(z**2 + y**2 + x**2)
    rough = smooth_noise(distance.shape, rng)
    edge = 0.7 / radius * float(min(spacing)) + 0.05  # as soft as a voxel
    return 1 / (1 + np.exp(np.clip((distance * (1 + _ROUGHNESS * rough) - 1) / edge, -30, 30)))


def smooth_noise(shape: tuple[int, ...], rng: np.random.Generator, points: int = 4) -> FloatArray:
    """A smooth random field of about unit size."""
    coarse = rng.normal(0, 1, (points,) * len(shape))
    return zoom(coarse, [n / points for n in shape], order=1, grid_mode=True, mode="nearest")


def paint_lesion(image: FloatArray, cover: NDArray[np.float32], rng: np.random.Generator) -> FloatArray:
    """The image with a lesion in it.

    Args:
        image: normalised intensities.
        cover: from `lesion_cover`.
        rng: random numbers.
    """
    contrast = rng.choice([-1.0, 1.0], p=[0.8, 0.2]) * rng.uniform(0.25, 0.6)
    inner = contrast * cover
    if rng.random() < 0.3:  # a rim that enhances
        inner = inner - 0.8 * contrast * 4 * cover * (1 - cover)
    if rng.random() < 0.25:  # a core without blood
        inner = inner - rng.uniform(0.1, 0.25) * np.clip((cover - 0.9) * 10, 0, 1)
    touched = cover > 0.01
    box = tuple(slice(int(w.min()), int(w.max()) + 1) for w in np.nonzero(touched))
    texture = np.zeros(image.shape)
    texture[box] = smooth_noise(texture[box].shape, rng, 6) * rng.uniform(0, 0.05)
    return (image + inner + cover * texture).astype(image.dtype)


def add_lesion(image: Volume, label: Volume, organ: str, seed: int) -> tuple[Volume, Volume]:
    """Grow one lesion in an organ.

    Args:
        image: Hounsfield units on CT; on MR any units.
        label: organ table numbers, on the same grid.
        organ: id of an organ that a finding of the table lies in.
        seed: the same seed gives the same lesion.

    Returns:
        Image and label map with the lesion, the latter with the finding's number.

    Raises:
        UsageError: no finding lies in that organ, or there is too little of it.
    """
    rng = np.random.default_rng([seed, 5])
    number = organ_table().by_id(organ).label
    finding = finding_in(number)
    inside = label.array == number
    i, j, k = (float(s) for s in label.spacing)
    cover = lesion_cover(inside, (i, j, k), rng) if finding else None
    if finding is None or cover is None:
        raise UsageError(f"No lesion can be grown in “{organ}”.", "Choose a larger organ of the image.")
    low, high = (0.0, 2 * HU_PER_UNIT) if image.modality == "CT" else np.percentile(image.array, [1.0, 99.0])
    unit = (float(high) - float(low)) / 2 or 1.0
    painted = np.where(cover > 0, paint_lesion(image.array / unit, cover, rng) * unit, image.array)
    marked = np.where(cover > 0.5, np.uint8(finding.label), label.array)
    return replace(image, array=painted.astype(np.float32)), replace(label, array=marked)
