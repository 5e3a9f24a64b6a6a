"""The three trainings of an adaptation: where the organs are, what they look like, how to draw them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from progidiff.adaptation.fitting import Fit, fit, seconds_per_step
from progidiff.adaptation.progress import Meter
from progidiff.adaptation.settings import KINDS, AdaptSettings
from progidiff.adaptation.teaching import Packed, Part, coarse_pieces
from progidiff.pipelines.precision import autocast
from progidiff.prompts import organ_table
from progidiff.training.case_store import PackedCase, pack_case
from progidiff.training.drawing import drawing_stage, draws_volumes, seeing_stage
from progidiff.training.locator import LocatorStage
from progidiff.training.locator_data import CoarsePatches
from progidiff.training.loop import Report, Schedule, Stage
from progidiff.training.phantom import make_phantom
from progidiff.volumes import normalise

if TYPE_CHECKING:
    from progidiff.pipelines.progidiff.pipeline import ProGiDiffPipeline

_FIRST_PHANTOM = 920_000
_HELD_OUT_BATCHES = {"find": 2, "see": 4, "draw": 2}  # "see" is cheap to ask and gains the most


class Lessons:
    """Makes the training stages over whatever of the pipeline requires gradients.

    Args:
        pipeline: with its low-rank layers attached while training.
        settings: of the adaptation.
        work: folder of the checkpoints.
    """

    def __init__(self, pipeline: ProGiDiffPipeline, settings: AdaptSettings, work: Path) -> None:
        self.pipeline, self.settings, self.work = pipeline, settings, work
        self._packed = Packed()

    def pack(self, part: Part) -> PackedCase:
        """A part of a stored case, ready for training."""
        return self._packed.pack(part)

    @cached_property
    def phantoms(self) -> list[PackedCase]:
        """Synthesised patients with every organ, against forgetting."""
        numbers = tuple(organ.label for organ in organ_table().organs)
        packed = []
        for n in range(self.settings.phantoms):
            for modality in ("CT", "MR"):
                image, label = make_phantom(_FIRST_PHANTOM + n, modality, (128, 128, 32), (2.7, 2.7, 6.0))  # type: ignore[arg-type]
                packed.append(pack_case(image.name, normalise(image).array, label, numbers, "phantom"))
        return packed

    def train(
        self,
        name: str,
        teaching: list[PackedCase],
        judging: list[PackedCase],
        steps: int,
        meter: Meter,
        cancelled: Callable[[], bool],
    ) -> Fit | None:
        """One training; None where the cases have nothing to teach it.

        Args:
            name: one of `TRAININGS`; also names the folder.
            teaching, judging: packed cases; without judging ones all steps are trained and the last is kept.
            steps: how many.
            meter: told where it stands.
            cancelled: checked every step.

        Raises:
            Cancelled: it said so; calling again continues.
        """
        kind = name.removesuffix("_all")
        if steps < 1:
            return None
        stage = self._stage(kind, teaching, self.phantoms, self.settings.appearance)
        if stage is None:
            return None

        def report(r: Report) -> None:
            meter.at(r.step / max(1, r.steps), r.step, r.steps, sum(r.losses.values()))

        loss = self._held_out_loss(kind, judging)

        def held_out_loss() -> float:
            assert loss is not None
            meter.held_out_loss = loss()
            return meter.held_out_loss

        meter.held_out_loss = None
        seed = self.settings.seed + (1000 if name.endswith("_all") else 0)
        return fit(
            stage,
            None if loss is None else held_out_loss,
            self.schedule(kind, steps, seed),
            self.work / name,
            rounds=self.settings.rounds,
            on_progress=report,
            cancelled=cancelled,
            device=self.pipeline.device.type,
        )

    def _batch(self, kind: str) -> int:
        """Pieces of volumes hold many slices: fewer of them make a batch."""
        if kind == "find":
            return self.settings.locator_batch
        return self._drawn_at_once

    @property
    def _drawn_at_once(self) -> int:
        return self.settings.volume_batch if draws_volumes(self.pipeline) else self.settings.batch

    def schedule(self, kind: str, steps: int, seed: int) -> Schedule:
        """Of one of `KINDS` of training."""
        settings = self.settings
        rates = {
            "find": settings.locator_learning_rate,
            "see": settings.encoder_learning_rate,
            "draw": settings.learning_rate,
        }
        return Schedule(
            steps=steps,
            batch=self._batch(kind),
            learning_rate=rates[kind],
            warmup=min(20, max(1, steps // 20)),
            weight_decay=0.0,
            checkpoint_minutes=1.0,
            seed=seed,
        )

    def seconds_per_step(self, teaching: list[PackedCase]) -> dict[str, float]:
        """By kind of training."""
        speeds = {}
        for kind in KINDS:
            stage = self._stage(kind, teaching, self.phantoms, self.settings.appearance)
            batch = self._batch(kind)
            speeds[kind] = seconds_per_step(stage, batch) if stage is not None else 1.0
        return speeds

    def _stage(
        self, kind: str, cases: list[PackedCase], phantoms: list[PackedCase], appearance: float
    ) -> Stage | None:
        """None where the cases have nothing to teach; phantoms alone are not worth a training."""
        if kind == "find":
            return self._locator_stage(cases, phantoms, appearance)
        if not any(case.boxes for case in cases):  # a few voxels are no organ to draw crops around
            return None
        make = self.seeing_stage if kind == "see" else self.drawing_stage
        return make([*cases, *phantoms], appearance)

    def _locator_stage(
        self, cases: list[PackedCase], phantoms: list[PackedCase], appearance: float
    ) -> LocatorStage | None:
        pieces = [piece for case in cases for piece in coarse_pieces(case)]
        if not pieces:
            return None
        locator = self.pipeline.locator
        cases = [*pieces, *phantoms]
        patches = CoarsePatches(cases, self.settings.patch, locator.config.spacing, appearance=appearance)
        return LocatorStage(locator, patches)

    def seeing_stage(self, cases: list[PackedCase], appearance: float) -> Stage:
        """What learns to tell organs apart, by itself."""
        return seeing_stage(self.pipeline, cases, appearance)

    def drawing_stage(self, cases: list[PackedCase], appearance: float) -> Stage:
        """What learns to draw; the benchmark puts a plain U-Net here."""
        return drawing_stage(self.pipeline, cases, appearance)

    def _held_out_loss(self, kind: str, cases: list[PackedCase]) -> Callable[[], float] | None:
        """The loss on the same few batches each time, with the same noise; None without cases."""
        if not cases:
            return None
        stage = self._stage(kind, cases, [], 0.0)
        if stage is None:
            return None
        batch = self._batch(kind) * (2 if kind == "find" else 1)
        batches = _HELD_OUT_BATCHES[kind]
        stage.eval()

        @torch.no_grad()
        def loss() -> float:
            total = 0.0
            with torch.random.fork_rng(), autocast(self.pipeline.device):
                for n in range(batches):
                    torch.manual_seed(n)
                    total += float(sum(stage(batch, np.random.default_rng(n)).values()))
            return total / batches

        return loss
