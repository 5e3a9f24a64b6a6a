"""One suggested organ, and all the suggestions for one organ."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from progidiff.prompts.target import Target
from progidiff.volumes.volume import Grid

Region = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Provenance:
    """Where a mask came from; written beside every result.

    Attributes:
        parent: name of the mask it was made from, or names joined by " + ".
        method: "sampled", "consensus", "merged:<how>", "varied", "constrained", or "given" for a mask that
            the model did not draw.
        strength: of a varied or constrained one, how far it may be from its parent, 0 … 1.
        constraints: what it had to keep to, in words.
    """

    prompt: str
    model: str
    model_hash: str
    seed: int
    steps: int
    device: str
    adapter: str = ""
    parent: str = ""
    method: str = "sampled"
    strength: float | None = None
    constraints: str = ""


@dataclass(frozen=True)
class Proposal:
    """A whole-organ suggestion on the grid of the volume it was asked for.

    The probability is kept only in the box where it is not zero, so that five proposals of a large
    CT stay small.

    Attributes:
        name: what the list shows, such as "liver 1".
        target: the organ it shows.
        grid: shape and affine of the volume.
        region: box of the grid that `probability_in_region` covers.
        probability_in_region: float32 in [0, 1], shape of `region`.
        threshold: probability above which a voxel belongs to the mask.
        score: in [0, 1], higher is better: the Dice its mask can expect, see `proposals.ranking`.
        provenance: how it was made.
    """

    name: str
    target: Target
    grid: Grid
    region: Region
    probability_in_region: NDArray[np.float32]
    provenance: Provenance
    threshold: float = 0.5
    score: float = 0.0

    @property
    def mask_in_region(self) -> NDArray[np.bool_]:
        return self.probability_in_region > self.threshold

    @property
    def probability(self) -> NDArray[np.float32]:
        """(I, J, K) float32 on the whole grid, zero outside the region."""
        full = np.zeros(self.grid.shape, np.float32)
        full[self.region] = self.probability_in_region
        return full

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(I, J, K) bool on the whole grid."""
        full = np.zeros(self.grid.shape, bool)
        full[self.region] = self.mask_in_region
        return full

    @property
    def volume_ml(self) -> float:
        return float(self.mask_in_region.sum()) * self.grid.voxel_ml

    @property
    def is_empty(self) -> bool:
        return not bool(self.mask_in_region.any())


@dataclass
class ProposalSet:
    """All proposals for one organ and what they agree on.

    Attributes:
        target: the organ.
        grid: grid of the volume.
        proposals: best score first.
        consensus: mean of the proposals' probabilities with the threshold of highest expected Dice.
        agreement_in_region: float32 in [0, 1] over `consensus.region`, 1 where all proposals agree.
        pairwise_dice: (N, N) Dice between the proposals' masks.
        distinct: how many of them really differ.
        found: False when the organ is not in the field of view, `reason` says why.
    """

    target: Target
    grid: Grid
    proposals: list[Proposal] = field(default_factory=list)
    consensus: Proposal | None = None
    agreement_in_region: NDArray[np.float32] | None = None
    pairwise_dice: NDArray[np.float64] | None = None
    distinct: int = 0
    found: bool = True
    reason: str = ""
