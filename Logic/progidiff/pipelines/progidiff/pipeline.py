"""ProGiDiff: a frozen text-to-mask diffusion model, steered by the image through a ControlNet.

The path from prompt to proposals is in `pipelines.base`; here are its steps.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from progidiff.pipelines.base import ProposalsPipeline
from progidiff.pipelines.locator import OrganLocator
from progidiff.pipelines.precision import autocast
from progidiff.pipelines.progidiff.control_net import MaskControlNet, steered_output
from progidiff.pipelines.progidiff.diffusion import latents_from_mask, mask_logits_from_latents
from progidiff.pipelines.progidiff.image_encoder import ImageEncoder, ImageFeatures
from progidiff.pipelines.progidiff.noise import coherent_noise
from progidiff.pipelines.progidiff.refiner import MaskRefiner
from progidiff.pipelines.progidiff.text import encode_text, pooled


class ProGiDiffPipeline(ProposalsPipeline):
    """Draws masks of the organ that a prompt names on a stack of slices.

    Args:
        vae: autoencoder of masks (or of photos, for Stable Diffusion bases).
        text_encoder, tokenizer: CLIP pair.
        unet: the frozen generator.
        controlnet: steers it by image features.
        image_encoder: makes those features.
        refiner: corrects borders at full resolution.
        locator: coarse 3D network that finds the organs; used by the Segmenter, not by `__call__`.
        scheduler: DDIM with v-prediction and zero terminal SNR.
        default_steps: denoising steps that measured best.
        eta: share of fresh noise in each step, below 1 (at 1 the first step takes the root of a rounding
            error and gives NaN).
        coarse_weight: how much the fine pass trusts the locator, see `coarse_prior`.
    """

    edge_multiple = 32
    model_cpu_offload_seq = "text_encoder->image_encoder->controlnet->unet->vae->refiner"

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        controlnet: MaskControlNet,
        image_encoder: ImageEncoder,
        refiner: MaskRefiner,
        locator: OrganLocator,
        scheduler: DDIMScheduler,
        default_steps: int = 4,
        eta: float = 0.9,
        coarse_weight: float = 0.3,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            controlnet=controlnet,
            image_encoder=image_encoder,
            refiner=refiner,
            locator=locator,
            scheduler=scheduler,
        )
        self.register_to_config(default_steps=default_steps, eta=eta, coarse_weight=coarse_weight)
        # A processor draws few slices at once faster than many: an allocator keeps no arrays beyond 32 MiB,
        # so that each is new memory, of which every page has to be cleared.
        self.slices_per_batch = 16

    def encode_prompt(self, prompt: str) -> Tensor:
        """(1, tokens, width) embedding of one prompt."""
        with autocast(self.device):
            return encode_text(self.tokenizer, self.text_encoder, [prompt])

    def encode_image(self, image: Tensor, pixel_mm: float) -> ImageFeatures:
        """Features of a stack of slices (S, H, W), each seen with its neighbours; edges are repeated."""
        count = self.image_encoder.config.slices
        reach = count // 2
        padded = F.pad(image[None, None], (0, 0, 0, 0, reach, reach), mode="replicate")[0, 0]
        windows = padded.unfold(0, count, 1).movedim(-1, 1).to(self.device, torch.float32)
        scale = torch.full((len(image),), pixel_mm, device=self.device)
        with autocast(self.device):
            parts = [self.image_encoder(windows[b], scale[b]) for b in self._batches(len(image))]
        return ImageFeatures(
            *(torch.cat([getattr(p, n) for p in parts]) for n in ("control", "detail", "organs"))
        )

    def noise(self, features: ImageFeatures, slice_mm: float, generator: torch.Generator) -> Tensor:
        """Unit noise (S, C, h, w) for the latents of a stack, coherent along the slices."""
        slices, _, height, width = features.control.shape
        shape = (self.unet.config.in_channels, height, width)
        return coherent_noise(slices, shape, slice_mm, generator).to(self.device)

    def predict(self, latents: Tensor, timestep: Tensor, features: ImageFeatures, text: Tensor) -> Tensor:
        """The denoiser's answer for all slices, batch by batch."""
        parts = []
        with autocast(self.device):
            for b in self._batches(len(latents)):
                words = text.expand(len(latents[b]), -1, -1)
                condition = self.image_encoder.condition(features[b], pooled(words))
                parts.append(
                    steered_output(self.unet, self.controlnet, latents[b], timestep, words, condition)
                )
        return torch.cat(parts)

    def encode_mask(self, mask: Tensor) -> Tensor:
        """Masks (S, H, W) in [0, 1] → latents (S, C, h, w) float32 of unit variance."""
        with autocast(self.device):
            parts = [
                latents_from_mask(self.vae, mask[b, None].to(self.device)) for b in self._batches(len(mask))
            ]
        return torch.cat(parts).float()

    def decode_mask(self, latents: Tensor) -> Tensor:
        """Latents (S, C, h, w) → what they say by themselves, without the refiner: (S, H, W) in [0, 1]."""
        with autocast(self.device):
            parts = [mask_logits_from_latents(self.vae, latents[b]) for b in self._batches(len(latents))]
        return torch.cat(parts)[:, 0].float().sigmoid()

    def decode(self, latents: Tensor, features: ImageFeatures, text: Tensor) -> Tensor:
        """Latents (S, C, h, w) → probability (S, H, W), float32 on the CPU."""
        parts = []
        with autocast(self.device):
            for b in self._batches(len(latents)):
                logits = mask_logits_from_latents(self.vae, latents[b])
                words = pooled(text).expand(len(latents[b]), -1)
                refined = self.refiner(logits, self.image_encoder.refinable(features[b], words), words)
                parts.append(refined[:, 0].float().sigmoid().cpu())
        return torch.cat(parts)

    def _batches(self, count: int) -> Iterator[slice]:
        """Slices of at most `slices_per_batch`."""
        for start in range(0, count, self.slices_per_batch):
            yield slice(start, start + self.slices_per_batch)
