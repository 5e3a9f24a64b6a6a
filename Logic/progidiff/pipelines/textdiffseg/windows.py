"""Long stacks in overlapping windows along the slices: memory stays bounded, seams do not show."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from progidiff.pipelines.textdiffseg.blocks import as_stack, as_volume

BLOCK = 4
"""Windows begin and end at multiples of this many slices, the deepest stride of the networks."""

Compute = Callable[..., tuple[Tensor, ...]]
"""Volumes (1, C, D, H, W) of one window → volumes of the same D."""


def windows(length: int, longest: int) -> list[slice]:
    """Windows of equal length, at least a quarter of it shared by neighbours, that cover a stack.

    Args:
        length: slices of the stack, a multiple of `BLOCK`.
        longest: slices that are computed at once, at least two blocks.
    """
    longest = max(2, longest // BLOCK)
    blocks = length // BLOCK
    if blocks <= longest:
        return [slice(0, length)]
    shared = math.ceil(longest / 4)
    count = math.ceil((blocks - shared) / (longest - shared))
    size = math.ceil((blocks + (count - 1) * shared) / count)
    starts = (round(n * (blocks - size) / (count - 1)) for n in range(count))
    return [slice(start * BLOCK, (start + size) * BLOCK) for start in starts]


def over_windows(compute: Compute, stacks: tuple[Tensor, ...], longest: int) -> tuple[Tensor, ...]:
    """Compute window by window and blend where windows overlap.

    Args:
        compute: sees one window of all stacks.
        stacks: (S, C, H, W) each; the last slice is repeated to fill a block.
        longest: see `windows`.

    Returns:
        Stacks of S slices, float32.
    """
    count = len(stacks[0])
    missing = -count % BLOCK
    volumes = [F.pad(as_volume(s), (0, 0, 0, 0, 0, missing), mode="replicate") for s in stacks]
    sums: list[Tensor] = []
    total = torch.zeros(count + missing, 1, 1, device=stacks[0].device)
    for window in windows(count + missing, longest):
        parts = compute(*(volume[:, :, window] for volume in volumes))
        weight = _weight(window.stop - window.start).to(total.device)
        total[window] += weight
        for n, part in enumerate(parts):
            if len(sums) <= n:
                sums.append(total.new_zeros(*part.shape[:2], len(total), *part.shape[3:]))
            sums[n][:, :, window] += part.float() * weight
    return tuple(as_stack(part / total)[:count] for part in sums)


def _weight(length: int) -> Tensor:
    """(D, 1, 1): falls towards the window's ends, where the network sees the least."""
    ramp = torch.arange(1.0, length + 1)
    return torch.minimum(ramp, ramp.flip(0)).clamp(max=length / 4)[:, None, None]
