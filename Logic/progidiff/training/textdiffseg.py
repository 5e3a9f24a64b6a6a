"""TextDiffSeg learns end to end: label encoder, image encoder, text encoder, fusion and denoiser at once."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from progidiff.pipelines.evidence import evidence_logits
from progidiff.pipelines.textdiffseg.image_encoder import VolumeFeatures
from progidiff.pipelines.textdiffseg.pipeline import TextDiffSegPipeline
from progidiff.pipelines.textdiffseg.text import PromptTokens, encode_text
from progidiff.prompts import organ_table
from progidiff.training.class_balance import taught_weight
from progidiff.training.encoder import seeing_losses
from progidiff.training.loop import Losses, Stage
from progidiff.training.losses import mask_loss
from progidiff.training.timesteps import random_timesteps
from progidiff.training.volume_data import OrganVolumes, VolumeBatch
from progidiff.training.wording import Wording

_LATENT_NOISE = 0.1  # nearby latents shall decode alike
_WORDINGS = 16  # prompts a step that teach what words ask for; without an image they cost little
_EMPTY_LOGIT = -20.0  # certainly outside


class TextDiffSegStage(Stage):
    """The joint segmentation and denoising loss.

    The image encoder's auxiliary head is asked for all organs, and a linear head (dropped afterwards)
    asks the text encoder for the number of what a prompt names: both teach quickly what the joint loss
    teaches slowly.

    Args:
        pipeline: its parts, all but the locator, are trained in place.
        volumes: draws the batches.
        frozen: parts that keep what they know, such as a BioBERT, or all but the adapted ones.
    """

    def __init__(
        self,
        pipeline: TextDiffSegPipeline,
        volumes: OrganVolumes,
        frozen: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.label_autoencoder, self.text_encoder = pipeline.label_autoencoder, pipeline.text_encoder
        self.image_encoder, self.text_fusion = pipeline.image_encoder, pipeline.text_fusion
        self.denoiser, self.refiner = pipeline.denoiser, pipeline.refiner
        self.frozen = tuple(frozen)
        for name in self.frozen:
            getattr(self, name).requires_grad_(False)
        self.tokenizer, self.scheduler = pipeline.tokenizer, pipeline.scheduler
        self.volumes, self.wording = volumes, Wording()
        self.with_text = bool(pipeline.text_fusion.config.enabled)
        self.text_head: nn.Linear | None = None
        if self.with_text and "text_encoder" not in frozen:
            table = organ_table()
            numbers = 1 + max(entry.label for entry in (*table.organs, *table.findings))
            self.text_head = nn.Linear(pipeline.text_encoder.config.hidden_size, numbers)

    def train(self, mode: bool = True) -> TextDiffSegStage:
        """Frozen parts stay as they answer in use, without dropout."""
        super().train(mode)
        for name in self.frozen:
            getattr(self, name).eval()
        return self

    def forward(self, batch: int, rng: np.random.Generator) -> Losses:
        device = next(self.denoiser.parameters()).device
        pieces = self.volumes.batch(batch, rng).to(device)
        prompts = self.wording.draw(pieces.asked, rng)
        text = encode_text(self.tokenizer, self.text_encoder, prompts, enabled=self.with_text)
        losses = self.losses(pieces, text)
        query = self.image_encoder.query
        if self.with_text and query is not None and query.weight.requires_grad:
            losses["words"] = 0.2 * self.words_loss(rng)
        return losses

    def words_loss(self, rng: np.random.Generator) -> Tensor:
        """What prompts ask of the image encoder's heads: which organ, and whether it or a lesion in it.

        Evidence would teach that too, but as long as the lesion head sees nothing it teaches that lesions lie
        wherever nothing is.
        """
        table = organ_table()
        organs = [table.by_label(number) for number in sorted({number for _, number in self.volumes.pairs})]
        names = {organ.id for organ in organs if organ is not None}
        findings = table.findings if self.volumes.lesions else ()
        entries = [e for e in (*table.organs, *findings) if (e.within or e.id) in names]
        drawn = [entries[n] for n in rng.choice(len(entries), _WORDINGS)]
        prompts = self.wording.draw(torch.tensor([entry.label for entry in drawn]), rng)
        text = encode_text(self.tokenizer, self.text_encoder, prompts).mean
        organ = torch.tensor([table.by_id(e.within or e.id).label for e in drawn], device=text.device)
        lesion = torch.tensor([float(bool(e.within)) for e in drawn], device=text.device)
        choice, meant = self.image_encoder.query(text).float(), self.image_encoder.gate(text).float()[:, 0]
        return F.cross_entropy(choice, organ) + F.binary_cross_entropy_with_logits(meant, lesion)

    def losses(self, pieces: VolumeBatch, text: PromptTokens) -> Losses:
        """All losses of one batch with its embedded prompts."""
        features = self.image_encoder(pieces.image, pieces.pixel_mm)
        clean = self.label_autoencoder.encode(pieces.mask).float()
        seeing = seeing_losses(features, self.volumes, pieces, taught_weight(self.image_encoder))
        losses = {
            **self._joint(pieces, clean, features, text),
            **{name: 0.3 * value for name, value in seeing.items()},
        }
        evidence = self.image_encoder.evidence(features.organs, features.lesion, text)
        if evidence is not None:
            losses["evidence"] = 0.3 * _mask_loss(evidence_logits(evidence), pieces)
        if "label_autoencoder" not in self.frozen and self.label_autoencoder.config.learned:
            losses.update(self._autoencoder(pieces, clean))
        if self.text_head is not None:
            numbers = self.text_head(text.mean).float()
            losses["text"] = 0.1 * F.cross_entropy(numbers, pieces.asked)
        return losses

    def _joint(
        self, pieces: VolumeBatch, clean: Tensor, features: VolumeFeatures, text: PromptTokens
    ) -> Losses:
        """Denoising of the latents, and segmentation by what they decode to.

        The latents are no moving target for the denoiser (their gradient is cut there), but they are
        where the segmentation loss can reach the label encoder, through the noise.
        """
        count = self.scheduler.config.num_train_timesteps
        timesteps = random_timesteps(len(clean), count, clean.device)
        noisy = self.scheduler.add_noise(clean, torch.randn_like(clean), timesteps)
        fused = self.text_fusion(features.control, text)
        condition = self.image_encoder.condition(fused, features.organs, features.lesion, text)
        predicted = self.denoiser(noisy, timesteps, condition, text).float()
        error = (predicted - clean.detach()) ** 2
        weight = pieces.checked[:, None, :, None, None].to(error)
        decoded = self.label_autoencoder.decode(predicted)
        detail = self.image_encoder.refinable(features.detail, features.organs, features.lesion, text)
        refined = self.refiner(decoded, detail, text)
        return {
            "denoising": (error * weight).sum() / (weight.expand_as(error).sum() + 1),
            "decoded": 0.3 * _mask_loss(decoded, pieces),
            "refined": 0.7 * _mask_loss(refined, pieces),
        }

    def _autoencoder(self, pieces: VolumeBatch, clean: Tensor) -> Losses:
        """Labels through the bottleneck and back; latents stay near unit size, where the noise matters."""
        decoded = self.label_autoencoder.decode(clean + _LATENT_NOISE * torch.randn_like(clean))
        return {
            "labels": 0.3 * _mask_loss(decoded, pieces),
            "size": 0.1 * ((clean**2).mean() - 1).abs(),
        }


def _mask_loss(logits: Tensor, pieces: VolumeBatch) -> Tensor:
    """Cross-entropy and Dice of what was asked for, on checked slices only."""
    checked = pieces.checked[:, None, :, None, None]
    return mask_loss(logits.float().masked_fill(~checked, _EMPTY_LOGIT), pieces.mask * checked)
