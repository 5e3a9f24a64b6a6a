"""ProGiDiff: a frozen text-to-mask diffusion model, steered by the image through a ControlNet.

The path from prompt to proposals, one method a step::

    encode_prompt → encode_image (once) → for each proposal: denoise → decode → probability of every pixel
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from diffusers.utils import BaseOutput
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from progidiff.errors import Cancelled, ModelError, UsageError
from progidiff.pipelines.locator import OrganLocator
from progidiff.pipelines.precision import autocast
from progidiff.pipelines.progidiff.control_net import MaskControlNet
from progidiff.pipelines.progidiff.diffusion import latents_from_mask, mask_logits_from_latents
from progidiff.pipelines.progidiff.image_encoder import ImageEncoder, ImageFeatures
from progidiff.pipelines.progidiff.noise import coherent_noise
from progidiff.pipelines.progidiff.refiner import MaskRefiner
from progidiff.pipelines.progidiff.text import encode_text, pooled

OnStep = Callable[[int, int], None]


@dataclass
class ProGiDiffOutput(BaseOutput):
    """What the pipeline returns.

    Attributes:
        probabilities: (proposals, S, H, W) float32 in [0, 1]: how likely each pixel of each slice belongs
            to the organ of the prompt, one volume per proposal.
        organs: (S, 1 + organs, H, W) float32 logits of the image encoder's auxiliary head, the
            deterministic comparison.
    """

    probabilities: Tensor
    organs: Tensor


class ProGiDiffPipeline(DiffusionPipeline):
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
    """

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
        self.register_to_config(default_steps=default_steps, eta=eta)
        self.slices_per_batch = 64

    @torch.no_grad()
    def __call__(
        self,
        image: Tensor,
        prompt: str,
        pixel_mm: float,
        slice_mm: float,
        num_proposals: int = 5,
        num_inference_steps: int | None = None,
        seed: int = 0,
        on_step: OnStep | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> ProGiDiffOutput:
        """Draw proposals.

        Args:
            image: (S, H, W) slices in [−1, 1], canonical orientation (rows to posterior, columns to the
                patient's left, slices to superior); H and W multiples of 32.
            prompt: what to draw, such as "segment the pancreas".
            pixel_mm: edge of a pixel in mm.
            slice_mm: distance of slices in mm.
            num_proposals: how many.
            num_inference_steps: denoising steps, the model's own number by default.
            seed: proposal n is drawn from seed + n.
            on_step: called with (steps done, steps in all).
            cancelled: asked between steps.

        Raises:
            UsageError: an argument is out of range.
            Cancelled: `cancelled` said so.
        """
        steps = num_inference_steps or self.config.default_steps
        self.check_inputs(image, pixel_mm, slice_mm, num_proposals, steps)
        features = self.encode_image(image, pixel_mm)
        text = self.encode_prompt(prompt)
        volumes = self.proposals(
            features, text, slice_mm, [seed + n for n in range(num_proposals)], steps, on_step, cancelled
        )
        return ProGiDiffOutput(torch.stack(list(volumes)), features.organs.float().cpu())

    def check_inputs(
        self, image: Tensor, pixel_mm: float, slice_mm: float, num_proposals: int, steps: int
    ) -> None:
        """Raises UsageError for what cannot be drawn."""
        if image.dim() != 3 or not len(image) or image.shape[1] % 32 or image.shape[2] % 32:
            raise UsageError(
                f"The slices have the shape {tuple(image.shape)}.",
                "Give (slices, height, width) with height and width multiples of 32.",
            )
        if not torch.isfinite(image).all() or image.abs().max() > 1.001:
            raise UsageError("The slices are not normalised.", "Bring the intensities to [−1, 1] first.")
        if not (pixel_mm > 0 and slice_mm > 0):
            raise UsageError("Pixel size and slice distance must be positive.", "Give both in millimetres.")
        if num_proposals < 1 or not 1 <= steps <= self.scheduler.config.num_train_timesteps:
            raise UsageError(
                f"{num_proposals} proposals in {steps} steps cannot be drawn.",
                "Ask for at least one of each.",
            )

    def encode_prompt(self, prompt: str) -> Tensor:
        """(1, tokens, width) embedding of one prompt."""
        with autocast(self.device):
            return encode_text(self.tokenizer, self.text_encoder, [prompt])

    @torch.no_grad()
    def find_organs(self, image: Tensor) -> Tensor:
        """The coarse pass over the whole volume.

        Args:
            image: (D, H, W) in [−1, 1] at the locator's spacing, canonical orientation.

        Returns:
            (1 + organs, D, H, W) float32 probabilities on the CPU; class 0 is background.
        """
        with autocast(self.device):
            logits = self.locator(image[None, None].to(self.device, torch.float32))
        return logits[0].float().softmax(0).cpu()

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

    def proposals(
        self,
        features: ImageFeatures,
        text: Tensor,
        slice_mm: float,
        seeds: list[int],
        steps: int,
        on_step: OnStep | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Iterator[Tensor]:
        """One probability volume (S, H, W) float32 on the CPU per seed, each as soon as it is drawn."""
        total = steps * len(seeds)
        for number, seed in enumerate(seeds):

            def tick(done: int, before: int = number * steps) -> None:
                if on_step is not None:
                    on_step(before + done, total)

            latents = self.denoise(features, text, slice_mm, seed, steps, tick, cancelled)
            yield self.decode(latents, features, text)

    def denoise(
        self,
        features: ImageFeatures,
        text: Tensor,
        slice_mm: float,
        seed: int,
        steps: int,
        on_step: Callable[[int], None],
        cancelled: Callable[[], bool] | None = None,
    ) -> Tensor:
        """Latents (S, C, h, w) of one proposal: every slice from the same, coherent field of noise.

        Raises:
            Cancelled: between two steps.
            ModelError: the network gave numbers that are not finite.
        """
        generator = torch.Generator().manual_seed(seed)
        latents = self.noise(features, slice_mm, generator)
        self.scheduler.set_timesteps(steps)
        for done, timestep in enumerate(self.scheduler.timesteps, 1):
            if cancelled is not None and cancelled():
                raise Cancelled("The job was cancelled.")
            velocity = self.predict(latents, timestep, features, text)
            fresh = self.noise(features, slice_mm, generator)
            latents = self.scheduler.step(
                velocity, timestep, latents, eta=self.config.eta, variance_noise=fresh
            ).prev_sample
            on_step(done)
        if not torch.isfinite(latents).all():
            raise ModelError(
                "The model computed invalid numbers.", "Try --device cpu, or reinstall the model."
            )
        return latents

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
                down, middle = self.controlnet(
                    latents[b], timestep, words, controlnet_cond=condition, return_dict=False
                )
                parts.append(
                    self.unet(
                        latents[b],
                        timestep,
                        words,
                        down_block_additional_residuals=down,
                        mid_block_additional_residual=middle,
                    ).sample.float()
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
