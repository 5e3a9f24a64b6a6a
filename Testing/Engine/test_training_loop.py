"""The loop that all stages share: learning, resuming exactly, stopping, damaged checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from progidiff.errors import ModelError
from progidiff.pipelines import precision as precision_of
from progidiff.training.loop import Losses, Report, Schedule, Stage, _Clock, train
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

SCHEDULE = Schedule(6, 4, 0.05, warmup=0, precision="no", ema_decay=0.9)


class Regression(Stage):
    """Fits a line to the same points in each step, so that two ways of training can be compared."""

    def __init__(self, width: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.line, self.frozen = nn.Linear(3, width), nn.Linear(3, 1).requires_grad_(False)
        self.points = torch.randn(32, 3)
        self.seen: list[tuple[int, float]] = []

    def forward(self, batch: int, rng: np.random.Generator) -> Losses:
        self.seen.append((batch, float(rng.random())))
        target = self.points.sum(1, keepdim=True) + 1
        return {
            "fit": ((self.line(self.points) - target) ** 2).mean(),
            "bias": 0.01 * self.line.bias.abs().sum(),
        }


def run(folder: Path, stage: Stage, schedule: Schedule = SCHEDULE, **options: object) -> dict[str, float]:
    return train(stage, schedule, folder, device="cpu", **options)  # type: ignore[arg-type]


def after(calls: int) -> Callable[[], bool]:
    """Says "stop" from its n-th call on."""
    count = iter(range(10**6))
    return lambda: next(count) >= calls


def state(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoint.safetensors")


def test_it_learns(tmp_path: Path) -> None:
    schedule = replace(SCHEDULE, steps=300)
    losses = run(tmp_path, Regression(), schedule)
    stage = Regression()
    before = stage(1, np.random.default_rng(0))["fit"].item()
    assert losses["fit"] < before / 2 and set(losses) == {"fit", "bias"}


def test_stopped_and_resumed_equals_never_stopped(tmp_path: Path) -> None:
    whole, first, second = Regression(), Regression(), Regression()
    run(tmp_path / "whole", whole)
    run(tmp_path / "parts", first, cancelled=after(3))
    assert int(state(tmp_path / "parts")["adam.step.line.weight"]) == 3
    run(tmp_path / "parts", second)
    a, b = state(tmp_path / "whole"), state(tmp_path / "parts")
    assert set(a) == set(b) and len(second.seen) == 3
    for name, value in a.items():
        assert torch.allclose(value, b[name], atol=1e-6), name
    assert torch.allclose(whole.line.weight, second.line.weight, atol=1e-6)


def test_optimizer_moments_are_restored(tmp_path: Path) -> None:
    """Without them Adam would begin again with steps of full size."""
    run(tmp_path, Regression(), cancelled=after(5))
    kept = state(tmp_path)
    assert kept["adam.exp_avg.line.weight"].abs().max() > 0
    run(tmp_path, Regression())
    assert int(state(tmp_path)["adam.step.line.bias"]) == 6


def test_the_moving_average_is_what_is_left_in_the_stage(tmp_path: Path) -> None:
    stage = Regression()
    run(tmp_path, stage)
    kept = state(tmp_path)
    assert torch.equal(stage.line.weight.detach(), kept["average.line.weight"])
    assert not torch.equal(kept["average.line.weight"], kept["parameter.line.weight"])
    assert not stage.training


def test_frozen_parameters_stay_and_are_not_saved(tmp_path: Path) -> None:
    stage = Regression()
    before = stage.frozen.weight.clone()
    run(tmp_path, stage)
    assert torch.equal(stage.frozen.weight, before)
    assert not [name for name in state(tmp_path) if "frozen" in name]


def test_resumed_training_does_not_repeat_its_batches(tmp_path: Path) -> None:
    first, second = Regression(), Regression()
    run(tmp_path, first, cancelled=after(3))
    run(tmp_path, second)
    assert not {n for _, n in first.seen} & {n for _, n in second.seen}


def test_a_finished_stage_is_only_loaded(tmp_path: Path) -> None:
    trained, again = Regression(), Regression()
    run(tmp_path, trained)
    assert run(tmp_path, again) == {} and not again.seen
    assert torch.equal(trained.line.weight, again.line.weight)


def test_fresh_ignores_the_checkpoint(tmp_path: Path) -> None:
    run(tmp_path, Regression())
    again = Regression()
    run(tmp_path, again, resume=False)
    assert len(again.seen) == 6


def test_time_limit_counts_earlier_runs(tmp_path: Path) -> None:
    stage = Regression()
    run(tmp_path, stage, replace(SCHEDULE, max_minutes=10.0, minutes_done=10.0))
    assert not stage.seen
    run(tmp_path, stage, replace(SCHEDULE, max_minutes=10.0, minutes_done=9.0))
    assert len(stage.seen) == 6


def test_progress_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("progidiff.training.loop._Clock.log_due", lambda self: True)
    reports: list[Report] = []
    run(tmp_path, Regression(), on_progress=reports.append)
    assert [r.step for r in reports] == [1, 2, 3, 4, 5, 6]
    assert all(r.steps == 6 and r.seconds_left >= 0 and set(r.losses) == {"fit", "bias"} for r in reports)
    lines = [
        json.loads(line) for line in (tmp_path / "losses.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_nothing_but_safetensors_and_json_is_written(tmp_path: Path) -> None:
    run(tmp_path, Regression())
    assert {p.suffix for p in tmp_path.iterdir()} <= {".safetensors", ".json", ".jsonl"}
    with safe_open(tmp_path / "checkpoint.safetensors", "pt") as file:
        assert file.metadata() == {"step": "6"}


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_truncated_checkpoint(tmp_path: Path, kept: int) -> None:
    run(tmp_path, Regression())
    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ModelError, match="cannot be continued"):
        run(tmp_path, Regression())


def test_checkpoint_of_another_size(tmp_path: Path) -> None:
    run(tmp_path, Regression())
    with pytest.raises(ModelError, match="cannot be continued"):
        run(tmp_path, Regression(width=2))


@pytest.mark.parametrize(
    ("precision", "hardware", "half"), [("bf16", True, True), ("bf16", False, False), ("no", True, False)]
)
def test_bf16_only_where_the_processor_computes_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, hardware: bool, half: bool
) -> None:
    """Imitated by a processor without it, a step takes up to a hundred times as long."""
    monkeypatch.setattr(precision_of, "cpu_has_bf16", lambda: hardware)
    stage, seen = Regression(), []
    stage.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    run(tmp_path, stage, replace(SCHEDULE, steps=1, precision=precision))
    assert seen == [half]


def factors(schedule: Schedule, first_step: int = 0) -> list[float]:
    clock = _Clock(schedule, first_step)
    return [clock.learning_rate_factor(step) for step in range(first_step, schedule.steps)]


def test_a_short_training_leaves_its_warm_up() -> None:
    """Counted in steps alone, a hundred steps of warm-up would never end in fifty."""
    assert max(factors(replace(SCHEDULE, steps=50, warmup=100))) > 0.95
    long = factors(replace(SCHEDULE, steps=10_000, warmup=100))
    assert long[0] == pytest.approx(0.01, abs=1e-3) and max(long[:99]) < 1 and max(long[99:]) > 0.99


def test_a_continued_training_does_not_warm_up_again() -> None:
    """It has Adam's moments, and learning rates are those of a training in one piece."""
    whole = factors(replace(SCHEDULE, steps=1000, warmup=100))
    assert factors(replace(SCHEDULE, steps=1000, warmup=100), first_step=500) == whole[500:]
