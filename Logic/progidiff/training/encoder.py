"""Teach an image encoder all organs at once through its auxiliary head: cheap, and most of the quality."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from progidiff.pipelines.progidiff.image_encoder import ImageEncoder
from progidiff.pipelines.textdiffseg.image_encoder import VolumeEncoder, VolumeFeatures
from progidiff.training.class_balance import taught_weight
from progidiff.training.loop import Losses, Stage
from progidiff.training.losses import organ_loss
from progidiff.training.slice_data import OrganSlices
from progidiff.training.volume_data import OrganVolumes, VolumeBatch


class EncoderStage(Stage):
    """ProGiDiff's stage two: cross-entropy and batch Dice over all organs of the crop.

    Args:
        encoder: to be trained; where it notes no weights of the classes, background counts less than organs.
        slices: what it learns from.
    """

    def __init__(self, encoder: ImageEncoder, slices: OrganSlices) -> None:
        super().__init__()
        self.encoder, self.slices = encoder, slices

    def forward(self, batch: int, rng: np.random.Generator) -> Losses:
        crops = self.slices.batch(batch, rng).to(self.encoder.device)
        features = self.encoder(crops.image, crops.pixel_mm)
        weight = taught_weight(self.encoder)
        if weight is None:
            weight = torch.tensor([0.6] + [1.0] * self.slices.organs, device=self.encoder.device)
        return {"organs": organ_loss(features.organs, crops.label, crops.known, weight)}


class VolumeEncoderStage(Stage):
    """The same for TextDiffSeg's 3D image encoder, before the joint training."""

    def __init__(self, encoder: VolumeEncoder, volumes: OrganVolumes) -> None:
        super().__init__()
        self.encoder, self.volumes = encoder, volumes

    def forward(self, batch: int, rng: np.random.Generator) -> Losses:
        pieces = self.volumes.batch(batch, rng).to(next(self.encoder.parameters()).device)
        features = self.encoder(pieces.image, pieces.pixel_mm)
        return seeing_losses(features, self.volumes, pieces, taught_weight(self.encoder))


def seeing_losses(
    features: VolumeFeatures, volumes: OrganVolumes, pieces: VolumeBatch, class_weight: Tensor | None = None
) -> Losses:
    """What the auxiliary heads of the 3D image encoder missed: organs, and lesions where they are taught."""
    losses = {"organs": volume_organ_loss(features.organs, pieces, class_weight)}
    if volumes.lesions:
        losses["lesion"] = lesion_loss(features.lesion, pieces)
    return losses


def lesion_loss(logits: Tensor, pieces: VolumeBatch) -> Tensor:
    """Cross-entropy and Dice of lesions, within the organ alone: the organ head tells where that is.

    Args:
        logits: (B, 1, D, H, W) of p(lesion | in the organ).
        pieces: those of which no voxel was searched for lesions do not count.
    """
    inside = pieces.searched.flatten(1).float()
    flat, target = logits.float().flatten(1), pieces.lesion.flatten(1)
    cross_entropy = F.binary_cross_entropy_with_logits(flat, target, weight=inside, reduction="sum")
    probability, target, smooth = flat.sigmoid() * inside, target * inside, 10.0
    dice = (2 * (probability * target).sum(1) + smooth) / (probability.sum(1) + target.sum(1) + smooth)
    counted = inside.any(1).float()
    of_voxels = cross_entropy / inside.sum().clamp(min=1)
    return of_voxels + ((1 - dice) * counted).sum() / counted.sum().clamp(min=1)


def volume_organ_loss(logits: Tensor, pieces: VolumeBatch, class_weight: Tensor | None = None) -> Tensor:
    """All organs at once; which are annotated is a matter of the slice, so slices count as images."""
    slices = logits.transpose(1, 2).flatten(0, 1)
    return organ_loss(slices, pieces.label.flatten(0, 1), pieces.known.flatten(0, 1), class_weight)
