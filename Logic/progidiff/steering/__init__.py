"""Steering: new proposals near a mask, around marks, or within a region.

`Segmenter.vary` and `Segmenter.constrain` are the ways in. Only `window` and `steer` import torch.
"""

from progidiff.quality import CONSTRAIN_STRENGTH, VARY_STRENGTH
from progidiff.steering.given import proposal_from_mask, proposal_from_voxels
from progidiff.steering.options import SteerOptions
from progidiff.steering.promises import Promises
from progidiff.steering.voxels import NOTHING, Voxels

__all__ = [
    "CONSTRAIN_STRENGTH",
    "NOTHING",
    "VARY_STRENGTH",
    "Promises",
    "SteerOptions",
    "Voxels",
    "proposal_from_mask",
    "proposal_from_voxels",
]
