"""How well one mask matches another: Dice, 95 % Hausdorff distance, normalised surface Dice.

The surface measures are MONAI's; the Dice coefficient is two lines of numpy that a test holds equal
to MONAI's ``compute_dice``, because the jitter control asks for it thousands of times.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from progidiff.proposals.proposal import Region

Mask = NDArray[np.bool_]
Outcome = Literal["compared", "missed", "false positive", "correctly absent"]

EMPTY_MASK_RULE = (
    "Both masks empty: the organ is *correctly absent*, counted as such and in no mean. Only one empty: "
    "Dice and surface Dice are 0 and enter the means; HD95 does not exist, enters no mean, and is counted "
    "as missing."
)


@dataclass(frozen=True)
class Agreement:
    """One prediction beside its reference.

    Attributes:
        outcome: which of the two masks is empty, if any.
        dice: in [0, 1]; None when both are empty.
        hd95_mm: millimetres; None when either is empty.
        surface_dice: in [0, 1]; None when both are empty.
    """

    outcome: Outcome
    dice: float | None
    hd95_mm: float | None
    surface_dice: float | None


def implementation(tolerance_mm: float) -> str:
    """Names the code behind the figures, as a report must."""
    import monai

    return (
        "Dice = 2|A∩B| / (|A|+|B|) over voxels (equal to MONAI's `compute_dice`). "
        f"HD95 = MONAI {monai.__version__} `compute_hausdorff_distance(percentile=95)`: the larger of the "
        "two directed 95th percentiles between edge voxels, in mm. "
        "Surface Dice = MONAI `compute_surface_dice` with sub-voxel surface elements and a tolerance of "
        f"{tolerance_mm:g} mm. All on the scan's own grid with its own spacing, cropped to the union of the "
        "two masks first, which changes no value."
    )


def dice(a: Mask, b: Mask) -> float:
    """2|A∩B| / (|A|+|B|) of two masks of one shape; two empty masks agree: 1."""
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 1.0 if total == 0 else 2.0 * int(np.count_nonzero(a & b)) / total


def pairwise_dice(masks: Sequence[Mask]) -> float | None:
    """Mean Dice over all pairs of masks of one shape; None for fewer than two masks."""
    pairs = [(a, b) for index, a in enumerate(masks) for b in masks[index + 1 :]]
    return float(np.mean([dice(a, b) for a, b in pairs])) if pairs else None


def union_box(masks: Sequence[Mask], spacing: NDArray[np.float64], margin_mm: float) -> Region | None:
    """The box around everything in `masks`, widened by a margin and kept inside the grid.

    Args:
        masks: of one shape (I, J, K).
        spacing: (3,) mm along i, j, k.
        margin_mm: how far the box reaches beyond the masks; at least one voxel.

    Returns:
        Three slices, or None when all masks are empty.
    """
    union = np.logical_or.reduce(masks)
    bounds = []
    for axis in range(3):
        occupied = np.flatnonzero(union.any(axis=tuple(a for a in range(3) if a != axis)))
        if not occupied.size:
            return None
        margin = max(1, int(np.ceil(margin_mm / spacing[axis])))
        bounds.append(slice(max(0, occupied[0] - margin), min(union.shape[axis], occupied[-1] + margin + 1)))
    return bounds[0], bounds[1], bounds[2]


def compare(
    prediction: Mask, reference: Mask, spacing: NDArray[np.float64], tolerance_mm: float = 2.0
) -> Agreement:
    """Measures a prediction against its reference by the rule of :data:`EMPTY_MASK_RULE`.

    Args:
        prediction: (I, J, K) bool.
        reference: (I, J, K) bool on the same grid.
        spacing: (3,) mm along i, j, k.
        tolerance_mm: how far two surfaces may lie apart and still count as the same.
    """
    predicted, present = bool(prediction.any()), bool(reference.any())
    if not (predicted and present):
        if not (predicted or present):
            return Agreement("correctly absent", None, None, None)
        return Agreement("missed" if present else "false positive", 0.0, None, 0.0)
    box = union_box([prediction, reference], spacing, margin_mm=0.0)
    assert box is not None  # both masks have voxels
    prediction, reference = prediction[box], reference[box]
    hd95, surface = _surface_measures(prediction, reference, spacing, tolerance_mm)
    return Agreement("compared", dice(prediction, reference), hd95, surface)


def _surface_measures(
    prediction: Mask, reference: Mask, spacing: NDArray[np.float64], tolerance_mm: float
) -> tuple[float, float]:
    """MONAI's HD95 in mm and surface Dice of two masks that both have voxels."""
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    a = torch.from_numpy(np.ascontiguousarray(prediction))[None, None]
    b = torch.from_numpy(np.ascontiguousarray(reference))[None, None]
    millimetres = [float(s) for s in spacing]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI calls a function that it deprecates itself
        hd95 = compute_hausdorff_distance(a, b, include_background=True, percentile=95, spacing=millimetres)
        surface = compute_surface_dice(
            a, b, [tolerance_mm], include_background=True, spacing=millimetres, use_subvoxels=True
        )
    return float(hd95), float(surface)
