"""What the coarse pass saw of the whole body helps the fine pass, which sees a window of it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from progidiff.volumes.volume import Grid

_LEAST = 1e-3  # what the locator rules out, it rules out by this much and no more


def add_coarse_prior(
    organs: Tensor, grid: Grid, coarse: NDArray[np.float32], coarse_grid: Grid, weight: float
) -> Tensor:
    """Adds the weighted log probabilities of the locator to the logits of the fine pass.

    A slice with its neighbours may look like stomach or bowel, like pancreas or duodenum; the locator,
    which sees the whole body in three dimensions though coarsely, knows better where which lies.

    Args:
        organs: (S, 1 + organs, H, W) logits on `grid`.
        grid: canonical axial grid of shape (W, H, S).
        coarse: (1 + organs, I, J, K) probabilities on `coarse_grid`, canonical and axial too.
        coarse_grid: beyond it the prior says nothing.
        weight: 0 leaves the logits as they are. On patients kept aside 0.3 measured best of 0, 0.15, 0.3, 0.6
            and 1 (ProGiDiff: pancreas +0.03, stomach +0.02); a fine pass that has learnt little wants more.

    Returns:
        Logits of the same shape.
    """
    to_coarse = np.linalg.inv(coarse_grid.affine) @ grid.affine
    size, coarse_size = np.array(grid.shape), np.array(coarse_grid.shape)
    # From [−1, 1] across the window to [−1, 1] across the coarse volume, outer faces of voxels included.
    scale = np.diag(to_coarse)[:3] * size / coarse_size
    middle = to_coarse[:3, :3] @ ((size - 1) / 2) + to_coarse[:3, 3]
    shift = (2 * middle + 1) / coarse_size - 1
    theta = torch.from_numpy(np.concatenate([np.diag(scale), shift[:, None]], 1)).float()[None]
    volume = torch.from_numpy(np.ascontiguousarray(coarse.transpose(0, 3, 2, 1)))[None]
    theta, volume = theta.to(organs.device), volume.to(organs.device)
    points = F.affine_grid(theta, [1, 1, *size[::-1].tolist()], align_corners=False)
    seen = F.grid_sample(volume, points, align_corners=False)[0]
    prior = weight * seen.clamp(_LEAST, 1).log().transpose(0, 1)
    return (organs.float() + prior).to(organs.dtype)
