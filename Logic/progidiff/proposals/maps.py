"""Maps of the whole grid that put all organs of a result together.

They are laid out as image files are, the first axis fastest, so that writing does not turn them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from progidiff.prompts.organ_table import Organ, organ_table
from progidiff.proposals.proposal import ProposalSet
from progidiff.volumes.volume import Grid


def consensus_labels(sets: Sequence[ProposalSet], grid: Grid) -> NDArray[np.uint8]:
    """(I, J, K) uint8: the organ table's label of each voxel, 0 where there is no organ.

    Where the consensus masks of two organs overlap, the one with the higher mean probability has
    the voxel. A finding, such as a tumor, has all its voxels in the organ that it lies in: an organ
    includes its findings, so the probabilities of the two do not compete.
    """
    labels = np.zeros(grid.shape, np.uint8, order="F")
    highest = np.zeros(grid.shape, np.float32, order="F")
    # Findings after organs, whatever their order in the prompt.
    for group in sorted(sets, key=lambda group: _owner(group) is not None):
        if group.consensus is None or not group.found:
            continue
        probability, region = group.consensus.probability_in_region, group.consensus.region
        wins = probability > highest[region]
        owner = _owner(group)
        if owner is not None:
            wins |= labels[region] == owner.label
        wins &= group.consensus.mask_in_region
        labels[region][wins] = organ_table().by_id(group.target.organ).label
        highest[region][wins] = probability[wins]
    return labels


def _owner(group: ProposalSet) -> Organ | None:
    """The organ in which a finding lies; None for an organ."""
    within = organ_table().by_id(group.target.organ).within
    return None if within is None else organ_table().by_id(within)


def mean_probability_map(sets: Sequence[ProposalSet], grid: Grid) -> NDArray[np.float32]:
    """(I, J, K) float32: mean of the proposals' probabilities; the highest of several organs."""
    highest = np.zeros(grid.shape, np.float32, order="F")
    for group in sets:
        if group.consensus is not None:
            region = group.consensus.region
            highest[region] = np.maximum(highest[region], group.consensus.probability_in_region)
    return highest


def agreement_map(sets: Sequence[ProposalSet], grid: Grid) -> NDArray[np.float32]:
    """(I, J, K) float32 in [0, 1]: agreement of the proposals (1: all say the same); the lowest of
    several organs."""
    lowest = np.ones(grid.shape, np.float32, order="F")
    for group in sets:
        if group.consensus is not None and group.agreement_in_region is not None:
            region = group.consensus.region
            lowest[region] = np.minimum(lowest[region], group.agreement_in_region)
    return lowest
