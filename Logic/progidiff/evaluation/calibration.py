"""Whether probabilities mean what they say, and whether proposals disagree where they are wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CALIBRATION_BINS = 15
DISAGREEMENT_BINS = 10


@dataclass(frozen=True)
class BinnedRate:
    """How often something is true, by bins of equal width over a value in [0, 1].

    Sums rather than means are kept, so that voxels of several patients pool by addition.

    Attributes:
        count: (bins,) voxels in each bin.
        value_sum: (bins,) sum of the binned value.
        event_sum: (bins,) voxels where the event happened.
    """

    count: NDArray[np.float64]
    value_sum: NDArray[np.float64]
    event_sum: NDArray[np.float64]

    @classmethod
    def of(cls, value: NDArray, event: NDArray[np.bool_], bins: int) -> BinnedRate:
        """Bins `value` in [0, 1] and counts `event` of the same shape; 1.0 belongs to the last bin."""
        flat = np.clip(np.asarray(value, np.float64).ravel(), 0.0, 1.0)
        index = np.minimum((flat * bins).astype(np.int64), bins - 1)
        return cls(
            np.bincount(index, minlength=bins).astype(np.float64),
            np.bincount(index, weights=flat, minlength=bins).astype(np.float64),
            np.bincount(index, weights=event.ravel().astype(np.float64), minlength=bins).astype(np.float64),
        )

    def __add__(self, other: BinnedRate) -> BinnedRate:
        return BinnedRate(
            self.count + other.count, self.value_sum + other.value_sum, self.event_sum + other.event_sum
        )

    @property
    def mean_value(self) -> NDArray[np.float64]:
        """(bins,) mean of the value in each bin; NaN where the bin is empty."""
        return self.value_sum / np.where(self.count > 0, self.count, np.nan)

    @property
    def rate(self) -> NDArray[np.float64]:
        """(bins,) share of voxels with the event in each bin; NaN where the bin is empty."""
        return self.event_sum / np.where(self.count > 0, self.count, np.nan)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: Σ (n_b / n) |mean value − rate| over the bins.

        The binned estimate of Naeini et al., AAAI 2015, for the probability of the foreground.
        """
        total = self.count.sum()
        return float(np.abs(self.value_sum - self.event_sum).sum() / total) if total else 0.0

    def to_json(self) -> dict[str, list[float]]:
        return {
            "count": self.count.tolist(),
            "value_sum": [round(v, 4) for v in self.value_sum.tolist()],
            "event_sum": self.event_sum.tolist(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> BinnedRate:
        return cls(*(np.asarray(data[name], np.float64) for name in ("count", "value_sum", "event_sum")))


def reliability(
    probability: NDArray, reference: NDArray[np.bool_], bins: int = CALIBRATION_BINS
) -> BinnedRate:
    """Share of true organ voxels by predicted probability; its `calibration_error` is the ECE."""
    return BinnedRate.of(probability, reference, bins)


def brier(probability: NDArray, reference: NDArray[np.bool_]) -> float:
    """Mean squared difference between probability and truth (Brier, 1950)."""
    difference = np.asarray(probability, np.float64) - reference
    return float(np.mean(difference * difference))


def error_by_disagreement(
    disagreement: NDArray, wrong: NDArray[np.bool_], bins: int = DISAGREEMENT_BINS
) -> BinnedRate:
    """Share of wrong voxels by how much the proposals disagree there, both in [0, 1]."""
    return BinnedRate.of(disagreement, wrong, bins)


def rank_correlation(a: NDArray, b: NDArray) -> float | None:
    """Spearman's ρ; None where it does not exist: fewer than three values, or one of them constant."""
    from scipy.stats import spearmanr

    a, b = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    if a.size < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(spearmanr(a, b).statistic)
