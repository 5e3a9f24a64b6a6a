"""Stage one: train the coarse 3D locator."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from progidiff.pipelines.locator import OrganLocator
from progidiff.training.locator_data import CoarsePatches
from progidiff.training.loop import Losses, Stage
from progidiff.training.losses import organ_loss


class LocatorStage(Stage):
    """Cross-entropy and Dice on coarse patches.

    Args:
        locator: to be trained.
        patches: what it learns from.
        class_weight: (1 + organs,) weights of the cross-entropy; by default all organs count alike
            and background less.

    A weighted cross-entropy teaches w · p instead of the probabilities p, and rare organs would be seen
    everywhere. The loss is therefore given the logits plus log w, as in logit adjustment (Menon et al., ICLR
    2021): the locator's own are then those of p, and by them it is decided what is found.
    """

    def __init__(
        self, locator: OrganLocator, patches: CoarsePatches, class_weight: Tensor | None = None
    ) -> None:
        super().__init__()
        self.locator, self.patches = locator, patches
        self.class_weight = (
            torch.tensor([0.5] + [1.0] * patches.organs) if class_weight is None else class_weight
        )

    def forward(self, batch: int, rng: np.random.Generator) -> Losses:
        image, label, known = self.patches.batch(batch, rng)
        device = next(self.locator.parameters()).device
        weight = self.class_weight.to(device)
        logits = self.locator(image.to(device)) + weight.log().view(-1, 1, 1, 1)
        return {"organs": organ_loss(logits, label.to(device), known.to(device), weight)}
