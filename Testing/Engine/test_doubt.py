"""Doubt: each proposal reads what the image leaves open in its own way, and nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from progidiff.pipelines.doubt import doubted, smooth_field
from progidiff.pipelines.progidiff.image_encoder import ImageFeatures

SPACING = (5.0, 2.0, 2.0)


def features(scale: float = 1.0) -> ImageFeatures:
    organs = scale * torch.randn(8, 4, 32, 48, generator=torch.Generator().manual_seed(3))
    return ImageFeatures(torch.ones(8, 2, 4, 6), torch.ones(8, 2, 32, 48), organs)


def field(spacing: tuple[float, float, float] = SPACING, seed: int = 0) -> torch.Tensor:
    return smooth_field(40, (16, 64, 64), spacing, torch.Generator().manual_seed(seed))


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def test_a_field_has_about_unit_variance_and_no_offset() -> None:
    drawn = field()
    assert drawn.shape == (40, 16, 64, 64)
    assert float(drawn.mean()) == pytest.approx(0, abs=0.1)
    assert 0.8 < float(drawn.std()) < 1.1


def test_neighbours_differ_together_and_distant_places_by_themselves() -> None:
    drawn = field()
    assert correlation(drawn[..., 1:], drawn[..., :-1]) > 0.95  # 2 mm
    assert correlation(drawn[:, 1:], drawn[:, :-1]) > 0.85  # 5 mm
    assert abs(correlation(drawn[..., 40:], drawn[..., :-40])) < 0.15  # 80 mm


def test_distance_counts_in_mm_not_in_voxels() -> None:
    fine, coarse = field((1.0, 1.0, 1.0)), field((6.0, 6.0, 6.0))
    assert correlation(fine[..., 6:], fine[..., :-6]) == pytest.approx(
        correlation(coarse[..., 1:], coarse[..., :-1]), abs=0.06
    )


def test_organs_are_doubted_apart() -> None:
    drawn = field()
    assert abs(correlation(drawn[0], drawn[1])) < 0.5
    assert float((drawn[0] - drawn[1]).std()) > 0.5


def test_the_same_seed_is_the_same_reader() -> None:
    seen = features()
    again, other = (doubted(seen, 1.0, SPACING, seed).organs for seed in (5, 6))
    assert torch.equal(doubted(seen, 1.0, SPACING, 5).organs, again)
    assert not torch.allclose(again, other)


def test_only_the_organ_logits_change_and_the_given_ones_stay() -> None:
    seen = features()
    before = seen.organs.clone()
    other = doubted(seen, 2.0, SPACING, 1)
    assert other.control is seen.control and other.detail is seen.detail
    assert torch.equal(seen.organs, before)


def test_no_doubt_is_no_change() -> None:
    seen = features()
    assert doubted(seen, 0.0, SPACING, 1) is seen


def test_what_is_sure_stays() -> None:
    sure = features(scale=1000.0)
    assert (doubted(sure, 1.0, SPACING, 1).organs.argmax(1) == sure.organs.argmax(1)).float().mean() > 0.999


def test_more_doubt_moves_more() -> None:
    seen = features()
    moved = [
        float((doubted(seen, amount, SPACING, 1).organs.argmax(1) != seen.organs.argmax(1)).float().mean())
        for amount in (0.1, 0.5, 2.0)
    ]
    assert moved == sorted(moved) and moved[0] < moved[-1]


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 40.0)] * 3),
)
def test_any_window_gets_a_finite_field(
    shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> None:
    drawn = smooth_field(2, shape, spacing, torch.Generator().manual_seed(0))
    assert drawn.shape == (2, *shape) and bool(torch.isfinite(drawn).all())
