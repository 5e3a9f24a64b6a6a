"""Masks that the model did not draw: edited ones, another tool's, a colleague's."""

from __future__ import annotations

from numpy.typing import NDArray

from progidiff.errors import UsageError
from progidiff.prompts.target import Target
from progidiff.proposals import Proposal, Provenance
from progidiff.steering.voxels import Voxels
from progidiff.volumes.volume import Grid


def proposal_from_mask(mask: NDArray, target: Target, grid: Grid, name: str = "segment") -> Proposal:
    """Any mask as a proposal, to be varied or constrained.

    Args:
        mask: (I, J, K) on `grid`; what is not zero belongs to it.
        target: the organ it shows.
        grid: the volume's grid.
        name: what its descendants will call their parent.

    Raises:
        UsageError: another shape than the grid's.
    """
    if mask.shape != tuple(grid.shape):
        sizes = ["×".join(str(n) for n in shape) for shape in (mask.shape, grid.shape)]
        raise UsageError(
            f"The mask has {sizes[0]} voxels, the volume {sizes[1]}.",
            "Use a mask that was drawn on this volume.",
        )
    return proposal_from_voxels(Voxels.of_mask(mask), target, grid, name)


def proposal_from_voxels(voxels: Voxels, target: Target, grid: Grid, name: str) -> Proposal:
    """As `proposal_from_mask`, from a set of voxels.

    Raises:
        UsageError: voxels beyond the grid.
    """
    voxels.check_within(grid, "mask")
    origin = Provenance("", "", "", 0, 0, "", method="given")
    return Proposal(name, target, grid, voxels.region, voxels.inside.astype("float32"), origin)
