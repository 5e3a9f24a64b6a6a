"""Noise that agrees between neighbouring slices: a proposal is one organ, not a stack of pictures."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CORRELATION_MM = 12.0


def coherent_noise(
    slices: int,
    shape: tuple[int, int, int],
    slice_mm: float,
    generator: torch.Generator,
    correlation_mm: float = CORRELATION_MM,
) -> Tensor:
    """Unit Gaussian noise for a whole volume, correlated along the slice axis.

    White noise is filtered along the slices by a Gaussian whose weights have unit L2 norm, so every
    value stays N(0, 1) while slices `d` mm apart correlate by exp(−d² / (4σ²)) with σ = `correlation_mm`.
    Drawn on the CPU, so that a seed means the same noise on every device.

    Args:
        slices: number of slices S.
        shape: (C, h, w) of one slice's latents.
        slice_mm: distance of slices.
        generator: seeded CPU generator.
        correlation_mm: σ of the filter; 0 gives independent slices.

    Returns:
        (S, C, h, w) float32.
    """
    sigma = correlation_mm / slice_mm
    radius = int(3 * sigma)
    white = torch.randn(slices + 2 * radius, *shape, generator=generator)
    if radius == 0:
        return white
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    weights = weights / weights.norm()
    columns = white.flatten(1).T[:, None]  # every latent element is a signal along the slices
    return F.conv1d(columns, weights[None, None])[:, 0].T.reshape(slices, *shape)
