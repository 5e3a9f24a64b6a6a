"""Builds the parts of a ProGiDiff model, untrained, from a small description."""

from __future__ import annotations

from dataclasses import dataclass

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer


@dataclass(frozen=True)
class GeneratorSize:
    """Sizes of the text-to-mask generator; the defaults are the embedded model's."""

    crop: int = 128
    latent_channels: int = 8
    vae_channels: tuple[int, ...] = (16, 32, 64, 64)
    unet_channels: tuple[int, ...] = (96, 160, 224)
    text_width: int = 128
    text_layers: int = 3
    heads: int = 4
    groups: int = 8

    @property
    def latent_size(self) -> int:
        return self.crop // 2 ** (len(self.vae_channels) - 1)


TINY = GeneratorSize(32, 4, (8, 8, 8, 8), (16, 16, 16), 16, 1, 2, 4)


def build_vae(size: GeneratorSize) -> AutoencoderKL:
    """An autoencoder for masks: one channel in, logits out."""
    levels = len(size.vae_channels)
    return AutoencoderKL(
        in_channels=1,
        out_channels=1,
        latent_channels=size.latent_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=size.vae_channels,
        layers_per_block=1,
        norm_num_groups=size.groups,
        sample_size=size.crop,
        scaling_factor=1.0,
    )


def build_unet(size: GeneratorSize) -> UNet2DConditionModel:
    """The generator's denoiser: text enters by cross-attention at the two finest resolutions."""
    return UNet2DConditionModel(
        sample_size=size.latent_size,
        in_channels=size.latent_channels,
        out_channels=size.latent_channels,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=size.unet_channels,
        layers_per_block=1,
        cross_attention_dim=size.text_width,
        attention_head_dim=size.heads,
        norm_num_groups=size.groups,
    )


def build_text_encoder(size: GeneratorSize, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A small CLIP text transformer over the tokenizer's vocabulary."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.text_width,
            intermediate_size=2 * size.text_width,
            projection_dim=size.text_width,
            num_hidden_layers=size.text_layers,
            num_attention_heads=size.heads,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
