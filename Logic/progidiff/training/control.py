"""Stage four: the ControlNet, the image encoder and the refiner learn to steer the frozen generator."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from progidiff.pipelines.evidence import evidence_logits
from progidiff.pipelines.progidiff.control_net import MaskControlNet, steered_output
from progidiff.pipelines.progidiff.diffusion import (
    clean_from_output,
    latents_from_mask,
    make_scheduler,
    mask_logits_from_latents,
    training_target,
)
from progidiff.pipelines.progidiff.image_encoder import ImageEncoder, ImageFeatures
from progidiff.pipelines.progidiff.refiner import MaskRefiner
from progidiff.pipelines.progidiff.text import encode_text, freeze, pooled
from progidiff.training.class_balance import taught_weight
from progidiff.training.doubting import doubted_crops
from progidiff.training.generator import Captions
from progidiff.training.loop import Losses, Stage
from progidiff.training.losses import DRAWN_WEIGHT, mask_loss, organ_loss
from progidiff.training.slice_data import OrganSlices, SliceBatch
from progidiff.training.timesteps import random_timesteps

_DECODED = 0.4  # share of a batch, the noisiest, whose masks are decoded: as many as begin at pure noise
_SURE = 12.0  # logit of the organ a wording names, over the others


class ControlStage(Stage):
    """The denoising loss on the latents, mask losses on what they decode to, and the auxiliary organ loss.

    Masks are decoded of the noisiest two in five crops of a batch alone: sampling starts there.

    Args:
        train_generator: True also trains the UNet, for the comparison of frozen with unfrozen.
        train_encoder: False keeps the image encoder as the encoder stage left it, but for the projection to
            the ControlNet, which that stage does not teach.
        mask_losses: False judges what is drawn by its latents alone; the refiner still learns from the masks
            that they decode to, and the encoder by its own losses.
        doubt: most by which the organ head's opinion is doubted before anything is drawn from it, see
            `doubted_crops`; what the head itself has to learn stays undoubted.
        scheduler: of a generator that was trained elsewhere; by default the embedded model's.
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
        *,
        train_generator: bool = False,
        train_encoder: bool = True,
        mask_losses: bool = True,
        doubt: float = 0.0,
        scheduler: DDIMScheduler | None = None,
    ) -> None:
        super().__init__()
        self.vae, self.text_encoder, self.tokenizer = freeze(vae), freeze(text_encoder), tokenizer
        self.unet = unet if train_generator else freeze(unet)
        self.encoder, self.train_encoder = encoder, train_encoder
        if not train_encoder:
            freeze(encoder).to_control.requires_grad_(True)
        self.controlnet, self.refiner = controlnet, refiner
        self.mask_losses, self.doubt = mask_losses, doubt
        self.slices, self.captions, self.scheduler = slices, Captions(), scheduler or make_scheduler()

    def forward(self, batch: int, rng: np.random.Generator) -> Losses:
        device = next(self.controlnet.parameters()).device
        crops = self.slices.batch(batch, rng).to(device)
        with torch.no_grad():
            text = encode_text(self.tokenizer, self.text_encoder, self.captions.draw(crops.organ, rng))
        return self.losses(crops, text)

    def losses(self, crops: SliceBatch, text: Tensor) -> Losses:
        """All losses of one batch of crops with embedded prompts (B, tokens, width)."""
        features, words = self.encoder(crops.image, crops.pixel_mm), pooled(text)
        with torch.no_grad():
            clean = latents_from_mask(self.vae, crops.mask).float()
        noise = torch.randn_like(clean)
        timesteps = random_timesteps(len(clean), self.scheduler.config.num_train_timesteps, clean.device)
        noisy = self.scheduler.add_noise(clean, noise, timesteps)
        seen = doubted_crops(features, crops.pixel_mm, self.doubt)
        condition = self.encoder.condition(seen, words)
        output = steered_output(self.unet, self.controlnet, noisy, timesteps, text, condition)
        losses = {"latents": F.mse_loss(output, training_target(self.scheduler, clean, noise, timesteps))}
        if self.train_encoder:
            losses.update(self._seeing_losses(features, crops, words))
        # With little noise left the noisy mask gives the answer away, and decoding is a quarter of a step.
        late = timesteps.topk(max(1, round(len(timesteps) * _DECODED))).indices
        predicted = clean_from_output(self.scheduler, noisy, output, timesteps)[late]
        detail = self.encoder.refinable(seen, words)[late]
        if not self.mask_losses:
            predicted, detail = predicted.detach(), detail.detach()
        decoded = mask_logits_from_latents(self.vae, predicted)
        refined = self.refiner(decoded, detail, words[late])
        losses["refined"] = 0.5 * mask_loss(refined, crops.mask[late], DRAWN_WEIGHT)
        if self.mask_losses:
            losses["decoded"] = 0.3 * mask_loss(decoded, crops.mask[late], DRAWN_WEIGHT)
        return losses

    def _seeing_losses(self, features: ImageFeatures, crops: SliceBatch, words: Tensor) -> Losses:
        """What the encoder's own heads missed, so that it does not forget while it learns to steer."""
        missed = organ_loss(features.organs, crops.label, crops.known, taught_weight(self.encoder))
        losses = {"organs": 0.3 * missed}
        evidence = self.encoder.evidence(features, words)
        if evidence is not None:
            losses["evidence"] = 0.3 * mask_loss(evidence_logits(evidence), crops.mask)
        return losses


@torch.no_grad()
def teach_query(
    encoder: ImageEncoder, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, wordings: int = 100
) -> None:
    """Teach the encoder's query which organ each wording names, before anything else is trained.

    Ridge regression from pooled text embeddings to the organs' numbers.
    """
    if encoder.query is None:
        return
    texts, numbers = [], []
    for label, words in Captions(wordings).by_label.items():
        texts.append(pooled(encode_text(tokenizer, text_encoder, words)))
        numbers += [label] * len(words)
    text = torch.cat(texts).cpu().double()
    design = torch.cat([text, torch.ones(len(text), 1)], 1)
    wanted = _SURE * F.one_hot(torch.tensor(numbers), encoder.config.organs + 1).double()
    penalty = 1e-4 * len(text) * torch.eye(design.shape[1], dtype=torch.float64)
    solution = torch.linalg.solve(design.T @ design + penalty, design.T @ wanted)
    encoder.query.weight.copy_(solution[:-1].T)
    encoder.query.bias.copy_(solution[-1])
