"""How often each organ occurs: where training begins, and how much a voxel counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from progidiff.pipelines.votes import expect
from progidiff.training.case_store import PackedCase

if TYPE_CHECKING:
    from progidiff.pipelines.progidiff.image_encoder import ImageEncoder
    from progidiff.pipelines.textdiffseg.image_encoder import VolumeEncoder

_LEAST_SHARE = 1e-5
_MOST_CASES = 100  # an estimate is enough: cases lie on disk, and reading all through would take minutes
_EVERY_SLICE = 4
_RARITY = 0.35  # exponent: 0 counts every voxel alike, 1 every class


def class_shares(cases: Sequence[PackedCase], organs: int) -> Tensor:
    """About which share of the voxels each class has in an average case.

    An organ's share is its mean over the cases in which it is annotated: elsewhere it is unknown, not absent.

    Args:
        cases: packed cases.
        organs: number of organ classes.

    Returns:
        (1 + organs,) float32, sums to 1; class 0 is what belongs to no organ.
    """
    total, annotated = np.zeros(organs + 1), np.zeros(organs + 1)
    for case in cases[:: -(-len(cases) // _MOST_CASES)]:
        label, known = case.label[::_EVERY_SLICE], list(case.organs)
        total[known] += np.bincount(label.ravel(), minlength=organs + 1)[known] / label.size
        annotated[known] += 1
    shares = total / annotated.clip(min=1)
    shares[0] = max(1 - shares.sum(), _LEAST_SHARE)
    return torch.from_numpy(shares / shares.sum()).float()


def rarity_weights(shares: Tensor) -> Tensor:
    """Weights of the cross-entropy: the rarer a class, the more each of its voxels counts.

    Without them small organs are answered with background for hundreds of steps.

    Args:
        shares: (classes,) share of voxels.

    Returns:
        (classes,) weights; only their ratios count, since the cross-entropy is a weighted mean.
    """
    return shares.clamp(min=_LEAST_SHARE) ** -_RARITY


def begin_balanced(encoder: ImageEncoder | VolumeEncoder, cases: Sequence[PackedCase]) -> None:
    """Let an untrained image encoder answer with how often each class occurs, and note what voxels count.

    The weights are noted in its configuration because whatever teaches it later, also on a user's few cases,
    must count alike: otherwise it would first of all unlearn them.

    Args:
        encoder: untrained, on the CPU; its organ head's biases and its configuration are changed in place.
        cases: packed cases that it is going to learn from.
    """
    shares = class_shares(cases, encoder.config.organs)
    expect(encoder.to_organs, shares)
    encoder.register_to_config(class_weight=tuple(rarity_weights(shares).tolist()))


def taught_weight(encoder: ImageEncoder | VolumeEncoder) -> Tensor | None:
    """The (1 + organs,) weights that an image encoder is taught with; None where none are noted."""
    noted = encoder.config.class_weight
    return None if noted is None else torch.tensor(noted, device=encoder.device)
