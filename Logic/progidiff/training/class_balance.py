"""How often each organ occurs: where training begins, and how much a voxel counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from progidiff.training.case_store import PackedCase

_LEAST_SHARE = 1e-5
_MOST_CASES = 100  # an estimate is enough: cases lie on disk, and reading all through would take minutes
_EVERY_SLICE = 4
_RARITY = 0.35  # exponent: 0 counts every voxel alike, 1 every class


def class_shares(cases: Sequence[PackedCase], organs: int) -> Tensor:
    """About which share of the voxels each class has in an average case.

    Args:
        cases: packed cases.
        organs: number of organ classes.

    Returns:
        (1 + organs,) float32, sums to 1; class 0 is what belongs to no organ.
    """
    some = [case.label[::_EVERY_SLICE] for case in cases[:: -(-len(cases) // _MOST_CASES)]]
    shares = [np.bincount(label.ravel(), minlength=organs + 1) / label.size for label in some]
    return torch.from_numpy(np.mean(shares, axis=0)).float()


def rarity_weights(shares: Tensor) -> Tensor:
    """Weights of the cross-entropy: the rarer a class, the more each of its voxels counts.

    Without them small organs are answered with background for hundreds of steps.

    Args:
        shares: (classes,) share of voxels.

    Returns:
        (classes,) weights whose mean over voxels is 1.
    """
    weights = shares.clamp(min=_LEAST_SHARE) ** -_RARITY
    return weights / (weights * shares).sum()
