"""TextDiffSeg: text-guided diffusion in three dimensions (arXiv 2504.11825).

The path from prompt to proposals is in `pipelines.base`; here are its steps. What enters and leaves are
stacks of slices (S, …). Inside, slices are an axis the networks convolve along, and long stacks are
computed in overlapping windows, which start from one field of noise and agree after each step.
"""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler
from torch import Tensor
from transformers import BertModel, BertTokenizer

from progidiff.pipelines.base import ProposalsPipeline
from progidiff.pipelines.locator import OrganLocator
from progidiff.pipelines.precision import autocast
from progidiff.pipelines.textdiffseg.denoiser import LabelDenoiser
from progidiff.pipelines.textdiffseg.image_encoder import VolumeEncoder, VolumeFeatures
from progidiff.pipelines.textdiffseg.label_autoencoder import LabelAutoencoder
from progidiff.pipelines.textdiffseg.refiner import BorderRefiner
from progidiff.pipelines.textdiffseg.text import PromptTokens, encode_text
from progidiff.pipelines.textdiffseg.text_fusion import TextFusion
from progidiff.pipelines.textdiffseg.windows import Compute, over_windows


class TextDiffSegPipeline(ProposalsPipeline):
    """Draws masks of what a prompt names in a stack of slices, as one volume.

    Args:
        label_autoencoder: masks ↔ latents.
        text_encoder, tokenizer: BERT pair.
        image_encoder: features of the scan.
        text_fusion: cross-modal attention of scan and words.
        denoiser: draws label latents.
        refiner: corrects borders at full resolution.
        locator: coarse 3D network that finds the organs; used by the Segmenter, not by `__call__`.
        scheduler: DDIM that expects clean latents from the network, with zero terminal SNR.
        default_steps: denoising steps that measured best.
        eta: share of fresh noise in each step, below 1 (at 1 the first step takes the root of a rounding
            error and gives NaN).
        coarse_weight: how much the fine pass trusts the locator, see `coarse_prior`.
        findings: ids of the findings it was trained on, such as "liver_tumor", separated by spaces (a
            list would read as a part in `model_index.json`).
    """

    edge_multiple = 16
    model_cpu_offload_seq = "text_encoder->image_encoder->text_fusion->denoiser->label_autoencoder->refiner"

    adaptable = ("denoiser", "image_encoder", "refiner", "locator")
    """Parts whose convolutions and attentions few-shot adaptation adjusts."""

    def __init__(
        self,
        label_autoencoder: LabelAutoencoder,
        text_encoder: BertModel,
        tokenizer: BertTokenizer,
        image_encoder: VolumeEncoder,
        text_fusion: TextFusion,
        denoiser: LabelDenoiser,
        refiner: BorderRefiner,
        locator: OrganLocator,
        scheduler: DDIMScheduler,
        default_steps: int = 2,
        eta: float = 0.9,
        findings: str = "",
        coarse_weight: float = 0.3,
    ) -> None:
        super().__init__()
        self.register_modules(
            label_autoencoder=label_autoencoder,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            image_encoder=image_encoder,
            text_fusion=text_fusion,
            denoiser=denoiser,
            refiner=refiner,
            locator=locator,
            scheduler=scheduler,
        )
        self.register_to_config(
            default_steps=default_steps, eta=eta, findings=findings, coarse_weight=coarse_weight
        )
        self.slices_per_batch = image_encoder.config.window

    def encode_prompt(self, prompt: str) -> PromptTokens:
        """The tokens of one prompt."""
        with autocast(self.device):
            return encode_text(
                self.tokenizer, self.text_encoder, [prompt], enabled=self.text_fusion.config.enabled
            )

    def encode_image(self, image: Tensor, pixel_mm: float) -> VolumeFeatures:
        """Features of a stack of slices (S, H, W)."""
        scale = torch.full((1,), pixel_mm, device=self.device)

        def encode(window: Tensor) -> tuple[Tensor, ...]:
            made = self.image_encoder(window, scale)
            return made.control, made.detail, made.organs, made.lesion

        stack = image[:, None].to(self.device, torch.float32)
        return VolumeFeatures(*self._over_windows(encode, stack))

    def noise(self, features: VolumeFeatures, slice_mm: float, generator: torch.Generator) -> Tensor:
        """Unit noise (S, C, h, w) for the latents of a stack.

        White also along the slices, whatever their distance `slice_mm`: the denoiser sees them together
        and makes them agree. Drawn on the CPU, so that a seed means the same noise on every device.
        """
        slices, _, height, width = features.control.shape
        channels = self.label_autoencoder.latent_channels
        return torch.randn(slices, channels, height, width, generator=generator).to(self.device)

    def predict(
        self, latents: Tensor, timestep: Tensor, features: VolumeFeatures, text: PromptTokens
    ) -> Tensor:
        """The clean latents (S, C, h, w) that the denoiser sees in noisy ones."""

        def clean(noisy: Tensor, control: Tensor, organs: Tensor, lesion: Tensor) -> tuple[Tensor, ...]:
            fused = self.text_fusion(control, text)
            condition = self.image_encoder.condition(fused, organs, lesion, text)
            return (self.denoiser(noisy, timestep.to(noisy.device).view(1), condition, text),)

        return self._over_windows(clean, latents, features.control, features.organs, features.lesion)[0]

    def encode_mask(self, mask: Tensor) -> Tensor:
        """Masks (S, H, W) in [0, 1] → latents (S, C, h, w) float32 of about unit size."""
        stack = mask[:, None].to(self.device, torch.float32)
        return self._over_windows(lambda window: (self.label_autoencoder.encode(window),), stack)[0]

    def decode_mask(self, latents: Tensor) -> Tensor:
        """Latents (S, C, h, w) → what they say by themselves, without the refiner: (S, H, W) in [0, 1]."""
        logits = self._over_windows(lambda window: (self.label_autoencoder.decode(window),), latents)[0]
        return logits[:, 0].sigmoid()

    def decode(self, latents: Tensor, features: VolumeFeatures, text: PromptTokens) -> Tensor:
        """Latents (S, C, h, w) → probability (S, H, W), float32 on the CPU."""

        def logits(window: Tensor) -> tuple[Tensor, ...]:
            return (self.label_autoencoder.decode(window),)

        def refined(drawn: Tensor, detail: Tensor, organs: Tensor, lesion: Tensor) -> tuple[Tensor, ...]:
            seen = self.image_encoder.refinable(detail, organs, lesion, text)
            return (self.refiner(drawn, seen, text),)

        drawn = self._over_windows(logits, latents)[0]
        stacks = (drawn, features.detail, features.organs, features.lesion)
        return self._over_windows(refined, *stacks)[0][:, 0].sigmoid().cpu()

    def _over_windows(self, compute: Compute, *stacks: Tensor) -> tuple[Tensor, ...]:
        """Windows as long as the model was trained on, or shorter where memory is scarce."""
        longest = min(self.image_encoder.config.window, self.slices_per_batch)
        with autocast(self.device):
            return over_windows(compute, stacks, longest)
