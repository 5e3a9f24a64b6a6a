"""What several proposals agree on: their mean, cut where the Dice to expect is highest."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from progidiff.proposals.proposal import Proposal, Provenance, Region
from progidiff.proposals.regions import probability_on, union_region

# The best threshold is half the best expected Dice (see `best_threshold`), so it is never above 0.5.
# From below it is held at 0.1: there the model is nearly sure that the voxel is something else, and
# a consensus drawn lower would follow the calibration of the far tails and nothing else.
LOWEST_THRESHOLD = 0.1
HIGHEST_THRESHOLD = 0.5


def mean_probability(proposals: Sequence[Proposal]) -> tuple[Region, NDArray[np.float32]]:
    """Mean of the proposals' probabilities on the smallest box that holds all their regions.

    A proposal is zero outside its own region and pulls the mean down there.
    """
    region = union_region([proposal.region for proposal in proposals])
    total = sum((probability_on(p, region) for p in proposals[1:]), probability_on(proposals[0], region))
    return region, (total / np.float32(len(proposals))).astype(np.float32, copy=False)


def expected_dice(mask: NDArray[np.bool_], probability: NDArray[np.floating]) -> float:
    """The Dice that `mask` can expect against a truth drawn from `probability` (same shape).

    E[Dice] ≈ 2 Σ_{mask} p / (|mask| + Σ p): numerator and denominator of Dice replaced by their
    expectations, which is close where the organ has many voxels. Zero for an empty mask.
    """
    inside = float(probability[mask].sum(dtype=np.float64))
    size = float(np.count_nonzero(mask)) + float(probability.sum(dtype=np.float64))
    return 2.0 * inside / size if inside > 0 else 0.0


def best_threshold(
    probability: NDArray[np.floating], lowest: float = LOWEST_THRESHOLD, highest: float = HIGHEST_THRESHOLD
) -> float:
    """The threshold t in [lowest, highest] whose mask {p > t} has the highest expected Dice.

    A voxel added to a mask of expected Dice D raises it exactly when its p > D / 2: the best mask is
    {p > D*/2} with D* the best Dice there is. D* is found exactly, by trying all masks in order of
    falling p (one sort and one running sum). Where proposals disagree about the place of a small
    organ D* is low and the threshold falls below 0.5, which keeps the organ that a vote would lose.
    Derivation: Lipton, Elkan, Naryanaswamy, "Optimal thresholding of classifiers to maximize F1", 2014.
    """
    total = float(probability.sum(dtype=np.float64))
    # What lies below half the best Dice never belongs to the best mask; what lies below `lowest`
    # may not: neither needs sorting.
    candidates = np.sort(probability[probability > lowest], axis=None)[::-1].astype(np.float64)
    if candidates.size == 0:
        return highest
    dice = 2.0 * np.cumsum(candidates) / (np.arange(1, candidates.size + 1) + total)
    return float(np.clip(dice.max() / 2.0, lowest, highest))


def consensus_of(proposals: Sequence[Proposal]) -> Proposal:
    """The mean of proposals of one organ and grid, cut at the threshold of highest expected Dice.

    Its score is the Dice it can expect itself. `proposals` must not be empty.
    """
    region, mean = mean_probability(proposals)
    threshold = best_threshold(mean)
    first = proposals[0]
    return Proposal(
        name=f"{first.target.name} consensus",
        target=first.target,
        grid=first.grid,
        region=region,
        probability_in_region=mean,
        provenance=joint_provenance(proposals, "consensus"),
        threshold=threshold,
        score=expected_dice(mean > threshold, mean),
    )


def agreement(proposals: Sequence[Proposal], region: Region) -> NDArray[np.float32]:
    """How far the proposals agree on each voxel of `region`: float32 in [0, 1].

    One minus the mean absolute difference between two proposals' probabilities, divided by the
    largest value that N proposals can reach (one half of them at 0, the other at 1). |p - q| is the
    chance that two proposals fall on different sides of a threshold drawn at random, so for plain
    masks this is 1 - k(N-k) / (⌊N/2⌋⌈N/2⌉) with k votes for the organ: 1 where all agree, also on "not
    here", and 0 where the vote is split in the middle. Unlike the entropy of the mean it does not
    call two equally unsure proposals a disagreement.
    """
    crops = [probability_on(proposal, region) for proposal in proposals]
    count = len(crops)
    spread = np.zeros(crops[0].shape, np.float32)
    for a, b in combinations(crops, 2):
        spread += np.abs(a - b)
    largest = max(1, (count // 2) * (count - count // 2))
    return np.clip(1.0 - spread / np.float32(largest), 0.0, 1.0)


def joint_provenance(proposals: Sequence[Proposal], method: str) -> Provenance:
    """Provenance of something made from `proposals`: their names as parents, their origins joined.

    The seed and steps are those of the first; each parent carries its own. A strength is that of all of them.
    """
    origins = [proposal.provenance for proposal in proposals]
    strengths = {o.strength for o in origins}
    return Provenance(
        prompt=_joined([o.prompt for o in origins]),
        model=_joined([o.model for o in origins]),
        model_hash=_joined([o.model_hash for o in origins]),
        seed=origins[0].seed,
        steps=origins[0].steps,
        device=_joined([o.device for o in origins]),
        adapter=_joined([o.adapter for o in origins]),
        parent=" + ".join(proposal.name for proposal in proposals),
        method=method,
        strength=strengths.pop() if len(strengths) == 1 else None,
        constraints=_joined([o.constraints for o in origins]),
    )


def _joined(words: Sequence[str]) -> str:
    return " + ".join(dict.fromkeys(word for word in words if word))
