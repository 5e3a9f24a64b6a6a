"""The conditional 3D denoiser, MONAI's diffusion U-Net. Importing this file imports MONAI (seconds)."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet
from torch import Tensor

from progidiff.pipelines.textdiffseg.text import PromptTokens


class LabelDenoiser(ModelMixin, ConfigMixin):
    """Noisy label latents → clean label latents, given image features fused with the prompt.

    The features enter as further input channels, the prompt's tokens once more by cross-attention
    where resolution is low: text fused at several depths measured better than one fusion (VoxTell).

    Args:
        latent_channels: of the label latents.
        control_channels: of the fused image features and the evidence.
        channels: features at each resolution of the latents.
        text_levels: at which of them tokens are attended to.
        text_dim: width of the text encoder.
        heads_width: channels of one attention head.
        groups: of the group normalisation.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 4,
        control_channels: int = 32,
        channels: tuple[int, ...] = (32, 64, 128),
        text_levels: tuple[bool, ...] = (False, False, True),
        text_dim: int = 128,
        heads_width: int = 32,
        groups: int = 8,
    ) -> None:
        super().__init__()
        self.unet = DiffusionModelUNet(
            spatial_dims=3,
            in_channels=latent_channels + control_channels,
            out_channels=latent_channels,
            num_res_blocks=1,
            channels=channels,
            attention_levels=text_levels,
            norm_num_groups=groups,
            num_head_channels=heads_width,
            with_conditioning=True,
            cross_attention_dim=text_dim,
        )

    def forward(self, noisy: Tensor, timesteps: Tensor, condition: Tensor, text: PromptTokens) -> Tensor:
        """Predict the clean latents.

        Args:
            noisy: (B, latent_channels, d, h, w), multiples of 4.
            timesteps: (B,).
            condition: (B, control_channels, d, h, w).
            text: of B prompts.

        Returns:
            (B, latent_channels, d, h, w).
        """
        return self.unet(torch.cat([noisy, condition.to(noisy)], 1), timesteps, context=text.states.to(noisy))
