"""The three qualities that are offered instead of a number of denoising steps, and the limits of numbers."""

from __future__ import annotations

from progidiff.errors import UsageError

QUALITIES = ("draft", "standard", "fine")
MOST_PROPOSALS = 100
MOST_STEPS = 1000
MOST_SEED = 10**15
"""Beyond some ten times of this, programs that read JSON numbers as floats would take another seed."""
VARY_STRENGTH = 0.5
CONSTRAIN_STRENGTH = 0.7


def steps_for(quality: str, default_steps: int) -> int:
    """Denoising steps per proposal: one for a draft, the model's own number, or twice that for fine.

    Raises:
        UsageError: another word.
    """
    check_quality(quality)
    return {"draft": 1, "standard": default_steps, "fine": 2 * default_steps}[quality]


def check_quality(quality: str) -> None:
    """Raises UsageError for a word that is no quality."""
    if quality not in QUALITIES:
        raise UsageError(f"There is no quality {quality!r}.", f"Choose one of: {', '.join(QUALITIES)}.")


def check_numbers(proposals: int, steps: int | None, seed: int) -> None:
    """Raises UsageError for a number of proposals or steps, or a seed, that makes no sense."""
    if not 1 <= proposals <= MOST_PROPOSALS:
        raise UsageError(
            f"{proposals} proposals were asked for.", f"Ask for a number between 1 and {MOST_PROPOSALS}."
        )
    if steps is not None and not 1 <= steps <= MOST_STEPS:
        raise UsageError(f"{steps} steps were asked for.", f"Ask for a number between 1 and {MOST_STEPS}.")
    check_seed(seed)


def check_seed(seed: int) -> None:
    """Raises UsageError for a seed that the random generators do not take."""
    if not 0 <= seed <= MOST_SEED:
        raise UsageError(f"The seed {seed} is out of range.", f"Give a number between 0 and {MOST_SEED}.")


def check_strength(strength: float) -> None:
    """Raises UsageError unless 0 ≤ strength ≤ 1."""
    if not 0.0 <= strength <= 1.0:
        raise UsageError(
            f"The strength {strength} is not between 0 and 1.", "0 changes almost nothing, 1 everything."
        )
