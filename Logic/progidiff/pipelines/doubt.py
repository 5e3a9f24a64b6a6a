"""Doubt: what the image leaves open, another reader would read in another way.

Where the scan shows an organ clearly it steers a model so strongly that even pure noise is denoised to nearly
the same mask. For masks that differ more, the logits of the organ head get a smooth random field. Where the
head is sure the field changes nothing; where it hesitates, a whole region goes over to the organ or away
from it. The idea is that of stochastic segmentation networks (Monteiro et al., NeurIPS 2020); there the
field is learnt, here its size is the user's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

CORRELATION_MM = 12.0
"""Distance over which readers who differ at a border differ together."""

_REACH = 3  # the filter ends after so many standard deviations
_OTHER_NOISE = 2_000_003  # doubt must not follow the noise that the mask is drawn from

AnyFeatures = TypeVar("AnyFeatures", bound=Any)


def doubted(
    features: AnyFeatures, amount: float, spacing: tuple[float, float, float], seed: int
) -> AnyFeatures:
    """The features as one of many readers would see them.

    Args:
        features: a dataclass with `organs`, logits (S, 1 + organs, H, W).
        amount: standard deviation of the field, in logits; 0 returns the features themselves.
        spacing: (slices, rows, columns) in mm.
        seed: of the field; the same one gives the same field on every device.

    Returns:
        Features of the same kind that differ in `organs` alone.
    """
    if amount == 0:
        return features
    organs = features.organs
    slices, channels, height, width = organs.shape
    generator = torch.Generator().manual_seed(seed + _OTHER_NOISE)
    field = smooth_field(channels, (slices, height, width), spacing, generator)
    shifted = organs + amount * field.transpose(0, 1).to(organs)
    return replace(features, organs=shifted)


def smooth_field(
    channels: int,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    generator: torch.Generator,
    correlation_mm: float = CORRELATION_MM,
) -> Tensor:
    """Smooth Gaussian noise of about unit variance in three dimensions, each channel by itself.

    White noise on a lattice of `correlation_mm`, filtered by a Gaussian of one lattice step whose weights
    have unit L2 norm, then interpolated linearly, which takes some of the variance between the points.

    Args:
        channels: number of fields C.
        shape: (D, H, W) voxels.
        spacing: their size in mm.
        generator: seeded CPU generator.
        correlation_mm: standard deviation of the filter.

    Returns:
        (C, D, H, W) float32.
    """
    points = [int(np.ceil(n * mm / correlation_mm)) + 1 for n, mm in zip(shape, spacing, strict=True)]
    field = torch.randn(channels, 1, *(n + 2 * _REACH for n in points), generator=generator)
    weights = torch.exp(-0.5 * torch.arange(-_REACH, _REACH + 1.0) ** 2)
    weights = weights / weights.norm()
    for axis in range(3):
        kernel = weights.view([-1 if axis == n else 1 for n in range(3)])
        field = F.conv3d(field, kernel[None, None])
    return F.interpolate(field, size=shape, mode="trilinear", align_corners=True)[:, 0]
