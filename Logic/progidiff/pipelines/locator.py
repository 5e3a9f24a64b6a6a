"""The coarse pass: a small 3D U-Net that finds every organ in the whole volume at once."""

from __future__ import annotations

from itertools import pairwise

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from progidiff.pipelines.votes import ScaleVotes


class OrganLocator(ModelMixin, ConfigMixin):
    """Whole volume at a few millimetres → coarse probability of every organ.

    Fully convolutional: any shape goes in, padding to a multiple of the deepest stride is done inside.

    Args:
        organs: number of organ classes; class 0 of the output is background.
        channels: features at each resolution; the finest is half the input's, which keeps it cheap.
        spacing: edge length in mm of the isotropic voxels it was trained on.
        votes: whether the head hears every scale, see `ScaleVotes`, or the finest alone.
    """

    @register_to_config
    def __init__(
        self,
        organs: int = 13,
        channels: tuple[int, ...] = (32, 64, 96),
        spacing: float = 5.0,
        votes: bool = False,
    ) -> None:
        super().__init__()
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        previous = 1
        for width in channels:
            self.down.append(_Block(previous, width, stride=2))
            previous = width
        for shallow, deep in reversed(list(pairwise(channels))):
            self.up.append(_Block(deep + shallow, shallow))
        self.head = nn.Conv3d(channels[0], (organs + 1) * 8, 1)
        self.scale_votes = ScaleVotes(channels[::-1], organs + 1, dimensions=3) if votes else None

    def forward(self, image: Tensor) -> Tensor:
        """Image (B, 1, D, H, W) in [−1, 1], canonical axes (k, j, i) → logits (B, organs + 1, D, H, W)."""
        size = image.shape[2:]
        stride = 2 ** len(self.down)
        padding = [p for n in reversed(size) for p in (0, -n % stride)]
        if max(size) <= stride:  # a single voxel at the deepest scale could not be normalised
            padding[1] += stride
        features = nn.functional.pad(image, padding, value=-1.0)
        skips = []
        for block in self.down:
            features = block(features)
            skips.append(features)
        scales = [skips.pop()]
        for block in self.up:
            skip = skips.pop()
            features = nn.functional.interpolate(features, scale_factor=2.0, mode="nearest")
            features = block(torch.cat([features, skip], 1))
            scales.append(features)
        logits = _unfold(self.head(features))
        if self.scale_votes is not None:
            logits = logits + self.scale_votes(scales, logits.shape[2:])
        return logits[..., : size[0], : size[1], : size[2]]


def _unfold(features: Tensor) -> Tensor:
    """(B, 8·C, D, H, W) → (B, C, 2D, 2H, 2W): eight channels become a 2×2×2 block of voxels."""
    batch, channels, depth, height, width = features.shape
    blocks = features.view(batch, channels // 8, 2, 2, 2, depth, height, width)
    return blocks.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(
        batch, channels // 8, 2 * depth, 2 * height, 2 * width
    )


class _Block(nn.Module):
    """Two 3×3×3 convolutions with group normalisation and a residual path."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1)
        self.second = nn.Conv3d(outputs, outputs, 3, padding=1)
        self.norm1 = nn.GroupNorm(8, outputs)
        self.norm2 = nn.GroupNorm(8, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.silu(self.norm1(self.first(x)))
        return x + nn.functional.silu(self.norm2(self.second(x)))
