"""Stage one: train the coarse 3D locator."""

from __future__ import annotations

import numpy as np
import torch

from progidiff.pipelines.locator import OrganLocator
from progidiff.training.locator_data import CoarsePatches
from progidiff.training.loop import Losses, Stage
from progidiff.training.losses import organ_loss


class LocatorStage(Stage):
    """Cross-entropy and Dice on coarse patches; small organs weigh more in the cross-entropy."""

    def __init__(self, locator: OrganLocator, patches: CoarsePatches) -> None:
        super().__init__()
        self.locator, self.patches = locator, patches
        self.class_weight = torch.tensor([0.5] + [1.0] * patches.organs)

    def forward(self, batch: int, rng: np.random.Generator) -> Losses:
        image, label, known = self.patches.batch(batch, rng)
        device = next(self.locator.parameters()).device
        logits = self.locator(image.to(device))
        return {
            "organs": organ_loss(logits, label.to(device), known.to(device), self.class_weight.to(device))
        }
