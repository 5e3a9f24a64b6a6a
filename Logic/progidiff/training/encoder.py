"""Stage two: teach the image encoder all organs at once through its auxiliary head."""

from __future__ import annotations

import numpy as np
import torch

from progidiff.pipelines.progidiff.image_encoder import ImageEncoder
from progidiff.training.loop import Losses, Stage
from progidiff.training.losses import organ_loss
from progidiff.training.slice_data import OrganSlices


class EncoderStage(Stage):
    """Cross-entropy and batch Dice over all organs of the crop."""

    def __init__(self, encoder: ImageEncoder, slices: OrganSlices) -> None:
        super().__init__()
        self.encoder, self.slices = encoder, slices
        self.class_weight = torch.tensor([0.6] + [1.0] * slices.organs)

    def forward(self, batch: int, rng: np.random.Generator) -> Losses:
        crops = self.slices.batch(batch, rng).to(next(self.encoder.parameters()).device)
        features = self.encoder(crops.image, crops.pixel_mm)
        return {
            "organs": organ_loss(
                features.organs, crops.label, crops.known, self.class_weight.to(features.organs.device)
            )
        }
