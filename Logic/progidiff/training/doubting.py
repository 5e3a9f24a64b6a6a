"""Doubt in training: what the image encoder says of a crop is not always right, and not to be copied.

On patients that it learns from the organ head is surer than on others, and a model that draws may learn to
repeat it. Here every crop is read as one of many readers would, see `pipelines.doubt`; what is drawn has to
become the same mask all the same, from the other features and from what the generator knows of shapes.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from progidiff.pipelines.doubt import smooth_field
from progidiff.pipelines.progidiff.image_encoder import ImageFeatures


def doubted_crops(features: ImageFeatures, pixel_mm: Tensor, most: float) -> ImageFeatures:
    """The features of crops of different patients, each one doubted by an amount of its own.

    Args:
        features: of B crops; `organs` holds logits (B, 1 + organs, H, W).
        pixel_mm: (B,) edge of a pixel.
        most: the amounts, standard deviations in logits, are uniform between 0 and this; 0 changes nothing.
    """
    if most == 0:
        return features
    channels, height, width = features.organs.shape[1:]
    fields = [
        amount * smooth_field(channels, (1, height, width), (1.0, mm, mm), torch.default_generator)[:, 0]
        for amount, mm in zip((most * torch.rand(len(pixel_mm))).tolist(), pixel_mm.tolist(), strict=True)
    ]
    return replace(features, organs=features.organs + torch.stack(fields).to(features.organs))
