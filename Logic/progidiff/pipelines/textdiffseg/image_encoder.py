"""The 3D image encoder: what the denoiser and the border refiner see of the scan."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from progidiff.pipelines.evidence import chosen_probability, evidence_of
from progidiff.pipelines.textdiffseg.blocks import ResidualBlock, channel, enlarge, fold, unfold
from progidiff.pipelines.textdiffseg.text import PromptTokens
from progidiff.pipelines.votes import ScaleVotes

CELL = (1, 4, 4)
"""Voxels (k, j, i) that one latent cell stands for: slices are further apart than pixels."""

_SELDOM = -3.0  # logit of what is rare, to begin with
_STEPS = ((1, 1, 1), (1, 2, 2), (2, 2, 2))  # strides from level to level; the last one repeats


@dataclass(frozen=True)
class VolumeFeatures:
    """Features of a stack of slices, computed once and shared by all prompts, proposals and steps.

    The encoder gives them as volumes (B, C, D, H, W), the pipeline as stacks (S, C, H, W).

    Attributes:
        control: z_i in the paper, in-plane resolution H/4, W/4; steers the denoiser.
        detail: in-plane resolution H/2, W/2, four pixels folded into the channels; used by the refiner.
        organs: 1 + organs logits of the auxiliary all-organ head, at full resolution.
        lesion: logits that a voxel of an organ belongs to a lesion in it, at full resolution; they mean
            nothing outside organs that can have one.
    """

    control: Tensor
    detail: Tensor
    organs: Tensor
    lesion: Tensor


class VolumeEncoder(ModelMixin, ConfigMixin):
    """3D U-Net at half the in-plane resolution, with four outputs.

    Args:
        organs: number of organ classes of the auxiliary head, which teaches the features quickly,
            because every volume carries labels of all organs.
        channels: features at strides (1, 2, 2), (1, 4, 4), (2, 8, 8), (4, 16, 16), …
        control_channels: width of the features for the denoiser.
        detail_channels: width of the features for the refiner.
        crop: edge in pixels of the square window in which an organ is drawn.
        window: slices seen at once; longer stacks are computed in overlapping windows.
        features: False is the paper's ablation: the denoiser sees the folded grey values instead of
            learned features, the refiner nothing. The auxiliary head stays, but nobody asks it.
        text_width: width of the text encoder, whose words ask for evidence; 0 leaves evidence out.
        votes: whether the auxiliary head hears every scale, see `ScaleVotes`, or the finest alone.
        class_weight: how much a voxel of each class counts while the auxiliary head is taught; without effect
            in use.
    """

    @register_to_config
    def __init__(
        self,
        organs: int = 13,
        channels: tuple[int, ...] = (16, 48, 96, 128),
        control_channels: int = 32,
        detail_channels: int = 24,
        crop: int = 80,
        window: int = 24,
        features: bool = True,
        text_width: int = 0,
        votes: bool = False,
        class_weight: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv3d(8, channels[0], 3, padding=1)
        self.down = nn.ModuleList()
        self.narrow = nn.ModuleList()
        self.up = nn.ModuleList()
        previous = channels[0]
        for level, width in enumerate(channels):
            self.down.append(ResidualBlock(previous, width, _STEPS[min(level, 2)]))
            previous = width
        for shallow, deep in reversed(list(pairwise(channels))):
            self.narrow.append(nn.Conv3d(deep, shallow, 1))
            self.up.append(ResidualBlock(shallow, shallow))
        self.to_detail = nn.Conv3d(channels[0] + 4, detail_channels, 1)
        self.to_organs = nn.Conv3d(detail_channels, 4 * (organs + 1), 1)
        self.scale_votes = ScaleVotes(channels[::-1], organs + 1, dimensions=3) if votes else None
        # What tells a lesion from its organ is finer than what tells organs apart: convolutions of its own.
        self.to_lesion = nn.Sequential(
            nn.Conv3d(channels[0] + 12, detail_channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv3d(detail_channels, detail_channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv3d(detail_channels, 4, 1),
        )
        asks = bool(text_width) and features
        self.query = nn.Linear(text_width, organs + 1) if asks else None
        self.gate = nn.Linear(text_width, 1) if asks else None  # does the prompt mean a lesion in the organ?
        if self.gate is not None:
            nn.init.zeros_(self.gate.weight)
            nn.init.constant_(self.gate.bias, _SELDOM)
        self.to_control = nn.Conv3d(channels[0] * 4 + channels[1] if features else 16, control_channels, 1)

    def forward(self, image: Tensor, pixel_mm: Tensor) -> VolumeFeatures:
        """Encode a batch of windows.

        Args:
            image: (B, 1, D, H, W) in [−1, 1], canonical axes (k, j, i); D a multiple of 4, H and W of 16.
            pixel_mm: (B,) in-plane edge of a voxel, so that the network knows how large things are.
        """
        scale = channel((pixel_mm / 1.6).log(), image)
        x = self.stem(fold(torch.cat([image, scale], 1), (1, 2, 2)))
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        levels = [skips.pop()]
        for narrow, block in zip(self.narrow, self.up, strict=True):
            skip = skips.pop()
            x = block(skip + enlarge(narrow(x), skip))
            levels.append(x)
        fine, coarse = levels[-1], levels[-2]
        seen = torch.cat([fine, fold(image, (1, 2, 2))], 1)
        detail = F.silu(self.to_detail(seen))
        organs = unfold(self.to_organs(detail), (1, 2, 2))
        if self.scale_votes is not None:
            organs = organs + self.scale_votes(levels, organs.shape[2:])
        odd = fold(oddness(image, organs.detach()), (1, 2, 2)).to(seen)
        lesion = unfold(self.to_lesion(torch.cat([seen, odd], 1)), (1, 2, 2))
        if not self.config.features:
            return VolumeFeatures(
                self.to_control(fold(image, CELL)), torch.zeros_like(detail), organs, lesion
            )
        control = self.to_control(torch.cat([fold(fine, (1, 2, 2)), coarse], 1))
        return VolumeFeatures(control, detail, organs, lesion)

    def evidence(self, organs: Tensor, lesion: Tensor, text: PromptTokens) -> Tensor | None:
        """What the scan says about the prompt before any mask is drawn. Not in the paper.

        The words choose among the organs that the auxiliary head sees, and say whether the organ is meant
        or a lesion in it: p(organ) · (1 − g + g · p(lesion)).

        Args:
            organs, lesion: logits (B, 1 + organs, D, H, W) and (B, 1, D, H, W).
            text: of B prompts.

        Returns:
            (B, 1, D, H, W) in (−1, 1), see `evidence_of`; None if the encoder has no query.
        """
        if self.query is None or self.gate is None:
            return None
        meant = self.gate(text.mean).float().sigmoid()[..., None, None, None]
        inside = chosen_probability(organs, self.query(text.mean))
        return evidence_of(inside * (1 - meant + meant * lesion.float().sigmoid()))

    def condition(self, fused: Tensor, organs: Tensor, lesion: Tensor, text: PromptTokens) -> Tensor:
        """What steers the denoiser: the fused features, and the evidence folded to their resolution."""
        return _beside(fused, self.evidence(organs, lesion, text), CELL)

    def refinable(self, detail: Tensor, organs: Tensor, lesion: Tensor, text: PromptTokens) -> Tensor:
        """What the refiner sees: the detail features, and the evidence folded to their resolution."""
        return _beside(detail, self.evidence(organs, lesion, text), (1, 2, 2))

    @property
    def condition_channels(self) -> int:
        """Channels of `condition`."""
        return self.config.control_channels + (16 if self.query is not None else 0)

    @property
    def refinable_channels(self) -> int:
        """Channels of `refinable`."""
        return self.config.detail_channels + (4 if self.query is not None else 0)


def oddness(image: Tensor, organs: Tensor) -> Tensor:
    """How much darker or brighter a voxel is than the organ around it usually is in this image.

    Args:
        image: (B, 1, D, H, W) in any unit.
        organs: (B, 1 + organs, D, H, W) logits, which say where the organs are. A lesion may be a hole in its
            organ: voxels count to the organs that are near.

    Returns:
        (B, 2, D, H, W) float32: distance from the organ's mean in its mean deviations, within ±4, and how far
        that is from 0.
    """
    probability, grey = organs.float().softmax(1)[:, 1:], image.float()
    certain, space = probability**2, (2, 3, 4)
    size = certain.sum(space, keepdim=True) + 1e-3
    mean = (certain * grey).sum(space, keepdim=True) / size
    deviation = (certain * (grey - mean).abs()).sum(space, keepdim=True) / size + 0.02
    near = F.avg_pool3d(F.avg_pool3d(probability, CELL), 3, 1, 1)
    near = F.interpolate(near, grey.shape[2:], mode="trilinear") ** 2 + 1e-8
    near = near / near.sum(1, keepdim=True)
    odd = (grey - (near * mean).sum(1, keepdim=True)) / (near * deviation).sum(1, keepdim=True)
    odd = odd.clamp(-4, 4)
    return torch.cat([odd, odd.abs()], 1)


def _beside(features: Tensor, evidence: Tensor | None, cell: tuple[int, int, int]) -> Tensor:
    return features if evidence is None else torch.cat([features, fold(evidence, cell).to(features)], 1)
