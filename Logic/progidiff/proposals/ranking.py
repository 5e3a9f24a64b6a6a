"""Orders proposals by the Dice they can expect and puts together what they say of one organ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from progidiff.errors import UsageError
from progidiff.prompts.target import Target
from progidiff.proposals.consensus import agreement, consensus_of, expected_dice
from progidiff.proposals.distinct import count_distinct, pairwise_dice
from progidiff.proposals.proposal import Proposal, ProposalSet
from progidiff.proposals.regions import mask_on
from progidiff.volumes.volume import Grid


def rank(proposals: Sequence[Proposal], consensus: Proposal) -> list[Proposal]:
    """The proposals with their scores, best first; equal scores keep their order.

    The score is the expected Dice of a proposal's mask against the mean of all proposals, the best
    estimate at hand of where the organ lies: a proposal that goes its own way scores low. It is the
    model's opinion of itself, not a measurement against a truth.
    """
    mean, region = consensus.probability_in_region, consensus.region
    scored = [replace(p, score=expected_dice(mask_on(p, region), mean)) for p in proposals]
    return sorted(scored, key=lambda proposal: -proposal.score)


def summarise(target: Target, grid: Grid, proposals: Sequence[Proposal]) -> ProposalSet:
    """Ranks the proposals for one organ and says what they agree on.

    Names stay as they are, only the order changes. With an empty list, or where nothing is left of
    the organ in the consensus or in any proposal, `found` is False, `reason` says so, and the consensus is
    empty too.

    Raises:
        UsageError: a proposal lies on another grid than `grid`.
    """
    missing = f"No {target.name} was found in the field of view."
    if not proposals:
        return ProposalSet(target, grid, pairwise_dice=np.zeros((0, 0)), found=False, reason=missing)
    for proposal in proposals:
        require_grid(proposal, grid)
    consensus = consensus_of(proposals)
    ranked = rank(proposals, consensus)
    matrix = pairwise_dice(ranked)
    found = not consensus.is_empty and any(not proposal.is_empty for proposal in ranked)
    if not found:  # the mean of empty masks may still pass the low threshold of a consensus
        consensus = replace(consensus, threshold=max(p.threshold for p in (consensus, *ranked)), score=0.0)
    return ProposalSet(
        target=target,
        grid=grid,
        proposals=ranked,
        consensus=consensus,
        agreement_in_region=agreement(ranked, consensus.region),
        pairwise_dice=matrix,
        distinct=count_distinct(matrix),
        found=found,
        reason="" if found else missing,
    )


def require_grid(proposal: Proposal, grid: Grid) -> None:
    """Refuses a proposal that lies on another grid than `grid`.

    Raises:
        UsageError: shape or affine differ.
    """
    same_place = np.allclose(proposal.grid.affine, grid.affine, atol=1e-4)
    if proposal.grid.shape != grid.shape or not same_place:
        raise UsageError(
            f"The proposal “{proposal.name}” belongs to another volume or grid.",
            "Put together only proposals of the same volume.",
        )
