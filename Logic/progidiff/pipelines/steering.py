"""New masks near a given one, or around what is known of them, by any of the models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from progidiff.errors import Cancelled, ModelError
from progidiff.pipelines.doubt import doubted
from progidiff.pipelines.registry import Features, SegmentationPipeline
from progidiff.pipelines.sampling import KnownLatents, descend, levels_between, step_plan
from progidiff.quality import check_strength

RESAMPLINGS = 2
"""How often a step is taken when parts of the result are known."""

_CERTAIN = 0.999  # weight from which a pixel counts as known
_LEAST_WEIGHT = 0.05  # weight below which a pixel is left to the model
_NEIGHBOURS = 4  # slices beside a hint that an autoencoder of volumes may need to see
_OTHER_NOISE = 1_000_003  # a mask must not be varied with the very noise that it was drawn from


@dataclass(frozen=True)
class Knowledge:
    """What is known of the mask before it is drawn.

    Attributes:
        value: (S, H, W) in [0, 1], the mask where it is known.
        weight: (S, H, W) in [0, 1]: 1 known for certain, 0 not at all, between them a hint.
    """

    value: Tensor
    weight: Tensor

    def painted(self, mask: Tensor) -> Tensor:
        """`mask` (S, H, W) with the knowledge painted over it."""
        return torch.lerp(mask, self.value.to(mask), self.weight.to(mask))

    def of_slices(self, slices: slice) -> Knowledge:
        """The knowledge of some slices."""
        return Knowledge(self.value[slices], self.weight[slices])

    def certain_cells(self, edge: int) -> Tensor:
        """(S, 1, H/edge, W/edge) bool: the latent cells of which every pixel is known for certain."""
        return -F.max_pool2d(-self.weight[:, None], edge) >= _CERTAIN

    def hinted_cells(self, edge: int) -> Tensor:
        """(S, 1, H/edge, W/edge) bool: cells with some knowledge, and their neighbours.

        The neighbours count because the autoencoder looks beyond a cell's border.
        """
        some = F.max_pool2d(self.weight[:, None], edge)
        return F.max_pool2d(some, 3, stride=1, padding=1) > _LEAST_WEIGHT


class SteeredSampler:
    """Draws masks of one organ on one stack of slices, from a mask and from what is known.

    Args:
        pipeline: the model.
        features: of the slices, from `encode_image`.
        text: from `encode_prompt`.
        spacing: (slices, rows, columns) in mm.
        strength: 0 gives the mask to start from (through the autoencoder), 1 forgets it.
        steps: denoising steps of a whole descent; `strength` takes its share of them.
        knowledge: held on to, or None.
        doubt: logits by which every mask may read the image differently, see `doubted`.

    Raises:
        UsageError: a strength that is not between 0 and 1.
    """

    def __init__(
        self,
        pipeline: SegmentationPipeline,
        features: Features,
        text: Any,
        spacing: tuple[float, float, float],
        strength: float,
        steps: int,
        knowledge: Knowledge | None = None,
        doubt: float = 0.0,
    ) -> None:
        check_strength(strength)
        self._pipeline, self._features, self._text, self._spacing = pipeline, features, text, spacing
        self._knowledge = knowledge
        self._doubt = doubt
        self._levels = levels_between(strength, steps, pipeline.scheduler.config.num_train_timesteps)
        self._resamplings = 1 if knowledge is None else RESAMPLINGS

    def evaluations(self, with_draft: bool) -> int:
        """How often the network is asked for one mask; `with_draft` if there is none to start from."""
        return len(step_plan(self._levels, self._resamplings)) + int(with_draft)

    @torch.no_grad()
    def draw(
        self,
        guess: Tensor | None,
        seed: int,
        on_step: Callable[[int], None],
        cancelled: Callable[[], bool] | None = None,
    ) -> Tensor:
        """One probability volume (S, H, W), float32 on the CPU.

        Args:
            guess: (S, H, W) mask in [0, 1] to start from; None starts from a draft of the model's own.
            seed: of the noise.
            on_step: called with the number of network evaluations done.
            cancelled: asked before each of them.

        Raises:
            Cancelled: `cancelled` said so.
            ModelError: the network gave numbers that are not finite.
        """
        evaluations = 0

        def before_step() -> None:
            nonlocal evaluations
            if cancelled is not None and cancelled():
                raise Cancelled("The job was cancelled.")
            if evaluations:
                on_step(evaluations)
            evaluations += 1

        generator = torch.Generator().manual_seed(seed + _OTHER_NOISE)
        seen = doubted(self._features, self._doubt, self._spacing, seed + _OTHER_NOISE)
        if guess is None:
            guess = self._draft(seen, generator, before_step)
        latents = self._descend(guess, seen, generator, before_step)
        if not torch.isfinite(latents).all():
            raise ModelError(
                "The model computed invalid numbers.", "Try --device cpu, or reinstall the model."
            )
        if evaluations:
            on_step(evaluations)
        return self._pipeline.decode(latents, seen, self._text)

    def _draft(self, seen: Features, generator: torch.Generator, before_step: Callable[[], None]) -> Tensor:
        """(S, H, W): what the model thinks at first sight, in one step from pure noise."""
        highest = self._pipeline.scheduler.config.num_train_timesteps
        start = torch.zeros_like(self._noise(generator))
        latents = self._run(start, [highest, 0], seen, generator, before_step)
        return self._pipeline.decode_mask(latents)

    def _descend(
        self, guess: Tensor, seen: Features, generator: torch.Generator, before_step: Callable[[], None]
    ) -> Tensor:
        if self._knowledge is None:
            start = self._pipeline.encode_mask(guess)
            return self._run(start, self._levels, seen, generator, before_step)
        start = self._pipeline.encode_mask(self._knowledge.painted(guess))
        edge = guess.shape[-1] // start.shape[-1]
        certain = self._knowledge.certain_cells(edge).to(start.device)
        hints = self._knowledge.hinted_cells(edge).to(start.device) & ~certain
        return self._run(
            start,
            self._levels,
            seen,
            generator,
            before_step,
            known=KnownLatents(start, certain),
            correct=(lambda clean: self._follow_hints(clean, hints)) if bool(hints.any()) else None,
        )

    def _run(
        self,
        start: Tensor,
        levels: list[int],
        seen: Features,
        generator: torch.Generator,
        before_step: Callable[[], None],
        known: KnownLatents | None = None,
        correct: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        return descend(
            self._pipeline.scheduler,
            lambda latents, timestep: self._pipeline.predict(latents, timestep, seen, self._text),
            start,
            levels,
            noise=lambda: self._noise(generator),
            eta=self._pipeline.config.eta,
            known=known,
            correct=correct,
            resamplings=1 if known is None else self._resamplings,
            before_step=before_step,
        )

    def _follow_hints(self, clean: Tensor, hints: Tensor) -> Tensor:
        """Paints hints that are smaller than a latent cell: decode, paint, encode, in the cells they touch.

        Knowledge of whole cells can be kept as latents; that of a point or a border can only be drawn
        into the picture (compare the hard data consistency of Song et al., ICLR 2024).
        """
        assert self._knowledge is not None
        touched = hints.flatten(1).any(1).nonzero()[:, 0]
        here = slice(max(0, int(touched[0]) - _NEIGHBOURS), int(touched[-1]) + 1 + _NEIGHBOURS)
        picture = self._pipeline.decode_mask(clean[here])
        painted = self._pipeline.encode_mask(self._knowledge.of_slices(here).painted(picture))
        result = clean.clone()
        result[here] = torch.where(hints[here], painted, clean[here])
        return result

    def _noise(self, generator: torch.Generator) -> Tensor:
        return self._pipeline.noise(self._features, self._spacing[0], generator)
