"""At which noise levels diffusion models learn."""

from __future__ import annotations

import torch
from torch import Tensor


def random_timesteps(batch: int, count: int, device: torch.device) -> Tensor:
    """Uniform, but one in four at the very end, where sampling starts and the image must decide alone.

    Args:
        batch: how many.
        count: the scheduler's number of training steps.

    Returns:
        (batch,) int64 in 0 … count − 1.
    """
    timesteps = torch.randint(0, count, (batch,), device=device)
    last = torch.rand(batch, device=device) < 0.25
    return torch.where(last, torch.full_like(timesteps, count - 1), timesteps)
