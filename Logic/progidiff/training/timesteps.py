"""Which noise levels a training batch sees."""

from __future__ import annotations

import torch
from torch import Tensor


def random_timesteps(batch: int, count: int, device: torch.device) -> Tensor:
    """Mostly late ones: four in ten at the very end, where sampling starts and the image must decide alone.

    The others are drawn with a density that grows with the noise: at little noise the noisy mask itself
    gives the answer away, and nothing is learnt from the image.

    Returns:
        (batch,) int64 in [0, count).
    """
    grown = (torch.rand(batch, device=device).sqrt() * count).long().clamp(max=count - 1)
    last = torch.rand(batch, device=device) < 0.4
    return torch.where(last, torch.full_like(grown, count - 1), grown)
