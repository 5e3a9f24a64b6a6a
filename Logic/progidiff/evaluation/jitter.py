"""The control that the best of N proposals must beat: one proposal, shaken at random.

Any N masks that differ have a best one, and it is always better than their mean. So N proposals are
worth something only if their best is better than the best of N random variations of a single
proposal that differ from one another just as much. The variation moves the mask's surface in and out by
a smooth random field; its strength is found by bisection on the mean pairwise Dice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from progidiff.evaluation.metrics import Mask, pairwise_dice, union_box
from progidiff.proposals.proposal import Region

MARGIN_MM = 20.0
_SMOOTHNESS_MM = 12.0
_STRONGEST_MM = 80.0
_BISECTIONS = 16


@dataclass(frozen=True)
class Jitter:
    """N random variations of one mask.

    Attributes:
        region: box of the grid that the masks cover.
        masks: N masks of the shape of `region`.
        pairwise_dice: mean Dice between them.
        strength_mm: standard deviation of the surface's displacement.
        matched: whether `pairwise_dice` is within tolerance of what was asked for.
    """

    region: Region
    masks: list[Mask]
    pairwise_dice: float
    strength_mm: float
    matched: bool


def jitter(
    mask: Mask,
    *,
    count: int,
    wanted_dice: float,
    spacing: NDArray[np.float64],
    rng: np.random.Generator,
    tolerance: float = 0.01,
) -> Jitter:
    """Draws `count` random variations of a mask whose mean pairwise Dice is `wanted_dice`.

    Args:
        mask: (I, J, K) bool with at least one voxel.
        count: how many variations, at least two.
        wanted_dice: mean pairwise Dice to reach, in [0, 1].
        spacing: (3,) mm along i, j, k.
        rng: the only source of randomness.
        tolerance: how near the mean pairwise Dice must come for `Jitter.matched`.

    Raises:
        ValueError: the mask is empty or `count` is below two.
    """
    region = union_box([mask], spacing, MARGIN_MM)
    if region is None or count < 2:
        raise ValueError("jitter needs a mask with voxels and at least two variations")
    depth = _signed_depth_mm(mask[region], spacing)
    fields = [_smooth_noise(depth.shape, spacing, rng) for _ in range(count)]

    def shaken(strength: float) -> tuple[list[Mask], float]:
        masks = [depth + strength * field > 0 for field in fields]
        agreement = pairwise_dice(masks)
        assert agreement is not None  # count is at least two
        return masks, agreement

    weak, strong = 0.0, _STRONGEST_MM
    masks, reached, strength = [*shaken(0.0), 0.0]
    for _ in range(_BISECTIONS):
        if abs(reached - wanted_dice) <= tolerance / 4:
            break
        strength = (weak + strong) / 2
        masks, reached = shaken(strength)
        weak, strong = (strength, strong) if reached > wanted_dice else (weak, strength)
    return Jitter(region, masks, reached, strength, abs(reached - wanted_dice) <= tolerance)


def _signed_depth_mm(mask: Mask, spacing: NDArray[np.float64]) -> NDArray[np.float32]:
    """Distance to the mask's surface in mm, positive inside; half a voxel's offset is irrelevant here."""
    from scipy.ndimage import distance_transform_edt

    padded = np.pad(mask, 1)  # the volume's border is outside, also for a mask that fills it
    inside = distance_transform_edt(padded, sampling=spacing)
    outside = distance_transform_edt(~padded, sampling=spacing)
    return (inside - outside)[1:-1, 1:-1, 1:-1].astype(np.float32)


def _smooth_noise(
    shape: tuple[int, ...], spacing: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Unit-variance noise that varies over some `_SMOOTHNESS_MM`, drawn coarsely and interpolated."""
    from scipy.ndimage import map_coordinates

    step = np.maximum(_SMOOTHNESS_MM / np.asarray(spacing), 1.0)
    coarse = rng.standard_normal([int(np.ceil(n / s)) + 3 for n, s in zip(shape, step, strict=True)])
    axes = [np.arange(n) / s + 1.0 for n, s in zip(shape, step, strict=True)]
    field = map_coordinates(coarse, np.meshgrid(*axes, indexing="ij"), order=2, mode="nearest")
    spread = float(field.std())
    # A box smaller than the field's wavelength sees hardly any variation: the offset then carries the noise.
    offset = rng.standard_normal()
    normalised = (field - field.mean()) / spread if spread > 1e-6 else np.zeros_like(field)
    return ((normalised + 0.5 * offset) / np.sqrt(1.25)).astype(np.float32)
