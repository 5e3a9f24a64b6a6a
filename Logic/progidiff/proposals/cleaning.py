"""Removes what no organ has: specks far from it and pinholes in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from progidiff.prompts import organ_table
from progidiff.proposals.proposal import Proposal

SPECK_FRACTION = 0.2  # of the largest component's voxels
PIECE_FRACTION = 0.01  # the same for what may come in several pieces
HOLE_MM2 = 50.0  # a hole larger than 8 mm across may be a vessel, a cyst or the renal sinus

_TOUCHING = np.ones((3, 3, 3), bool)  # corners count: thin organs cross thick slices diagonally


def keep_largest_components(mask: NDArray[np.bool_], fraction: float = SPECK_FRACTION) -> NDArray[np.bool_]:
    """`mask` (I, J, K) without the components smaller than `fraction` of its largest one.

    With `fraction` 1 only the largest stays (and those exactly as large).
    """
    labels, count = ndimage.label(mask, structure=_TOUCHING)
    if count < 2:
        return mask.copy()
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return (sizes >= fraction * sizes.max())[labels] & mask


def fill_small_holes(mask: NDArray[np.bool_], axis: int, largest: int) -> NDArray[np.bool_]:
    """`mask` with the holes of at most `largest` voxels filled in each slice across `axis`."""
    filled = mask.copy()
    for index in range(mask.shape[axis]):
        where: list[slice | int] = [slice(None)] * 3
        where[axis] = index
        plane = mask[tuple(where)]
        if plane.any():
            holes, _ = ndimage.label(ndimage.binary_fill_holes(plane) & ~plane)
            sizes = np.bincount(holes.ravel())
            sizes[0] = largest + 1
            filled[tuple(where)] |= (sizes <= largest)[holes]
    return filled


def tidy(proposal: Proposal) -> Proposal:
    """The proposal without specks and pinholes; its probability follows its mask.

    A speck is a component much smaller than the largest one, a fifth of it for organs of one piece. A
    pinhole is a gap of at most `HOLE_MM2` enclosed in a slice (the slices most nearly axial, where
    radiologists look).
    """
    mask = proposal.mask_in_region
    if not mask.any():
        return proposal
    organ = organ_table().by_id(proposal.target.organ)
    axis = proposal.grid.superior_axis
    in_plane = np.delete(proposal.grid.spacing, axis)
    kept = keep_largest_components(mask, PIECE_FRACTION if organ.several_pieces else SPECK_FRACTION)
    clean = fill_small_holes(kept, axis, int(HOLE_MM2 / float(np.prod(in_plane))))
    probability = proposal.probability_in_region.copy()
    probability[mask & ~clean] = 0.0
    # A filled voxel is as sure as half-way from undecided to certain: above the threshold by itself,
    # yet a doubt that stays visible in the mean of the proposals.
    filled = clean & ~mask
    probability[filled] = 0.5 * (1.0 + proposal.threshold)
    return replace(proposal, probability_in_region=probability)
