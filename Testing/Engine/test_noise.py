"""Coherent noise: unit variance, correlated along the slices as documented."""

from __future__ import annotations

import math

import pytest
import torch
from progidiff.pipelines.progidiff.noise import coherent_noise

SHAPE = (4, 24, 24)


def draw(slices: int = 24, slice_mm: float = 5.0, seed: int = 0, **options: float) -> torch.Tensor:
    return coherent_noise(slices, SHAPE, slice_mm, torch.Generator().manual_seed(seed), **options)


def correlation(noise: torch.Tensor, apart: int) -> float:
    a, b = noise[:-apart].flatten(), noise[apart:].flatten()
    return float((a * b).mean() / (a.std() * b.std()))


@pytest.mark.parametrize("slice_mm", [1.0, 5.0, 40.0])
def test_every_slice_is_unit_gaussian_noise(slice_mm: float) -> None:
    noise = draw(24, slice_mm)
    spread = noise.flatten(1).std(1)
    assert noise.shape == (24, *SHAPE) and noise.dtype == torch.float32
    assert (spread - 1).abs().max() < 0.08  # 2304 values a slice: five standard errors
    assert noise.flatten(1).mean(1).abs().max() < 0.11


@pytest.mark.parametrize(("slice_mm", "apart"), [(5.0, 1), (5.0, 3), (2.0, 4), (10.0, 1)])
def test_slices_correlate_as_documented(slice_mm: float, apart: int) -> None:
    expected = math.exp(-((apart * slice_mm) ** 2) / (4 * 12.0**2))
    assert correlation(draw(48, slice_mm), apart) == pytest.approx(expected, abs=0.05)


def test_pixels_of_a_slice_do_not_correlate() -> None:
    noise = draw()
    assert abs(float((noise[..., 1:] * noise[..., :-1]).mean())) < 0.03


def test_no_correlation_length_gives_independent_slices() -> None:
    assert abs(correlation(draw(correlation_mm=0.0), 1)) < 0.03


def test_slices_further_apart_than_the_filter_reaches_are_independent() -> None:
    assert abs(correlation(draw(24, slice_mm=40.0), 1)) < 0.03


def test_a_seed_means_the_same_noise_and_another_seed_another() -> None:
    assert torch.equal(draw(seed=3), draw(seed=3))
    assert not torch.equal(draw(seed=3), draw(seed=4))


def test_one_slice() -> None:
    assert draw(1).shape == (1, *SHAPE)
    assert float(draw(1).std()) == pytest.approx(1, abs=0.08)
