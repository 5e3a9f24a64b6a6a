"""Stage five: the refiner learns from masks that the model drew by itself.

While the ControlNet learns, the noisy latents hold some of the truth; what is decoded from them is better
than anything that sampling from pure noise will give, and a refiner that learns there trusts it too much
(exposure bias, Ning et al., ICLR 2024). Here every mask is sampled as in use. It begins by believing the
evidence alone and learns what the drawn mask adds: on patients that the ControlNet knows, what it draws is
better than on others, and a refiner that begins with the drawn mask stays too near to it.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from progidiff.pipelines.progidiff.control_net import MaskControlNet, steered_output
from progidiff.pipelines.progidiff.diffusion import mask_logits_from_latents
from progidiff.pipelines.progidiff.image_encoder import ImageEncoder
from progidiff.pipelines.progidiff.refiner import MaskRefiner
from progidiff.pipelines.progidiff.text import encode_text, freeze, pooled
from progidiff.pipelines.sampling import descend, levels_between
from progidiff.training.doubting import doubted_crops
from progidiff.training.generator import Captions
from progidiff.training.loop import Losses, Stage
from progidiff.training.losses import DRAWN_WEIGHT, mask_loss
from progidiff.training.slice_data import OrganSlices

_STEPS = (1, 2)  # denoising steps of the masks it learns from


class RefinerStage(Stage):
    """The mask loss of what the refiner makes of sampled masks; all other parts stay as they are.

    Args:
        scheduler, eta: of the sampling.
        doubt: as the control stage learnt with.
        (others): as in `ControlStage`.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        controlnet: MaskControlNet,
        encoder: ImageEncoder,
        refiner: MaskRefiner,
        slices: OrganSlices,
        scheduler: DDIMScheduler,
        eta: float,
        doubt: float = 0.0,
    ) -> None:
        super().__init__()
        self.vae, self.unet, self.text_encoder = freeze(vae), freeze(unet), freeze(text_encoder)
        self.controlnet, self.encoder = freeze(controlnet), freeze(encoder)
        self.refiner, self.tokenizer = refiner, tokenizer
        self.scheduler, self.eta, self.doubt = scheduler, eta, doubt
        self.slices, self.captions = slices, Captions()

    def train(self, mode: bool = True) -> RefinerStage:
        """Only the refiner trains; the others answer as they do in use."""
        super().train(mode)
        for part in (self.vae, self.unet, self.text_encoder, self.controlnet, self.encoder):
            part.eval()
        return self

    def forward(self, batch: int, rng: np.random.Generator) -> Losses:
        device = next(self.refiner.parameters()).device
        crops = self.slices.batch(batch, rng).to(device)
        with torch.no_grad():
            text = encode_text(self.tokenizer, self.text_encoder, self.captions.draw(crops.organ, rng))
            words, features = pooled(text), self.encoder(crops.image, crops.pixel_mm)
            features = doubted_crops(features, crops.pixel_mm, self.doubt)
            condition = self.encoder.condition(features, words)
            latents = self._sample(condition, text, int(rng.choice(_STEPS)))
            decoded = mask_logits_from_latents(self.vae, latents)
            detail = self.encoder.refinable(features, words)
        refined = self.refiner(decoded, detail, words)
        return {"refined": mask_loss(refined, crops.mask, DRAWN_WEIGHT)}

    def _sample(self, condition: Tensor, text: Tensor, steps: int) -> Tensor:
        """Latents (B, C, h, w) drawn from pure noise."""

        def predict(noisy: Tensor, timestep: Tensor) -> Tensor:
            return steered_output(self.unet, self.controlnet, noisy, timestep, text, condition)

        edge, count = condition.shape[-1], self.scheduler.config.num_train_timesteps
        start = torch.zeros(len(condition), self.unet.config.in_channels, edge, edge, device=condition.device)
        levels = levels_between(1.0, steps, count)
        return descend(self.scheduler, predict, start, levels, lambda: torch.randn_like(start), self.eta)
