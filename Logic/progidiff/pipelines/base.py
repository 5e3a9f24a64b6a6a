"""What the models have in common: the path from a prompt to proposals, one method a step.

    encode_prompt, encode_image, first_sight (once) → for each proposal: denoise → decode → probabilities

A model adds its parts and how it encodes, predicts and decodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from torch import Tensor

from progidiff.errors import Cancelled, ModelError, UsageError
from progidiff.pipelines.precision import autocast
from progidiff.pipelines.registry import SegmentationPipeline

OnStep = Callable[[int, int], None]
_FIRST_NOISE = 3_000_017  # seed of the noise that `first_sight` shows to the network


@dataclass
class ProposalsOutput(BaseOutput):
    """What a pipeline returns.

    Attributes:
        probabilities: (proposals, S, H, W) float32 in [0, 1]: how likely each pixel of each slice belongs
            to the organ of the prompt, one volume per proposal.
        organs: (S, 1 + organs, H, W) float32 logits of the image encoder's auxiliary head, the
            deterministic comparison.
    """

    probabilities: Tensor
    organs: Tensor


class ProposalsPipeline(DiffusionPipeline, SegmentationPipeline):
    """Draws masks of what a prompt names on a stack of slices.

    A model registers its parts and settings in `__init__`, where diffusers looks for them, and defines
    `encode_prompt`, `encode_image`, `noise`, `predict`, `encode_mask`, `decode_mask` and `decode`.
    """

    edge_multiple: int
    """Height and width of the slices must be multiples of this."""

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
    ) -> ProposalsOutput:
        """Draw proposals.

        Args:
            image: (S, H, W) slices in [−1, 1], canonical orientation (rows to posterior, columns to the
                patient's left, slices to superior); H and W multiples of `edge_multiple`.
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
        seeds = [seed + n for n in range(num_proposals)]
        volumes = self.proposals(features, text, slice_mm, seeds, steps, on_step, cancelled)
        return ProposalsOutput(torch.stack(list(volumes)), features.organs.float().cpu())

    def check_inputs(
        self, image: Tensor, pixel_mm: float, slice_mm: float, num_proposals: int, steps: int
    ) -> None:
        """Raises UsageError for what cannot be drawn."""
        if image.dim() != 3 or not len(image) or any(edge % self.edge_multiple for edge in image.shape[1:]):
            raise UsageError(
                f"The slices have the shape {tuple(image.shape)}.",
                f"Give (slices, height, width) with height and width multiples of {self.edge_multiple}.",
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

    def proposals(
        self,
        features: Any,
        text: Any,
        slice_mm: float,
        seeds: list[int],
        steps: int,
        on_step: OnStep | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Iterator[Tensor]:
        """One probability volume (S, H, W) float32 on the CPU per seed, each as soon as it is drawn."""
        total = steps * len(seeds)
        first = self.first_sight(features, text, slice_mm, steps)
        for number, seed in enumerate(seeds):

            def tick(done: int, before: int = number * steps) -> None:
                if on_step is not None:
                    on_step(before + done, total)

            latents = self.denoise(features, text, slice_mm, seed, steps, tick, cancelled, first)
            yield self.decode(latents, features, text)

    @torch.no_grad()
    def first_sight(self, features: Any, text: Any, slice_mm: float, steps: int) -> Tensor | None:
        """The network's answer (S, C, h, w) to pure noise, which all proposals begin with.

        At zero terminal SNR the first step's noise says nothing of the mask, so that the best answer to any
        noise is the same: the mean of all masks that the image allows. It is asked for once; by their own
        noise the proposals go apart in the steps that follow.

        Returns:
            None where each proposal has to ask for itself: its first step is its last one, or the schedule
            leaves some signal in it.
        """
        if steps == 1 or not self.scheduler.config.rescale_betas_zero_snr:
            return None
        self.scheduler.set_timesteps(steps)
        latents = self.noise(features, slice_mm, torch.Generator().manual_seed(_FIRST_NOISE))
        return self.predict(latents, self.scheduler.timesteps[0], features, text)

    def denoise(
        self,
        features: Any,
        text: Any,
        slice_mm: float,
        seed: int,
        steps: int,
        on_step: Callable[[int], None],
        cancelled: Callable[[], bool] | None = None,
        first: Tensor | None = None,
    ) -> Tensor:
        """Latents (S, C, h, w) of one proposal, all slices from one field of noise.

        Args:
            features, text: from `encode_image` and `encode_prompt`.
            slice_mm: distance of slices in mm.
            seed: of the noise.
            steps: how often noise is taken away.
            on_step: called with the number of steps done.
            cancelled: asked before each of them.
            first: from `first_sight`, the answer to the first step.

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
            given = first if done == 1 else None
            output = self.predict(latents, timestep, features, text) if given is None else given
            fresh = self.noise(features, slice_mm, generator)
            latents = self.scheduler.step(
                output, timestep, latents, eta=self.config.eta, variance_noise=fresh
            ).prev_sample
            on_step(done)
        if not torch.isfinite(latents).all():
            raise ModelError(
                "The model computed invalid numbers.", "Try --device cpu, or reinstall the model."
            )
        return latents
