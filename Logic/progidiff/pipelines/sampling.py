"""Denoising that starts half-way and holds on to what is known: arithmetic on latents, no networks.

- From a given mask: add noise up to a level and denoise from there (SDEdit, Meng et al., ICLR 2022).
- With known parts: after each step they are replaced by the noised known ones, and each step is taken
  several times, with noise added in between, until the unknown rest suits them (RePaint, Lugmayr et al.,
  CVPR 2022).

A *level* counts noising steps: 0 is clean, the scheduler's number of training steps is all noise. The
network that is asked at level n is given timestep n − 1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from progidiff.pipelines.progidiff.diffusion import clean_from_output

Predict = Callable[[Tensor, Tensor], Tensor]
"""(latents (S, C, h, w), timestep ()) → the network's output of the same shape."""


@dataclass(frozen=True)
class KnownLatents:
    """Latents that are not to change.

    Attributes:
        clean: (S, C, h, w), without noise; read only where known.
        cells: (S, 1, h, w) bool, where they are known.
    """

    clean: Tensor
    cells: Tensor


def levels_between(strength: float, steps: int, highest: int) -> list[int]:
    """The levels to pass through, from the one that belongs to `strength` down to 0.

    Args:
        strength: 0 (stay) … 1 (start from pure noise).
        steps: denoising steps of a whole descent. A part of it takes its share of them, but at least two,
            because the answer of a single step is an average of all that is possible.
        highest: level of pure noise.
    """
    start = round(strength * highest)
    count = min(steps, start, max(2, math.ceil(steps * strength - 1e-9)))
    return [round(start * n / count) for n in range(count, 0, -1)] + [0]


def step_plan(levels: Sequence[int], resamplings: int) -> list[tuple[int, int]]:
    """(from, to) of every step: each pair of neighbouring levels `resamplings` times, the last one once."""
    pairs = itertools.pairwise(levels)
    return [pair for pair in pairs for _ in range(resamplings if pair[1] > 0 else 1)]


def signal_at(scheduler: DDIMScheduler, level: int) -> Tensor:
    """ᾱ: the share of the clean latents' variance that is left at a level, a float32 scalar."""
    return scheduler.alphas_cumprod[level - 1] if level > 0 else torch.ones(())


def add_noise(scheduler: DDIMScheduler, latents: Tensor, noise: Tensor, lower: int, upper: int) -> Tensor:
    """Latents at level `lower` → level `upper`: x_u = √(ᾱ_u/ᾱ_l)·x_l + √(1 − ᾱ_u/ᾱ_l)·noise."""
    kept = signal_at(scheduler, upper) / signal_at(scheduler, lower)
    return kept.sqrt() * latents + (1 - kept).clamp(min=0).sqrt() * noise


def step_down(
    scheduler: DDIMScheduler, noisy: Tensor, clean: Tensor, noise: Tensor, upper: int, lower: int, eta: float
) -> Tensor:
    """One step of DDIM (Song et al., ICLR 2021, equation 12) between any two levels.

    Args:
        noisy: latents at level `upper`.
        clean: the clean latents that are believed to be in them.
        noise: fresh noise.
        eta: 0 adds none of it, 1 as much as DDPM.
    """
    a_upper, a_lower = signal_at(scheduler, upper), signal_at(scheduler, lower)
    direction = (noisy - a_upper.sqrt() * clean) / (1 - a_upper).sqrt()
    variance = (1 - a_lower) / (1 - a_upper) * (1 - a_upper / a_lower)
    sigma = eta * variance.clamp(min=0).sqrt()
    rest = (1 - a_lower - sigma**2).clamp(min=0).sqrt()
    return a_lower.sqrt() * clean + rest * direction + sigma * noise


def descend(
    scheduler: DDIMScheduler,
    predict: Predict,
    start: Tensor,
    levels: Sequence[int],
    noise: Callable[[], Tensor],
    eta: float,
    known: KnownLatents | None = None,
    correct: Callable[[Tensor], Tensor] | None = None,
    resamplings: int = 1,
    before_step: Callable[[], None] = lambda: None,
) -> Tensor:
    """Clean latents: noise `start` up to the first level and denoise through all the others.

    Args:
        scheduler: its schedule and prediction type are used, not its timesteps.
        predict: the network.
        start: (S, C, h, w) clean latents to begin with.
        levels: falling, the last one 0; from `levels_between`.
        noise: gives fresh unit noise of the latents' shape.
        eta: see `step_down`.
        known: held on to at each level; the result has exactly these latents where they are known.
        correct: changes each estimate of the clean latents towards what is known less firmly.
        resamplings: how often each step is taken.
        before_step: called before each evaluation of the network; may raise.
    """
    level = levels[0]
    latents = add_noise(scheduler, start, noise(), 0, level)
    for upper, lower in step_plan(levels, resamplings):
        before_step()
        if level < upper:
            latents = add_noise(scheduler, latents, noise(), level, upper)
        timestep = torch.tensor(upper - 1)
        output = predict(latents, timestep)
        clean = clean_from_output(scheduler, latents, output, timestep.expand(len(latents)))
        if correct is not None:
            clean = correct(clean)
        latents = step_down(scheduler, latents, clean, noise(), upper, lower, eta)
        level = lower
        if known is not None:
            held = add_noise(scheduler, known.clean, noise(), 0, level)
            latents = torch.where(known.cells, held, latents)
    return latents
