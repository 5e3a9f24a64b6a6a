"""Stages that need no image: the mask autoencoder and the text-to-mask generator.

They learn from label maps alone what organs look like. The generator is frozen afterwards.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from progidiff.pipelines.progidiff.diffusion import latents_from_mask, training_target
from progidiff.pipelines.progidiff.text import encode_text, freeze, pooled
from progidiff.prompts import organ_table
from progidiff.prompts.phrasing import captions
from progidiff.training.loop import Losses, Stage
from progidiff.training.losses import mask_loss
from progidiff.training.slice_data import OrganSlices


class Captions:
    """Training captions by organ number, made once: drawing is then a look-up."""

    def __init__(self, per_organ: int = 2000, seed: int = 1) -> None:
        self.by_label = _captions_by_label(per_organ, seed)

    def draw(self, organs: torch.Tensor, rng: np.random.Generator) -> list[str]:
        """One caption for each label number of `organs` (B,)."""
        return [self.by_label[int(o)][rng.integers(len(self.by_label[int(o)]))] for o in organs]


@cache
def _captions_by_label(per_organ: int, seed: int) -> dict[int, list[str]]:
    rng = np.random.default_rng(seed)
    return {organ.label: captions(organ, rng, per_organ) for organ in organ_table().organs}


class MaskAutoencoderStage(Stage):
    """Masks through the bottleneck and back; noise on the latents makes nearby latents decode alike."""

    def __init__(self, vae: AutoencoderKL, slices: OrganSlices, latent_noise: float = 0.1) -> None:
        super().__init__()
        self.vae, self.slices, self.latent_noise = vae, slices, latent_noise

    def forward(self, batch: int, rng: np.random.Generator) -> Losses:
        mask = self.slices.batch(batch, rng).mask.to(next(self.vae.parameters()).device)
        latents = self.vae.encode(mask * 2 - 1).latent_dist.mean
        size = (latents**2).mean()  # keeps the latents near unit size, where the noise matters
        decoded = self.vae.decode(latents + self.latent_noise * torch.randn_like(latents)).sample
        return {"mask": mask_loss(decoded, mask), "size": 0.01 * (size - 1).abs()}

    @torch.no_grad()
    def set_scaling_factor(self, batch: int = 128, seed: int = 0) -> None:
        """Measure the latents' standard deviation, so that diffusion works on unit variance."""
        device = next(self.vae.parameters()).device
        masks = self.slices.batch(batch, np.random.default_rng(seed)).mask.to(device)
        latents = self.vae.encode(masks * 2 - 1).latent_dist.mean
        self.vae.register_to_config(scaling_factor=float(1 / latents.std()))


class GeneratorStage(Stage):
    """Text → mask by latent diffusion; the text encoder learns with the denoiser.

    A linear head asks the text encoder for the organ's number, so that every wording of an organ soon
    means the same; it is dropped after training.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        slices: OrganSlices,
        scheduler: DDIMScheduler,
    ) -> None:
        super().__init__()
        self.vae, self.unet, self.text_encoder = freeze(vae), unet, text_encoder
        self.tokenizer, self.slices, self.captions = tokenizer, slices, Captions()
        self.organ_head = nn.Linear(text_encoder.config.hidden_size, slices.organs + 1)
        self.scheduler = scheduler

    def forward(self, batch: int, rng: np.random.Generator) -> Losses:
        device = next(self.unet.parameters()).device
        crops = self.slices.batch(batch, rng).to(device)
        with torch.no_grad():
            clean = latents_from_mask(self.vae, crops.mask).float()
        text = encode_text(self.tokenizer, self.text_encoder, self.captions.draw(crops.organ, rng))
        noise = torch.randn_like(clean)
        timesteps = torch.randint(0, self.scheduler.config.num_train_timesteps, (batch,), device=device)
        noisy = self.scheduler.add_noise(clean, noise, timesteps)
        output = self.unet(noisy, timesteps, text).sample
        target = training_target(self.scheduler, clean, noise, timesteps)
        return {
            "latents": F.mse_loss(output.float(), target),
            "text": 0.1 * F.cross_entropy(self.organ_head(pooled(text)).float(), crops.organ),
        }
