"""TextDiffSeg: text-guided diffusion in three dimensions (arXiv 2504.11825).

The path from prompt to proposals, one method a step, the very steps of ProGiDiff::

    encode_prompt → encode_image (once) → for each proposal: denoise → decode → probability of every voxel

What enters and leaves are stacks of slices (S, …). Inside, slices are an axis the networks convolve
along, and long stacks are computed in overlapping windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from diffusers.utils import BaseOutput
from torch import Tensor
from transformers import BertModel, BertTokenizer

from progidiff.errors import Cancelled, ModelError, UsageError
from progidiff.pipelines.locator import OrganLocator
from progidiff.pipelines.precision import autocast
from progidiff.pipelines.textdiffseg.denoiser import LabelDenoiser
from progidiff.pipelines.textdiffseg.image_encoder import VolumeEncoder, VolumeFeatures
from progidiff.pipelines.textdiffseg.label_autoencoder import LabelAutoencoder
from progidiff.pipelines.textdiffseg.refiner import BorderRefiner
from progidiff.pipelines.textdiffseg.text import PromptTokens, encode_text
from progidiff.pipelines.textdiffseg.text_fusion import TextFusion
from progidiff.pipelines.textdiffseg.windows import Compute, over_windows

OnStep = Callable[[int, int], None]


@dataclass
class TextDiffSegOutput(BaseOutput):
    """What the pipeline returns.

    Attributes:
        probabilities: (proposals, S, H, W) float32 in [0, 1], one volume per proposal.
        organs: (S, 1 + organs, H, W) float32 logits of the image encoder's auxiliary head, the
            deterministic comparison.
    """

    probabilities: Tensor
    organs: Tensor


class TextDiffSegPipeline(DiffusionPipeline):
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
        findings: ids of the findings it was trained on, such as "liver_tumor", separated by spaces (a
            list would read as a part in `model_index.json`).
    """

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
        default_steps: int = 4,
        eta: float = 0.9,
        findings: str = "",
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
        self.register_to_config(default_steps=default_steps, eta=eta, findings=findings)
        self.slices_per_batch = image_encoder.config.window

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
    ) -> TextDiffSegOutput:
        """Draw proposals.

        Args:
            image: (S, H, W) slices in [−1, 1], canonical orientation (rows to posterior, columns to the
                patient's left, slices to superior); H and W multiples of 16.
            prompt: what to draw, such as "segment the liver tumor".
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
        return TextDiffSegOutput(torch.stack(list(volumes)), features.organs.float().cpu())

    def check_inputs(
        self, image: Tensor, pixel_mm: float, slice_mm: float, num_proposals: int, steps: int
    ) -> None:
        """Raises UsageError for what cannot be drawn."""
        if image.dim() != 3 or not len(image) or image.shape[1] % 16 or image.shape[2] % 16:
            raise UsageError(
                f"The slices have the shape {tuple(image.shape)}.",
                "Give (slices, height, width) with height and width multiples of 16.",
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

    def encode_prompt(self, prompt: str) -> PromptTokens:
        """The tokens of one prompt."""
        with autocast(self.device):
            return encode_text(
                self.tokenizer, self.text_encoder, [prompt], enabled=self.text_fusion.config.enabled
            )

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

    def encode_image(self, image: Tensor, pixel_mm: float) -> VolumeFeatures:
        """Features of a stack of slices (S, H, W)."""
        scale = torch.full((1,), pixel_mm, device=self.device)

        def encode(window: Tensor) -> tuple[Tensor, ...]:
            made = self.image_encoder(window, scale)
            return made.control, made.detail, made.organs

        stack = image[:, None].to(self.device, torch.float32)
        return VolumeFeatures(*self._over_windows(encode, stack))

    def proposals(
        self,
        features: VolumeFeatures,
        text: PromptTokens,
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
        features: VolumeFeatures,
        text: PromptTokens,
        slice_mm: float,
        seed: int,
        steps: int,
        on_step: Callable[[int], None],
        cancelled: Callable[[], bool] | None = None,
    ) -> Tensor:
        """Latents (S, C, h, w) of one proposal. All windows start from one field of noise and agree after
        each step.

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
            clean = self.predict(latents, timestep, features, text)
            fresh = self.noise(features, slice_mm, generator)
            latents = self.scheduler.step(
                clean, timestep, latents, eta=self.config.eta, variance_noise=fresh
            ).prev_sample
            on_step(done)
        if not torch.isfinite(latents).all():
            raise ModelError(
                "The model computed invalid numbers.", "Try --device cpu, or reinstall the model."
            )
        return latents

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

        def clean(noisy: Tensor, control: Tensor) -> tuple[Tensor, ...]:
            fused = self.text_fusion(control, text)
            return (self.denoiser(noisy, timestep.to(noisy.device).view(1), fused, text),)

        return self._over_windows(clean, latents, features.control)[0]

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

        def refined(drawn: Tensor, detail: Tensor) -> tuple[Tensor, ...]:
            return (self.refiner(drawn, detail, text),)

        drawn = self._over_windows(logits, latents)[0]
        return self._over_windows(refined, drawn, features.detail)[0][:, 0].sigmoid().cpu()

    def _over_windows(self, compute: Compute, *stacks: Tensor) -> tuple[Tensor, ...]:
        """Windows as long as the model was trained on, or shorter where memory is scarce."""
        longest = min(self.image_encoder.config.window, self.slices_per_batch)
        with autocast(self.device):
            return over_windows(compute, stacks, longest)
