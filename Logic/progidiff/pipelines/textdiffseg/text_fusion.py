"""3D cross-modal attention: every place of the scan asks the words of the prompt what matters there."""

from __future__ import annotations

import math

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from progidiff.pipelines.textdiffseg.text import PromptTokens


class TextFusion(ModelMixin, ConfigMixin):
    """z_f = z_i + reshape(softmax(z_i' W_q (z_t W_k)ᵀ / √d_k) z_t W_v), TextDiffSeg (arXiv 2504.11825).

    z_t are the tokens of the prompt, not one vector for all of it: with a single key the softmax is
    constant and every place of the scan would be told the same.

    Args:
        channels: of the image features.
        text_dim: width of the text encoder.
        key_dim: d_k.
        enabled: False is the paper's ablation: no word of the prompt reaches any part of the model.
    """

    @register_to_config
    def __init__(
        self, channels: int = 32, text_dim: int = 128, key_dim: int = 64, enabled: bool = True
    ) -> None:
        super().__init__()
        self.query = nn.Linear(channels, key_dim, bias=False)
        self.key = nn.Linear(text_dim, key_dim, bias=False)
        self.value = nn.Linear(text_dim, channels, bias=False)

    def forward(self, image: Tensor, text: PromptTokens) -> Tensor:
        """Fuse.

        Args:
            image: (B, channels, d, h, w).
            text: of B prompts.

        Returns:
            (B, channels, d, h, w).
        """
        attended = self.attention(image, text) @ self.value(text.states)
        return image + attended.transpose(1, 2).reshape(image.shape)

    def attention(self, image: Tensor, text: PromptTokens) -> Tensor:
        """How much each place attends to each token: (B, d·h·w, tokens), rows sum to 1."""
        query = self.query(image.flatten(2).transpose(1, 2))
        scores = query @ self.key(text.states).transpose(1, 2) / math.sqrt(self.config.key_dim)
        return scores.float().masked_fill(~text.mask[:, None], -torch.inf).softmax(-1).to(query.dtype)
