"""Boxes of a grid: proposals keep their probability only where it is not zero."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from progidiff.proposals.proposal import Proposal, Region

NOWHERE: Region = (slice(0, 0), slice(0, 0), slice(0, 0))


def shape_of(region: Region) -> tuple[int, int, int]:
    """(I, J, K) voxels of the box."""
    i, j, k = (max(0, s.stop - s.start) for s in region)
    return i, j, k


def is_nowhere(region: Region) -> bool:
    """True for a box without voxels."""
    return 0 in shape_of(region)


def bounding_region(array: NDArray, margin: int = 0) -> Region:
    """Smallest box with every non-zero voxel of `array` (I, J, K), widened by `margin` voxels.

    An array of zeros has the box `NOWHERE`.
    """
    sides = []
    for axis in range(3):
        occupied = np.flatnonzero(array.any(axis=tuple(a for a in range(3) if a != axis)))
        if occupied.size == 0:
            return NOWHERE
        first, last = int(occupied[0]), int(occupied[-1])
        sides.append(slice(max(0, first - margin), min(array.shape[axis], last + 1 + margin)))
    return sides[0], sides[1], sides[2]


def union_region(regions: Sequence[Region]) -> Region:
    """Smallest box that holds all `regions`; boxes without voxels do not count."""
    real = [region for region in regions if not is_nowhere(region)]
    if not real:
        return NOWHERE
    sides = [slice(min(r[a].start for r in real), max(r[a].stop for r in real)) for a in range(3)]
    return sides[0], sides[1], sides[2]


def common_region(a: Region, b: Region) -> Region:
    """The box that `a` and `b` share, `NOWHERE` if they do not meet."""
    sides = [slice(max(s.start, t.start), min(s.stop, t.stop)) for s, t in zip(a, b, strict=True)]
    region = (sides[0], sides[1], sides[2])
    return NOWHERE if is_nowhere(region) else region


def within(inner: Region, outer: Region) -> Region:
    """`inner`, counted from the first voxel of `outer`, to index an array that covers `outer`."""
    sides = [slice(s.start - o.start, s.stop - o.start) for s, o in zip(inner, outer, strict=True)]
    return sides[0], sides[1], sides[2]


def recrop(array: NDArray, region: Region, wanted: Region) -> NDArray:
    """`array`, which covers `region`, on the box `wanted`: cut off or padded with zeros.

    Returns a view where the boxes are the same, so the result is not to be written to.
    """
    if region == wanted:
        return array
    result = np.zeros(shape_of(wanted), array.dtype)
    shared = common_region(region, wanted)
    if not is_nowhere(shared):
        result[within(shared, wanted)] = array[within(shared, region)]
    return result


def probability_on(proposal: Proposal, region: Region) -> NDArray[np.float32]:
    """The proposal's probability on another box of its grid (not to be written to)."""
    return recrop(proposal.probability_in_region, proposal.region, region)


def mask_on(proposal: Proposal, region: Region) -> NDArray[np.bool_]:
    """The proposal's mask on another box of its grid (not to be written to)."""
    return recrop(proposal.mask_in_region, proposal.region, region)
