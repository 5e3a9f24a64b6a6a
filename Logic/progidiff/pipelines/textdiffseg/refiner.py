"""The border refiner: puts the decoded mask's border where the scan says it is."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from progidiff.pipelines.textdiffseg.blocks import fold, unfold, zero
from progidiff.pipelines.textdiffseg.text import PromptTokens


class BorderRefiner(ModelMixin, ConfigMixin):
    """Adds a correction to the decoded logits from image features.

    Not in the paper: latents are four times coarser than pixels, and borders cannot be finer than what
    the decoder remembers. It computes at half the resolution with four pixels folded into the channels.
    The last convolution starts at zero: untrained, it changes nothing.

    Args:
        detail_channels: of the features it sees, `VolumeEncoder.refinable`.
        text_dim: width of the text encoder; the words tell the head whose border it mends.
        width: features of the head.
    """

    @register_to_config
    def __init__(self, detail_channels: int = 24, text_dim: int = 128, width: int = 24) -> None:
        super().__init__()
        self.first = nn.Conv3d(detail_channels + 8, width, 3, padding=1)
        self.second = nn.Conv3d(width, width, 3, padding=1)
        self.last = zero(nn.Conv3d(width, 4, 3, padding=1))
        self.text = nn.Linear(text_dim, 2 * width)

    def forward(self, logits: Tensor, detail: Tensor, text: PromptTokens) -> Tensor:
        """Correct mask logits (B, 1, D, H, W) by detail (B, detail_channels, D, H/2, W/2)."""
        logits = logits.to(detail)
        drawn = fold(torch.cat([torch.tanh(logits / 4), logits / 8], 1), (1, 2, 2))
        x = torch.cat([detail, drawn], 1)
        scale, shift = self.text(text.mean.to(x))[..., None, None, None].chunk(2, 1)
        x = F.silu(self.first(x) * (1 + scale) + shift)
        return logits + unfold(self.last(F.silu(self.second(x))), (1, 2, 2))
