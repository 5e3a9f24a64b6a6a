"""One proposal made of several: the user's own consensus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from progidiff.errors import UsageError
from progidiff.proposals.consensus import expected_dice, joint_provenance, mean_probability
from progidiff.proposals.proposal import Proposal, Region
from progidiff.proposals.ranking import require_grid
from progidiff.proposals.regions import mask_on, probability_on
from progidiff.volumes.conversion import array_from_image, image_from_array, simpleitk

MergeMethod = Literal["union", "intersection", "majority", "mean", "staple"]
MERGE_METHODS: tuple[str, ...] = get_args(MergeMethod)

_STAPLE_ITERATIONS = 100


def merge(proposals: Sequence[Proposal], how: MergeMethod, threshold: float = 0.5) -> Proposal:
    """A new proposal out of two or more of the same organ and volume; its parents stay as they are.

    Args:
        proposals: their regions and thresholds may differ.
        how: "union" (in any of the masks), "intersection" (in all of them), "majority" (in more than
            half of them), "mean" (mean probability above `threshold`), or "staple" (probability that a
            hidden truth has the voxel, each mask trusted as much as it earns, above `threshold`;
            Warfield, Zou, Wells 2004, as in SimpleITK).
        threshold: in [0, 1), used by "mean" and "staple"; the others go by the proposals' own masks.

    Raises:
        UsageError: fewer than two, different organs or volumes, unknown method, threshold out of range.
    """
    _check(proposals, how, threshold)
    region, mean = mean_probability(proposals)
    if how == "mean":
        probability, cut = mean, threshold
    elif how == "staple":
        probability, cut = _staple([mask_on(p, region) for p in proposals]), threshold
    else:
        probability, cut = _by_votes(proposals, region, _votes_needed(how, len(proposals)))
    first = proposals[0]
    return Proposal(
        name=f"{first.target.name} {how}",
        target=first.target,
        grid=first.grid,
        region=region,
        probability_in_region=probability,
        provenance=joint_provenance(proposals, f"merged:{how}"),
        threshold=cut,
        score=expected_dice(probability > cut, mean),
    )


def _check(proposals: Sequence[Proposal], how: str, threshold: float) -> None:
    if how not in MERGE_METHODS:
        raise UsageError(
            f"There is no way to merge called “{how}”.", f"Use one of {', '.join(MERGE_METHODS)}."
        )
    if len(proposals) < 2:
        raise UsageError(
            f"Merging needs at least two proposals, {len(proposals)} given.", "Choose two or more proposals."
        )
    if not 0.0 <= threshold < 1.0:
        raise UsageError(f"The threshold {threshold} is not between 0 and 1.", "Use for instance 0.5.")
    organs = list(dict.fromkeys(proposal.target.name for proposal in proposals))
    if len(organs) > 1:
        raise UsageError(
            f"The proposals show different organs ({', '.join(organs)}).", "Merge proposals of one organ."
        )
    for proposal in proposals:
        require_grid(proposal, proposals[0].grid)


def _votes_needed(how: str, count: int) -> int:
    return {"union": 1, "majority": count // 2 + 1, "intersection": count}[how]


def _by_votes(proposals: Sequence[Proposal], region: Region, votes: int) -> tuple[NDArray[np.float32], float]:
    """Probability and threshold of the voxels that at least `votes` of the masks have.

    The n-th largest probability exceeds the threshold exactly where n of them do: union, majority
    and intersection are the largest, the middle and the smallest of the probabilities, and stay
    probabilities that can be merged again.
    """
    shared = proposals[0].threshold
    if all(proposal.threshold == shared for proposal in proposals):
        stack = np.stack([probability_on(proposal, region) for proposal in proposals])
    else:
        shared = 0.5
        stack = np.stack([_recentred(proposal, region) for proposal in proposals])
    return np.partition(stack, len(proposals) - votes, axis=0)[len(proposals) - votes], shared


def _recentred(proposal: Proposal, region: Region) -> NDArray[np.float32]:
    """The probability bent so that the same mask is cut at 0.5: proposals of different thresholds meet."""
    probability = probability_on(proposal, region)
    inside = mask_on(proposal, region)
    cut = min(max(proposal.threshold, 1e-6), 1.0 - 1e-6)
    above = 0.5 + 0.5 * (probability - cut) / (1.0 - cut)
    below = 0.5 * probability / cut
    just_above = np.nextafter(np.float32(0.5), np.float32(1.0))  # rounding must not move the mask
    bent = np.where(inside, np.clip(above, just_above, 1.0), np.clip(below, 0.0, 0.5))
    return bent.astype(np.float32)


def _staple(masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.float32]:
    """STAPLE's probability (0 where no mask has a voxel at all)."""
    anywhere = np.logical_or.reduce(masks)
    everywhere = np.logical_and.reduce(masks)
    if np.array_equal(anywhere, everywhere):  # nothing to estimate; the filter would divide zero by zero
        return anywhere.astype(np.float32)
    staple = simpleitk().STAPLEImageFilter()
    staple.SetForegroundValue(1.0)
    staple.SetMaximumIterations(_STAPLE_ITERATIONS)
    estimate = array_from_image(staple.Execute([image_from_array(mask) for mask in masks]))
    return np.clip(np.where(anywhere, estimate, 0.0), 0.0, 1.0).astype(np.float32)
