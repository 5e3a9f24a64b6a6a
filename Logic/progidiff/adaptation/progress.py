"""Where an adaptation stands: one bar over all its stages."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from progidiff.adaptation.settings import TRAININGS, AdaptSettings

STAGES = {
    "read": "Reading the cases",
    "before": "Measuring the model before",
    "find": "Learning where the organs are",
    "see": "Learning what they look like",
    "draw": "Learning to draw them",
    "after": "Measuring the adapter on what it has not seen",
    "find_all": "Learning from all cases where the organs are",
    "see_all": "Learning from all cases what they look like",
    "draw_all": "Learning from all cases to draw them",
    "check": "Checking that nothing was forgotten",
}


@dataclass(frozen=True)
class AdaptProgress:
    """One report.

    Attributes:
        stage: key of `STAGES`, `text` what it says to the user.
        fraction: of the whole adaptation, 0…1; never falls.
        seconds_left: of the whole adaptation.
        step, steps: of the training that runs, 0 outside.
        loss: running training loss, None outside.
        held_out_loss: last one taken, None if none was.
    """

    stage: str
    text: str
    fraction: float
    seconds_left: float
    step: int = 0
    steps: int = 0
    loss: float | None = None
    held_out_loss: float | None = None


_OTHERS = {"read": 0.01, "before": 0.06, "after": 0.05, "check": 0.04}  # the rest is training
_ENOUGH = 0.1  # share of a stage from which its own pace says more than what was expected
OnAdaptProgress = Callable[[AdaptProgress], None]


class Meter:
    """Turns the progress of each stage into that of the whole, by what the stages are expected to take.

    Args:
        on_progress: gets the reports.
        seconds: expected of the whole.
    """

    def __init__(self, on_progress: OnAdaptProgress | None, seconds: float) -> None:
        self._on_progress = on_progress
        training, settings = 1 - sum(_OTHERS.values()), AdaptSettings()
        shares = _OTHERS | {name: training * settings.share(name) for name in TRAININGS}
        self.expected = {stage: seconds * share for stage, share in shares.items()}
        self.held_out_loss: float | None = None
        self._stage, self._done, self._fraction = "read", 0.0, 0.0
        self._start = time.monotonic()

    def begin(self, stage: str) -> None:
        """The stage before has ended; it took what it took."""
        taken = time.monotonic() - self._start
        if stage != self._stage:
            self.expected[self._stage] = taken
            self._done += taken
        self._stage, self._start = stage, time.monotonic()
        self.at(0.0)

    def expect(self, stage: str, seconds: float) -> None:
        """Now it is known better how long a stage will take."""
        self.expected[stage] = seconds

    def at(self, share: float, step: int = 0, steps: int = 0, loss: float | None = None) -> None:
        """The present stage is done by `share`."""
        if self._on_progress is None:
            return
        stages = list(STAGES)
        later = sum(self.expected[stage] for stage in stages[stages.index(self._stage) + 1 :])
        elapsed = time.monotonic() - self._start
        present = elapsed / share if share >= _ENOUGH else max(self.expected[self._stage], elapsed)
        left = later + present * (1 - share)
        done = self._done + elapsed
        self._fraction = max(self._fraction, done / max(done + left, 1e-9))
        self._on_progress(
            AdaptProgress(
                self._stage, STAGES[self._stage], self._fraction, left, step, steps, loss, self.held_out_loss
            )
        )
