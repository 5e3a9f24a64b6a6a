"""CT or MR, and from scanner numbers to the [-1, 1] the model knows."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from progidiff.errors import UsageError
from progidiff.volumes.volume import Volume

# Hounsfield window that holds all soft tissue, fat and contrast-filled vessels; BTCV's usual one.
CT_WINDOW = (-125.0, 275.0)
# Share of the brightest and darkest MR voxels that may saturate.
MR_PERCENTILES = (0.5, 99.5)
# Enough voxels for stable percentiles and histograms, few enough to be instant.
SAMPLE_SIZE = 500_000
# Some files store Hounsfield numbers without their offset.
CT_OFFSET = 1024.0
# In CT at least 0.9 of the body is soft tissue, in MR scaled to look like CT at most 0.5 (measured on
# 20 CT and 15 MR volumes); bones and metal of other regions lower the former.
CT_SOFT_SHARE = 0.65
# CT readers pad the square around the round field of view with values no tissue has.
CT_PADDING_BELOW = -1100.0


def decide_modality(volume: Volume) -> Literal["CT", "MR"]:
    """CT or MR, from the file's word if it gave one, else from the intensities.

    CT numbers are absolute: soft tissue lies within −20…200 HU, fat around −100, air at −1000 (or at
    the low end of a window). MR has no such scale and no reason to be negative.
    """
    if volume.modality == "CT":
        return "CT"
    if volume.modality == "MR":
        return "MR"
    sample = _sample(volume.array)
    return "CT" if _looks_like_hounsfield(sample) or _looks_like_shifted_hounsfield(sample) else "MR"


def normalise(volume: Volume, modality: str = "auto") -> Volume:
    """Intensities in [-1, 1], float32, on the same grid.

    CT is clipped to the window −125…275 HU. MR is scaled between its 0.5 and 99.5 percentile, taken
    without the background value, and is therefore the same for any scanner scale and offset. An image
    without contrast becomes −1 everywhere.

    Args:
        volume: any CT or MR volume.
        modality: "auto", "CT" or "MR".

    Raises:
        UsageError: another modality.
    """
    decided = _chosen(volume, modality)
    low, high = ct_window(volume) if decided == "CT" else mr_window(volume)
    return replace(volume, array=_scale(volume.array, low, high), modality=decided)


def _chosen(volume: Volume, modality: str) -> Literal["CT", "MR"]:
    match modality.strip().upper():
        case "AUTO":
            return decide_modality(volume)
        case "CT":
            return "CT"
        case "MR":
            return "MR"
    raise UsageError(f"The modality “{modality}” is not known.", "Use auto, CT or MR.")


def ct_window(volume: Volume) -> tuple[float, float]:
    """The values that stand for −125 and 275 HU, also where a CT was stored with 1024 added."""
    offset = CT_OFFSET if _looks_like_shifted_hounsfield(_sample(volume.array)) else 0.0
    return CT_WINDOW[0] + offset, CT_WINDOW[1] + offset


def mr_window(volume: Volume) -> tuple[float, float]:
    """0.5 and 99.5 percentile of the voxels above the background value (the minimum)."""
    sample = _sample(volume.array)
    foreground = sample[sample > sample.min()]
    if foreground.size == 0:
        return float(sample[0]), float(sample[0])
    low, high = np.percentile(foreground, MR_PERCENTILES)
    return float(low), float(high)


def _sample(array: NDArray) -> NDArray[np.float64]:
    """Evenly spread voxels as float64, in an order that does not depend on memory layout."""
    step = max(1, round((array.size / SAMPLE_SIZE) ** (1 / 3)))
    # Thin axes keep every voxel: a stride must never skip all slices but one.
    steps = tuple(slice(None, None, step if n >= 8 * step else 1) for n in array.shape)
    return array[steps].astype(np.float64).ravel()


def _looks_like_hounsfield(sample: NDArray) -> bool:
    """Whether fat or air lies below zero and the body where Hounsfield put it."""
    sample = sample[sample > CT_PADDING_BELOW]
    if sample.size == 0 or sample.min() > -100 or np.mean(sample < -50) < 0.01:
        return False
    return _share_of_soft_tissue(sample) > CT_SOFT_SHARE


def _looks_like_shifted_hounsfield(sample: NDArray) -> bool:
    """Whether this is a CT stored as unsigned numbers, 1024 above Hounsfield's.

    Air is then 0…100, and most of what is bright crowds between fat (924) and enhanced organs (1200);
    no MR has so narrow a foreground at just that place.
    """
    sample = sample[sample > CT_PADDING_BELOW]
    if sample.size == 0 or np.mean(sample < -100) > 0.001:
        return False
    return _share_of_soft_tissue(sample - CT_OFFSET) > CT_SOFT_SHARE


def _share_of_soft_tissue(hounsfield: NDArray) -> float:
    """How much of what is not air or lung is fat, organ or vessel; 0 where there is hardly any body."""
    body = hounsfield[hounsfield > -500]
    if body.size < 0.03 * hounsfield.size:
        return 0.0
    return float(np.mean((body > -175) & (body < 250)))


def _scale(array: NDArray, low: float, high: float) -> NDArray[np.float32]:
    """low…high → -1…1, clipped."""
    if not high > low:
        return np.full_like(array, -1.0, dtype=np.float32)
    # Integers from a scanner fit float32 exactly; larger numbers lose nothing that 1/1000 of a window sees.
    scaled = array.astype(np.float32)
    scaled -= np.float32(low)
    scaled *= np.float32(2.0 / (high - low))
    scaled -= np.float32(1.0)
    return np.clip(scaled, -1.0, 1.0, out=scaled)
