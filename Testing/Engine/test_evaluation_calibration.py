"""Calibration and rank correlation on values whose figures are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from progidiff.evaluation.calibration import BinnedRate, brier, rank_correlation, reliability

PROBABILITIES = arrays(np.float64, (40,), elements=st.floats(0, 1))
EVENTS = arrays(bool, (40,))


def test_perfectly_calibrated_probabilities_have_no_calibration_error() -> None:
    rng = np.random.default_rng(0)
    probability = rng.uniform(size=200_000)
    assert reliability(probability, rng.uniform(size=200_000) < probability).calibration_error < 0.005


def test_overconfidence_is_the_error_it_is() -> None:
    probability = np.full(1000, 0.9)
    truth = np.arange(1000) % 2 == 0
    assert reliability(probability, truth).calibration_error == pytest.approx(0.4)
    assert brier(probability, truth) == pytest.approx(0.5 * 0.01 + 0.5 * 0.81)


def test_certain_and_right_is_perfect_by_both() -> None:
    truth = np.array([True, False, True])
    assert reliability(truth.astype(float), truth).calibration_error == 0.0
    assert brier(truth.astype(float), truth) == 0.0


@given(PROBABILITIES, EVENTS, PROBABILITIES, EVENTS)
@settings(max_examples=25, deadline=None)
def test_patients_pool_by_addition(p: np.ndarray, x: np.ndarray, q: np.ndarray, y: np.ndarray) -> None:
    added = reliability(p, x) + reliability(q, y)
    together = reliability(np.concatenate([p, q]), np.concatenate([x, y]))
    assert np.array_equal(added.count, together.count)
    assert np.array_equal(added.event_sum, together.event_sum)
    assert added.value_sum == pytest.approx(together.value_sum)


@given(PROBABILITIES, EVENTS)
@settings(max_examples=25, deadline=None)
def test_json_keeps_the_curve(p: np.ndarray, x: np.ndarray) -> None:
    curve = reliability(p, x)
    again = BinnedRate.from_json(curve.to_json())
    assert again.count.sum() == 40
    assert again.calibration_error == pytest.approx(curve.calibration_error, abs=1e-4)


def test_empty_bins_have_no_rate() -> None:
    curve = BinnedRate.of(np.array([0.05, 0.95, 1.0]), np.array([False, True, False]), bins=10)
    assert curve.count.tolist() == [1] + [0] * 8 + [2]
    assert curve.rate[9] == pytest.approx(0.5)
    assert np.isnan(curve.rate[4])


def test_rank_correlation_sees_order_and_nothing_else() -> None:
    values = np.array([0.1, 0.2, 0.7, 0.9])
    assert rank_correlation(values, np.exp(values)) == pytest.approx(1.0)
    assert rank_correlation(values, -values) == pytest.approx(-1.0)
    assert rank_correlation(values, np.ones(4)) is None
    assert rank_correlation(values[:2], values[:2]) is None
