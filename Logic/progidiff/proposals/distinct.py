"""Which proposals really differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from progidiff.proposals.proposal import Proposal, ProposalSet
from progidiff.proposals.regions import common_region, is_nowhere, within

# Two masks with a higher Dice than this look the same on a screen: for a liver it is a rim of about
# half a millimetre.
SAME_DICE = 0.98


@dataclass(frozen=True)
class Shown:
    """A proposal that people see, with those that look the same.

    Attributes:
        rank: its index in the list, best first; its colour follows from it.
        proposal: the best one of those that are the same.
        repeats: names of the others, shortened to their numbers where that is clear: "2, 4".
    """

    rank: int
    proposal: Proposal
    repeats: str

    @property
    def name(self) -> str:
        """ "liver 1", or "liver 1 (also 2, 4)"."""
        return f"{self.proposal.name} (also {self.repeats})" if self.repeats else self.proposal.name


def distinct_proposals(group: ProposalSet) -> list[Shown]:
    """The proposals of an organ that differ, best first, each with those that repeat it."""
    proposals = group.proposals
    matrix = np.eye(len(proposals)) if group.pairwise_dice is None else group.pairwise_dice
    leaders = same_as(matrix)
    return [
        Shown(
            rank,
            leader,
            ", ".join(
                _short_name(p.name, leader.name)
                for n, p in enumerate(proposals)
                if leaders[n] == rank and n != rank
            ),
        )
        for rank, leader in enumerate(proposals)
        if leaders[rank] == rank
    ]


def _short_name(name: str, beside: str) -> str:
    """ "liver 4" beside "liver 1" is "4"; a name of another kind stays whole."""
    words, _, number = name.rpartition(" ")
    return number if words and words == beside.rpartition(" ")[0] else name


def dice(a: Proposal, b: Proposal) -> float:
    """Dice between the masks of two proposals on one grid; 1 where both are empty."""
    size = int(np.count_nonzero(a.mask_in_region)) + int(np.count_nonzero(b.mask_in_region))
    if size == 0:
        return 1.0
    shared = common_region(a.region, b.region)
    if is_nowhere(shared):
        return 0.0
    both = a.mask_in_region[within(shared, a.region)] & b.mask_in_region[within(shared, b.region)]
    return 2.0 * int(np.count_nonzero(both)) / size


def pairwise_dice(proposals: Sequence[Proposal]) -> NDArray[np.float64]:
    """(N, N) symmetric matrix of Dice between the proposals' masks, 1 on the diagonal."""
    matrix = np.eye(len(proposals))
    for row, a in enumerate(proposals):
        for column in range(row):
            matrix[row, column] = matrix[column, row] = dice(a, proposals[column])
    return matrix


def same_as(matrix: NDArray[np.float64], threshold: float = SAME_DICE) -> list[int]:
    """For each proposal the first one in the list that it repeats; its own index if it is new.

    Every two proposals that are called new differ from each other, so a chain of small steps does
    not make one proposal of two that look different.

    Args:
        matrix: (N, N) pairwise Dice, best proposal first.
        threshold: Dice from which two proposals count as the same.
    """
    leaders: list[int] = []
    groups: list[int] = []
    for index in range(len(matrix)):
        known = [leader for leader in leaders if matrix[index, leader] >= threshold]
        if not known:
            leaders.append(index)
        groups.append(known[0] if known else index)
    return groups


def count_distinct(matrix: NDArray[np.float64], threshold: float = SAME_DICE) -> int:
    """How many proposals differ from every better one that is not itself a repetition."""
    return len(set(same_as(matrix, threshold)))
