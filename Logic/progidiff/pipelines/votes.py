"""Every scale of a U-Net votes on what lies where: logits summed from the coarsest scale to the finest.

A head on the finest features alone teaches the coarse ones only through all that lies between. With a vote of
its own each scale learns at once what it can see, and the finer ones correct it, as the losses at several
scales of deeply supervised nets (Lee et al., AISTATS 2015) and the lateral sums of feature pyramids (Lin et
al., CVPR 2017) do.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LEAST_SHARE = 1e-4  # of a class that was never seen


class ScaleVotes(nn.Module):
    """A linear head for each scale; all begin at zero, so that a network that gets them answers as before.

    Args:
        widths: features at each scale, the coarsest first.
        classes: number of classes.
        dimensions: 2 or 3.
    """

    def __init__(self, widths: Sequence[int], classes: int, dimensions: int) -> None:
        super().__init__()
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
        self.mode = {2: "bilinear", 3: "trilinear"}[dimensions]
        self.heads = nn.ModuleList(convolution(width, classes, 1) for width in widths)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, scales: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """The sum of all votes.

        Args:
            scales: features (B, width, *space) of each scale, the coarsest first.
            size: where the sum is wanted, at least as fine as the finest scale.

        Returns:
            (B, classes, *size) logits.
        """
        votes = self.heads[0](scales[0])
        for head, features in zip(self.heads[1:], scales[1:], strict=True):
            votes = head(features) + self._enlarged(votes, features.shape[2:])
        return self._enlarged(votes, size)

    def _enlarged(self, votes: Tensor, size: Sequence[int]) -> Tensor:
        return F.interpolate(votes, size=tuple(size), mode=self.mode, align_corners=False)


@torch.no_grad()
def expect(head: nn.Conv2d | nn.Conv3d, shares: Tensor) -> None:
    """Let an untrained head answer with how often each class occurs, which it would have to learn first.

    Args:
        head: gives logits of all classes; where a block of voxels is folded into its channels, a class's own
            lie next to each other.
        shares: (classes,) share of voxels, sums to 1.
    """
    assert head.bias is not None
    prior = shares.clamp(min=_LEAST_SHARE).log()
    head.bias.copy_(prior.repeat_interleave(head.out_channels // len(shares)))
