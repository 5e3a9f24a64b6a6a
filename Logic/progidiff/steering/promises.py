"""What a steered proposal must keep to, voxel by voxel, on the volume's own grid."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from progidiff.errors import UsageError
from progidiff.proposals import Proposal, Region
from progidiff.proposals.regions import bounding_region, mask_on, recrop, union_region
from progidiff.steering.voxels import NOTHING, Voxels
from progidiff.volumes.volume import Grid


@dataclass(frozen=True)
class Promises:
    """The marks of a user.

    Attributes:
        inside: voxels that belong to the organ.
        outside: voxels that do not.
        fixed: finished voxels, in which the parent's mask does not change.
        region: the only voxels that may change; None for all of them. Elsewhere the parent's mask stays,
            or nothing if there is no parent.
        parent: the mask to start from, or None.
    """

    inside: Voxels = NOTHING
    outside: Voxels = NOTHING
    fixed: Voxels = NOTHING
    region: Voxels | None = None
    parent: Proposal | None = None

    def require_some(self) -> None:
        """Raises UsageError if nothing is promised."""
        if not str(self):
            raise UsageError(
                "There are no constraints.", "Mark what is inside or outside, fix a part, or choose a region."
            )

    def check(self, grid: Grid) -> None:
        """Raises UsageError for marks beyond `grid` and for marks that contradict each other."""
        for voxels, name in (
            (self.inside, "mark inside"),
            (self.outside, "mark outside"),
            (self.fixed, "fixed region"),
            (self.region or NOTHING, "region"),
        ):
            voxels.check_within(grid, name)
        if self.fixed.count and self.parent is None:
            raise UsageError(
                "A region was fixed, but there is no mask to keep in it.", "Choose the mask that is finished."
            )
        both = int(np.count_nonzero(self.inside.on(self.outside.region) & self.outside.inside))
        self._refuse(both, "marked both inside and outside", "Remove one of the marks.")
        kept_out = self.frozen(self.inside.region) & ~self._content(self.inside.region) & self.inside.inside
        self._refuse(
            int(np.count_nonzero(kept_out)),
            "marked inside where nothing may change",
            "Remove the mark, or enlarge the region to work in.",
        )
        kept_in = self.frozen(self.outside.region) & self._content(self.outside.region) & self.outside.inside
        self._refuse(
            int(np.count_nonzero(kept_in)),
            "marked outside where the mask may not change",
            "Remove the mark, or enlarge the region to work in.",
        )

    def frozen(self, region: Region) -> NDArray[np.bool_]:
        """The voxels of a box that may not change."""
        fixed = self.fixed.on(region)
        return fixed if self.region is None else fixed | ~self.region.on(region)

    def keep(self, proposal: Proposal) -> Proposal:
        """The proposal with every promise kept: certain (0 or 1) wherever something was promised.

        Certain, so that the consensus of proposals that keep a promise keeps it too, whatever its
        threshold.
        """
        regions = [proposal.region, self.inside.region]
        if self.parent is not None:
            regions.append(self.parent.region)
        region = union_region(regions)
        probability = recrop(proposal.probability_in_region, proposal.region, region).copy()
        frozen = self.frozen(region)
        probability[frozen] = self._content(region)[frozen]
        probability[self.inside.on(region)] = 1.0
        probability[self.outside.on(region)] = 0.0
        inner = bounding_region(probability)
        sides = [slice(o.start + n.start, o.start + n.stop) for o, n in zip(region, inner, strict=True)]
        return replace(
            proposal, region=(sides[0], sides[1], sides[2]), probability_in_region=probability[inner]
        )

    def __str__(self) -> str:
        """For the record, such as "1 voxel inside, 40 voxels fixed"; empty without any promise."""
        counts = [(self.inside.count, "inside"), (self.outside.count, "outside"), (self.fixed.count, "fixed")]
        words = [f"{_voxels(count)} {name}" for count, name in counts if count]
        if self.region is not None:
            words.append("only within " + " × ".join(f"{s.start}:{s.stop}" for s in self.region.region))
        return ", ".join(words)

    def _content(self, region: Region) -> NDArray[np.bool_]:
        """The parent's mask on a box, nothing without a parent."""
        if self.parent is None:
            return NOTHING.on(region)
        return mask_on(self.parent, region)

    @staticmethod
    def _refuse(count: int, fault: str, remedy: str) -> None:
        if count:
            raise UsageError(f"{_voxels(count)} {'is' if count == 1 else 'are'} {fault}.", remedy)


def _voxels(count: int) -> str:
    return "1 voxel" if count == 1 else f"{count} voxels"
