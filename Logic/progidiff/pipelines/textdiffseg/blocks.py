"""What the 3D networks are made of: residual blocks, and folding of voxels into channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """Two 3×3×3 convolutions with group normalisation around a skip connection."""

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int, int] = (1, 1, 1)) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, outputs)
        self.norm2 = nn.GroupNorm(8, outputs)
        self.first = nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1)
        self.second = nn.Conv3d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm1(self.first(x)))
        return x + F.silu(self.norm2(self.second(x)))


def enlarge(x: Tensor, like: Tensor) -> Tensor:
    """`x` at the resolution of `like`."""
    return F.interpolate(x, size=like.shape[2:], mode="nearest")


def fold(x: Tensor, factors: tuple[int, int, int]) -> Tensor:
    """(B, C, D, H, W) → (B, C·a·b·c, D/a, H/b, W/c): blocks of a×b×c voxels become channels. No loss."""
    a, b, c = factors
    batch, channels, depth, height, width = x.shape
    blocks = x.reshape(batch, channels, depth // a, a, height // b, b, width // c, c)
    return blocks.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(
        batch, channels * a * b * c, depth // a, height // b, width // c
    )


def unfold(x: Tensor, factors: tuple[int, int, int]) -> Tensor:
    """The inverse of `fold`."""
    a, b, c = factors
    batch, channels, depth, height, width = x.shape
    blocks = x.reshape(batch, channels // (a * b * c), a, b, c, depth, height, width)
    return blocks.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(
        batch, channels // (a * b * c), depth * a, height * b, width * c
    )


def channel(value: Tensor, like: Tensor) -> Tensor:
    """(B,) numbers as one more channel (B, 1, D, H, W) of a volume."""
    return value.to(like).view(-1, 1, 1, 1, 1).expand(-1, 1, *like.shape[2:])


def zero(module: nn.Module) -> nn.Module:
    """Start a layer at zero, so that it changes nothing before it is trained."""
    for parameter in module.parameters():
        torch.nn.init.zeros_(parameter)
    return module


def as_volume(stack: Tensor) -> Tensor:
    """(S, C, H, W) → (1, C, S, H, W): slices become an axis to convolve along."""
    return stack.transpose(0, 1)[None]


def as_stack(volume: Tensor) -> Tensor:
    """The inverse of `as_volume`."""
    return volume[0].transpose(0, 1)
