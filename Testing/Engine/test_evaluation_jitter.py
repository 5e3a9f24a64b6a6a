"""The jitter control: as different from one another as was asked for, and nothing but the mask."""

from __future__ import annotations

import numpy as np
import pytest
from progidiff.evaluation.jitter import jitter
from progidiff.evaluation.metrics import pairwise_dice

SPACING = np.array([1.5, 1.5, 5.0])


def ellipsoid() -> np.ndarray:
    i, j, k = np.indices((48, 44, 16))
    return ((i - 24) / 14) ** 2 + ((j - 22) / 10) ** 2 + ((k - 8) / 4) ** 2 < 1


@pytest.mark.parametrize("wanted", [0.97, 0.9, 0.8, 0.65])
def test_pairwise_dice_is_reached(wanted: float) -> None:
    found = jitter(
        ellipsoid(),
        count=4,
        wanted_dice=wanted,
        spacing=SPACING,
        rng=np.random.default_rng(3),
        tolerance=0.01,
    )
    assert found.matched
    assert found.pairwise_dice == pytest.approx(wanted, abs=0.01)
    assert pairwise_dice(found.masks) == found.pairwise_dice


def test_proposals_that_are_all_the_same_need_no_jitter() -> None:
    mask = ellipsoid()
    found = jitter(mask, count=3, wanted_dice=1.0, spacing=SPACING, rng=np.random.default_rng(0))
    assert found.strength_mm == 0.0
    assert all(np.array_equal(m, mask[found.region]) for m in found.masks)


def test_the_same_seed_gives_the_same_masks_and_another_one_others() -> None:
    def draw(seed: int) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        return jitter(ellipsoid(), count=2, wanted_dice=0.85, spacing=SPACING, rng=rng).masks

    assert all(np.array_equal(a, b) for a, b in zip(draw(1), draw(1), strict=True))
    assert not np.array_equal(draw(1)[0], draw(2)[0])


def test_what_cannot_be_reached_is_said() -> None:
    found = jitter(ellipsoid(), count=3, wanted_dice=0.0, spacing=SPACING, rng=np.random.default_rng(0))
    assert not found.matched
    assert found.pairwise_dice > 0.01


def test_an_empty_mask_has_no_jitter() -> None:
    with pytest.raises(ValueError, match="voxels"):
        jitter(
            np.zeros((4, 4, 4), bool), count=2, wanted_dice=0.9, spacing=SPACING, rng=np.random.default_rng(0)
        )
