"""The shape-aware label encoder and decoder: masks ↔ a small continuous latent."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from progidiff.pipelines.textdiffseg.blocks import ResidualBlock, fold, unfold
from progidiff.pipelines.textdiffseg.image_encoder import CELL

_VOXELS = CELL[0] * CELL[1] * CELL[2]
_BOXES = ((1, 3, 3), (3, 3, 3), (3, 7, 7), (5, 13, 13))  # slices, then pixels of half resolution
_SHAPE_CHANNELS = 4 + len(_BOXES)


class LabelAutoencoder(ModelMixin, ConfigMixin):
    """Masks of one structure → k channels a latent cell, and back to logits.

    The encoder sees the mask together with its smoothed copies, which tell how far each voxel lies from
    the border: it learns shapes, not voxels. The vocabulary of labels is open, because the mask is
    that of whatever the prompt names.

    Args:
        latent_channels: k.
        channels: features at strides (1, 2, 2) and (1, 4, 4).
        learned: False is the paper's ablation: the latent is the folded mask itself, 16 voxels as 16
            channels, and no encoding is learned.
    """

    @register_to_config
    def __init__(
        self, latent_channels: int = 4, channels: tuple[int, int] = (16, 48), learned: bool = True
    ) -> None:
        super().__init__()
        if not learned:
            self.certainty = nn.Parameter(torch.tensor(4.0))  # logit of a voxel that is wholly inside
            return
        fine, coarse = channels
        self.encoder = nn.Sequential(
            nn.Conv3d(_SHAPE_CHANNELS, fine, 3, padding=1),
            ResidualBlock(fine, coarse, (1, 2, 2)),
            nn.Conv3d(coarse, latent_channels, 1),
        )
        self.decoder_in = nn.Conv3d(latent_channels, coarse, 3, padding=1)
        self.decoder_coarse = ResidualBlock(coarse, coarse)
        self.to_fine = nn.Conv3d(coarse, 4 * fine, 1)
        self.decoder_fine = ResidualBlock(fine, fine)
        self.decoder_out = nn.Conv3d(fine, 4, 1)

    @property
    def latent_channels(self) -> int:
        """Channels of the latents."""
        return self.config.latent_channels if self.config.learned else _VOXELS

    def encode(self, mask: Tensor) -> Tensor:
        """Masks (B, 1, D, H, W) in [0, 1] → latents (B, k, D, H/4, W/4) of about unit size."""
        if not self.config.learned:
            return fold(mask * 2 - 1, CELL)
        return self.encoder(shape_channels(mask))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, k, d, h, w) → logits (B, 1, d, 4h, 4w)."""
        if not self.config.learned:
            return self.certainty * unfold(latents, CELL)
        x = self.decoder_coarse(self.decoder_in(latents))
        x = self.decoder_fine(unfold(self.to_fine(x), (1, 2, 2)))
        return unfold(self.decoder_out(x), (1, 2, 2))


def shape_channels(mask: Tensor) -> Tensor:
    """Mask (B, 1, D, H, W) → (B, 8, D, H/2, W/2) in [−1, 1]: its pixels and smoothed copies of it.

    The mean over a box around a voxel grows with its depth inside the structure: a distance to the
    border, cut off at half the box, at a fraction of the cost of a distance transform.
    """
    half = F.avg_pool3d(mask, (1, 2, 2))
    copies = [fold(mask, (1, 2, 2)), *(_box_mean(half, box) for box in _BOXES)]
    return torch.cat(copies, 1) * 2 - 1


def _box_mean(x: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Mean over a box, axis by axis; beyond the edges the volume goes on as nothing."""
    around = [n // 2 for n in reversed(size) for _ in range(2)]
    x = F.pad(x, around)  # not by the pooling itself, which refuses stacks thinner than the box
    for axis, n in enumerate(size):
        kernel = [n if axis == other else 1 for other in range(3)]
        x = F.avg_pool3d(x, kernel, stride=1)
    return x
