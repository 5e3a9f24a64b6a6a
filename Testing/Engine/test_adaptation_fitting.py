"""Training in rounds: the best one is kept, and a stopped training goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from progidiff.adaptation.fitting import fit, seconds_per_step
from progidiff.errors import Cancelled
from progidiff.training.loop import Losses, Schedule, Stage
from torch import nn


class Line(Stage):
    """Learns the number 3; notes the batch sizes it was asked for."""

    def __init__(self, memory: int = 99) -> None:
        super().__init__()
        self.weight, self.frozen = nn.Parameter(torch.zeros(())), nn.Parameter(torch.ones(()))
        self.frozen.requires_grad_(False)
        self.memory = memory
        self.batches: list[int] = []

    def forward(self, batch: int, rng: np.random.Generator) -> Losses:
        self.batches.append(batch)
        if batch > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"square": (self.weight - 3) ** 2 * self.frozen}


SCHEDULE = Schedule(steps=60, batch=4, learning_rate=0.1, warmup=1, precision="no", weight_decay=0.0)


def distance(stage: Line, goal: float) -> float:
    return abs(float(stage.weight.detach()) - goal)


def test_the_best_round_is_kept_and_not_the_last(tmp_path: Path) -> None:
    stage = Line()
    result = fit(stage, lambda: distance(stage, 1.0), SCHEDULE, tmp_path, rounds=6)
    losses = dict(result.losses)
    assert list(losses)[:3] == [0, 10, 20]
    assert losses[result.steps] == min(losses.values())
    assert 0 < result.steps < max(losses)
    assert distance(stage, 1.0) == pytest.approx(losses[result.steps], abs=1e-6)


def test_training_that_only_makes_it_worse_is_undone_and_stops_early(tmp_path: Path) -> None:
    stage = Line()
    result = fit(stage, lambda: distance(stage, 0.0), SCHEDULE, tmp_path, rounds=6)
    assert result.steps == 0
    assert stage.weight.item() == 0.0
    assert len(result.losses) < 7


def test_without_held_out_cases_all_steps_are_trained(tmp_path: Path) -> None:
    stage = Line()
    result = fit(stage, None, SCHEDULE, tmp_path, rounds=2)
    assert result == type(result)(60, [])
    assert len(stage.batches) == 60
    assert distance(stage, 3.0) < 1.0


def test_a_cancelled_training_goes_on_where_it_was(tmp_path: Path) -> None:
    straight = Line()
    fit(straight, lambda: distance(straight, 3.0), SCHEDULE, tmp_path / "straight", rounds=3)
    first, asked = Line(), [0]

    def cancelled() -> bool:
        asked[0] += 1
        return asked[0] > 27

    with pytest.raises(Cancelled):
        fit(first, lambda: distance(first, 3.0), SCHEDULE, tmp_path / "cut", rounds=3, cancelled=cancelled)
    second = Line()
    result = fit(second, lambda: distance(second, 3.0), SCHEDULE, tmp_path / "cut", rounds=3)
    assert len(first.batches) + len(second.batches) == 60
    assert result.losses[-1][0] == 60
    assert second.weight.item() == pytest.approx(straight.weight.item(), abs=0.2)
    assert len(second.batches) < 40
    again = Line()
    assert fit(again, lambda: distance(again, 3.0), SCHEDULE, tmp_path / "cut", rounds=3) == result
    assert again.batches == []
    assert again.weight.item() == second.weight.item()


def test_batches_shrink_when_memory_runs_out(tmp_path: Path) -> None:
    stage = Line(memory=2)
    fit(stage, None, SCHEDULE, tmp_path, rounds=1)
    assert stage.batches[0] == 4
    assert set(stage.batches[1:]) == {2}
    with pytest.raises(torch.OutOfMemoryError):
        fit(Line(memory=0), None, SCHEDULE, tmp_path / "none", rounds=1)


def test_measuring_the_speed_changes_nothing() -> None:
    stage = Line()
    assert seconds_per_step(stage, 4) > 0
    assert stage.weight.item() == 0.0
    assert stage.weight.grad is None


def test_losses_are_on_disk_after_every_round(tmp_path: Path) -> None:
    stage, seen = Line(), []

    def loss() -> float:
        path = tmp_path / "rounds.json"
        seen.append(json.loads(path.read_text(encoding="utf-8"))["step"] if path.is_file() else -1)
        return distance(stage, 3.0)

    fit(stage, loss, SCHEDULE, tmp_path, rounds=3)
    assert seen == [-1, 0, 20, 40]
