"""A ControlNet that is steered by image features instead of a control picture."""

from __future__ import annotations

# ModelMixin must be a name of this module: that is how DiffusionPipeline.from_pretrained recognises a model.
from diffusers import ControlNetModel, ModelMixin, UNet2DConditionModel  # noqa: F401
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn


class MaskControlNet(ControlNetModel):
    """diffusers' ControlNet whose conditioning embedding takes the image encoder's features.

    The original expects a picture of eight times the latent size and shrinks it by convolutions.
    Here the image encoder has done that work: its features arrive at latent resolution and are only
    projected. The projection ends at zero, so that training starts from the frozen generator.

    Args:
        feature_channels: channels of `ImageEncoder.condition`.
        (others): as in :class:`diffusers.ControlNetModel`.
    """

    @register_to_config
    def __init__(
        self,
        feature_channels: int = 160,
        in_channels: int = 4,
        down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D", "DownBlock2D"),
        block_out_channels: tuple[int, ...] = (128, 192),
        layers_per_block: int = 1,
        norm_num_groups: int = 32,
        cross_attention_dim: int = 128,
        attention_head_dim: int | tuple[int, ...] = 8,
        transformer_layers_per_block: int = 1,
        act_fn: str = "silu",
        flip_sin_to_cos: bool = True,
        freq_shift: int = 0,
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            down_block_types=down_block_types,
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            norm_num_groups=norm_num_groups,
            cross_attention_dim=cross_attention_dim,
            attention_head_dim=attention_head_dim,
            transformer_layers_per_block=transformer_layers_per_block,
            act_fn=act_fn,
            flip_sin_to_cos=flip_sin_to_cos,
            freq_shift=freq_shift,
            conditioning_embedding_out_channels=(8, 8),
        )
        last = nn.Conv2d(block_out_channels[0], block_out_channels[0], 1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.controlnet_cond_embedding = nn.Sequential(
            nn.Conv2d(feature_channels, block_out_channels[0], 1), nn.SiLU(), last
        )

    @classmethod
    def from_generator(cls, unet: UNet2DConditionModel, feature_channels: int) -> MaskControlNet:
        """A ControlNet for `unet`, starting as a copy of its encoder half."""
        names = (
            "in_channels", "down_block_types", "block_out_channels", "layers_per_block", "norm_num_groups",
            "cross_attention_dim", "attention_head_dim", "transformer_layers_per_block", "act_fn",
            "flip_sin_to_cos", "freq_shift",
        )  # fmt: skip
        control = cls(feature_channels=feature_channels, **{n: unet.config[n] for n in names})
        for part in ("conv_in", "time_embedding", "down_blocks", "mid_block"):
            getattr(control, part).load_state_dict(getattr(unet, part).state_dict())
        return control


def steered_output(
    unet: UNet2DConditionModel,
    controlnet: MaskControlNet,
    noisy: Tensor,
    timesteps: Tensor,
    text: Tensor,
    condition: Tensor,
) -> Tensor:
    """The generator's answer under the ControlNet's steering.

    Args:
        noisy: (B, C, h, w) latents.
        timesteps: () or (B,) int64.
        text: (B, tokens, width) embedded prompts.
        condition: (B, condition channels, h, w) from `ImageEncoder.condition`.

    Returns:
        (B, C, h, w) float32: velocity or noise, as the scheduler's prediction type says.
    """
    down, middle = controlnet(noisy, timesteps, text, controlnet_cond=condition, return_dict=False)
    answer = unet(
        noisy, timesteps, text, down_block_additional_residuals=down, mid_block_additional_residual=middle
    )
    return answer.sample.float()
