"""The custom image encoder: what the ControlNet sees of the scan."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from progidiff.pipelines.evidence import chosen_probability, evidence_of
from progidiff.pipelines.votes import ScaleVotes


@dataclass(frozen=True)
class ImageFeatures:
    """Features of a batch of slices, computed once and shared by all proposals and steps.

    Attributes:
        control: (B, control_channels, H/8, W/8), steers the ControlNet.
        detail: (B, detail_channels, H, W), used by the refiner at full resolution.
        organs: (B, 1 + organs, H, W) logits of the auxiliary all-organ head.
    """

    control: Tensor
    detail: Tensor
    organs: Tensor

    def __getitem__(self, index: slice | Tensor) -> ImageFeatures:
        return ImageFeatures(self.control[index], self.detail[index], self.organs[index])


class ImageEncoder(ModelMixin, ConfigMixin):
    """2.5D U-Net: neighbouring slices as channels, five scales of context, three outputs.

    An auxiliary head names all organs of the crop at once. It teaches the features quickly, because
    every slice carries labels of every organ, and serves as the deterministic comparison.

    Args:
        slices: number of neighbouring slices, odd; the middle one is segmented.
        organs: number of organ classes of the auxiliary head.
        channels: features at 1/2, 1/4, 1/8, … of the crop's resolution.
        control_channels: width of the features for the ControlNet.
        detail_channels: width of the full-resolution features for the refiner.
        crop: edge of the square crop in pixels.
        text_width: width of the text embedding that asks for evidence; 0 leaves evidence out.
        votes: whether the auxiliary head hears every scale, see `ScaleVotes`, or the finest alone.
        class_weight: how much a voxel of each class counts while the auxiliary head is taught; without effect
            in use.
    """

    @register_to_config
    def __init__(
        self,
        slices: int = 5,
        organs: int = 13,
        channels: tuple[int, ...] = (32, 64, 128, 192, 256),
        control_channels: int = 160,
        detail_channels: int = 16,
        crop: int = 128,
        text_width: int = 0,
        votes: bool = False,
        class_weight: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d((slices + 1) * 4, channels[0], 3, padding=1)
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        previous = channels[0]
        for level, width in enumerate(channels):
            self.down.append(ResidualBlock(previous, width, stride=1 if level == 0 else 2))
            previous = width
        for shallow, deep in reversed(list(pairwise(channels))):
            self.up.append(ResidualBlock(deep + shallow, shallow))
        self.to_detail = nn.Conv2d(channels[0], detail_channels * 4, 1)
        self.detail = nn.Conv2d(detail_channels + slices, detail_channels, 3, padding=1)
        self.to_organs = nn.Conv2d(detail_channels, organs + 1, 1)
        self.scale_votes = ScaleVotes(channels[::-1], organs + 1, dimensions=2) if votes else None
        self.query = nn.Linear(text_width, organs + 1) if text_width else None
        self.to_control = nn.Conv2d(channels[0] * 16 + channels[1] * 4 + channels[2], control_channels, 1)

    def forward(self, image: Tensor, pixel_mm: Tensor) -> ImageFeatures:
        """Encode a batch of crops.

        Args:
            image: (B, slices, H, W) in [−1, 1], canonical orientation, H and W multiples of 32.
            pixel_mm: (B,) edge of a pixel in mm, so that the network knows how large things are.
        """
        scale = (pixel_mm.to(image) / 1.6).log().view(-1, 1, 1, 1).expand(-1, 1, *image.shape[2:])
        x = self.stem(F.pixel_unshuffle(torch.cat([image, scale], 1), 2))
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        levels = [skips.pop()]
        for block in self.up:
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skips.pop()], 1))
            levels.append(x)
        half, quarter, eighth = levels[-1], levels[-2], levels[-3]
        control = torch.cat([F.pixel_unshuffle(half, 4), F.pixel_unshuffle(quarter, 2), eighth], 1)
        detail = torch.cat([F.pixel_shuffle(self.to_detail(half), 2), image], 1)
        detail = F.silu(self.detail(detail))
        organs = self.to_organs(detail)
        if self.scale_votes is not None:
            organs = organs + self.scale_votes(levels, organs.shape[2:])
        return ImageFeatures(self.to_control(control), detail, organs)

    def evidence(self, features: ImageFeatures, text: Tensor) -> Tensor | None:
        """What the image says about the prompt before any mask is drawn.

        The text chooses among the organs that the auxiliary head sees.

        Args:
            features: of B slices.
            text: (B, text_width) pooled embedding.

        Returns:
            (B, 1, H, W) in (−1, 1), see `evidence_of`; None if the encoder has no query.
        """
        if self.query is None:
            return None
        return evidence_of(chosen_probability(features.organs, self.query(text)))

    def condition(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """What steers the ControlNet: the control features, and the evidence folded to their resolution."""
        evidence = self.evidence(features, text)
        if evidence is None:
            return features.control
        folded = F.pixel_unshuffle(evidence, evidence.shape[-1] // features.control.shape[-1])
        return torch.cat([features.control, folded.to(features.control)], 1)

    def refinable(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """What the refiner sees: the detail features, and the evidence."""
        evidence = self.evidence(features, text)
        if evidence is None:
            return features.detail
        return torch.cat([features.detail, evidence.to(features.detail)], 1)

    @property
    def condition_channels(self) -> int:
        """Channels of `condition`."""
        return self.config.control_channels + (64 if self.query is not None else 0)

    @property
    def refinable_channels(self) -> int:
        """Channels of `refinable`."""
        return self.config.detail_channels + (1 if self.query is not None else 0)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with group normalisation around a skip connection."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, outputs)
        self.norm2 = nn.GroupNorm(8, outputs)
        self.first = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm1(self.first(x)))
        return x + F.silu(self.norm2(self.second(x)))
