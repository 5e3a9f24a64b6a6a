"""Losses shared by the training stages."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def organ_loss(logits: Tensor, label: Tensor, known: Tensor, class_weight: Tensor | None = None) -> Tensor:
    """Cross-entropy plus soft Dice over organs, ignoring organs that were not annotated.

    Where an organ is not annotated in a case, its probability counts as background: the voxels
    labelled background may well belong to it.

    Args:
        logits: (B, 1 + organs, *space).
        label: (B, *space) int64, 0 background.
        known: (B, 1 + organs) bool, annotated classes; class 0 is always known.
        class_weight: (1 + organs,) weights of the cross-entropy.
    """
    shape = (*known.shape, *[1] * (logits.dim() - 2))
    unknown = ~known.view(shape)
    log_probability = logits.float().log_softmax(1)
    background = torch.cat(
        [log_probability[:, :1], log_probability.masked_fill(~unknown, -torch.inf)[:, 1:]], 1
    )
    background = background.logsumexp(1, keepdim=True)
    log_probability = torch.cat([background, log_probability[:, 1:]], 1)
    cross_entropy = F.nll_loss(log_probability, label, weight=class_weight)
    target = F.one_hot(label, logits.shape[1]).movedim(-1, 1).to(log_probability)
    return cross_entropy + batch_dice_loss(log_probability.exp()[:, 1:], target[:, 1:], known[:, 1:])


def batch_dice_loss(probability: Tensor, target: Tensor, known: Tensor, smooth: float = 1.0) -> Tensor:
    """Soft Dice over the whole batch, averaged over organs that occur in it (Milletari et al., 2016).

    Args:
        probability: (B, organs, *space) in [0, 1].
        target: the same shape, 0 or 1.
        known: (B, organs) bool.
    """
    mask = known.view(*known.shape, *[1] * (target.dim() - 2)).to(probability)
    dims = [0, *range(2, target.dim())]
    probability = probability * mask
    overlap = (probability * target).sum(dims)
    size = probability.sum(dims) + target.sum(dims)
    dice = (2 * overlap + smooth) / (size + smooth)
    present = (target.sum(dims) > 0).to(dice)
    return 1 - (dice * present).sum() / present.sum().clamp(min=1)


DRAWN_WEIGHT = 3.0
"""How much a pixel of the organ counts where masks are drawn.

On patients that it learns from a network is sure of nearly every pixel, on others it leaves out whatever it
doubts, and masks come out too small.
"""


def mask_loss(logits: Tensor, target: Tensor, organ_weight: float = 1.0) -> Tensor:
    """Binary cross-entropy plus soft Dice per image for one organ's mask.

    Args:
        logits: (B, 1, H, W).
        target: (B, 1, H, W) in [0, 1].
        organ_weight: how much a pixel of the organ counts in the cross-entropy, against one beside it.
    """
    logits = logits.float()
    weight = torch.full_like(logits, organ_weight)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight)
    probability = logits.sigmoid().flatten(1)
    flat = target.flatten(1)
    smooth = 10.0
    dice = (2 * (probability * flat).sum(1) + smooth) / (probability.sum(1) + flat.sum(1) + smooth)
    return cross_entropy + (1 - dice).mean()
