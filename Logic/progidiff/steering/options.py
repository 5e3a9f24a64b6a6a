"""How many, how fast, from which seed: the settings that all ways of steering share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from progidiff.proposals import Proposal


@dataclass(frozen=True)
class SteerOptions:
    """What `vary` and `constrain` share with `Segmenter.propose`.

    Attributes:
        proposals: how many.
        steps: denoising steps of a whole descent, the model's own number by default.
        seed: proposal n is drawn from seed + n.
        prompt: what the user typed, for the record.
        on_step: called with (network evaluations done, in all).
        on_proposal: called with each proposal as soon as it is drawn.
        cancelled: asked between the evaluations.
    """

    proposals: int = 5
    steps: int | None = None
    seed: int = 0
    prompt: str = ""
    on_step: Callable[[int, int], None] | None = None
    on_proposal: Callable[[Proposal], None] | None = None
    cancelled: Callable[[], bool] | None = None
