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
    """Noise of about unit variance that varies over some `_SMOOTHNESS_MM`, plus an offset for the whole.

    Random weights on a coarse lattice, spread by Gaussian bumps: one small matrix product an axis.
    """
    bumps = [_bumps(n, _SMOOTHNESS_MM / float(s)) for n, s in zip(shape, spacing, strict=True)]
    field = rng.standard_normal([b.shape[1] for b in bumps]).astype(np.float32)
    for bump in bumps:
        field = np.tensordot(field, bump, axes=(0, 1))  # takes the first axis away, adds it last
    field = (field - field.mean()) / field.std()
    return (field + np.float32(0.5 * rng.standard_normal())) / np.float32(np.sqrt(1.25))


def _bumps(length: int, step: float) -> NDArray[np.float32]:
    """(length, lattice points) Gaussian bumps every `step` voxels, reaching one step beyond both ends."""
    step = max(step, 1.0)
    centers = np.arange(-1, int(np.ceil(length / step)) + 2) * step
    return np.exp(-0.5 * ((np.arange(length)[:, None] - centers) / (0.75 * step)) ** 2).astype(np.float32)
