"""Training in rounds: after each the held-out loss is taken, and in the end the best round is kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from progidiff.atomic_files import write_json
from progidiff.errors import Cancelled, ModelError
from progidiff.out_of_memory import is_out_of_memory, release_memory
from progidiff.pipelines.precision import autocast
from progidiff.training.loop import Progress, Schedule, Stage, train
from progidiff.training.safeguards import checkpoint_step

_PATIENCE = 3  # rounds without improvement after which training stops
_LEAST_BATCH = 2


@dataclass(frozen=True)
class Fit:
    """How a training went.

    Attributes:
        steps: of the round that was kept; 0 if training made nothing better.
        losses: (step, held-out loss) of every round, the untrained model first; empty without held-out cases.
    """

    steps: int
    losses: list[tuple[int, float]]


def fit(
    stage: Stage,
    held_out_loss: Callable[[], float] | None,
    schedule: Schedule,
    folder: Path,
    *,
    rounds: int = 6,
    on_progress: Progress | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    device: str = "cpu",
) -> Fit:
    """Train what requires gradients and leave the best round's moving average in it. Resumes by itself.

    Args:
        stage: draws batches and computes losses.
        held_out_loss: of the stage as it is; None trains all steps and keeps the last.
        schedule: with the number of steps.
        folder: checkpoints, `rounds.json`.
        rounds: how often the held-out loss is taken.
        on_progress: called about once a second.
        cancelled: checked every step.
        device: "cpu" or a CUDA device.

    Raises:
        Cancelled: `cancelled` said so; calling again with the same folder continues.
        ModelError: a checkpoint in the folder is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    best, record = folder / "best.safetensors", folder / "rounds.json"
    done: dict[str, Any] = {"step": 0, "losses": []}
    if record.is_file():
        done = json.loads(record.read_text(encoding="utf-8"))
    if held_out_loss is not None and not done["losses"]:
        done["losses"].append([0, held_out_loss()])
        _keep(stage, best)
        write_json(record, done)
    goals = [round(schedule.steps * n / rounds) for n in range(1, rounds + 1)]
    for goal in sorted({g for g in goals if g > done["step"]}):
        if _has_stopped_improving(done["losses"]):
            break
        _train_to(goal, done["step"], stage, schedule, folder, on_progress, cancelled, device)
        if cancelled():
            raise Cancelled("The training was cancelled.", "Start it again to continue where it stopped.")
        done["step"] = goal
        loss = held_out_loss() if held_out_loss is not None else 0.0
        if held_out_loss is None or loss < min(entry[1] for entry in done["losses"]):
            _keep(stage, best)
        if held_out_loss is not None:
            done["losses"].append([goal, loss])
        write_json(record, done)
    _put_back(stage, best)
    losses = [(int(step), float(loss)) for step, loss in done["losses"]]
    return Fit(min(losses, key=lambda entry: entry[1])[0] if losses else done["step"], losses)


def _has_stopped_improving(losses: list[list[float]]) -> bool:
    values = [loss for _, loss in losses]
    return len(values) > _PATIENCE and int(np.argmin(values)) < len(values) - _PATIENCE


def _train_to(
    goal: int,
    step: int,
    stage: Stage,
    schedule: Schedule,
    folder: Path,
    on_progress: Progress | None,
    cancelled: Callable[[], bool],
    device: str,
) -> None:
    """Trains up to step `goal` of the schedule, with smaller batches if memory does not suffice."""
    where = "cpu" if device == "cpu" else "auto"
    while True:
        AcceleratorState._reset_state(True)  # accelerate allows a process one device and precision for good
        vars(stage).pop("forward", None)  # and wraps the stage's forward anew each time
        pause = _Pause(cancelled, checkpoint_step(folder), goal)
        try:
            train(stage, schedule, folder, on_progress=on_progress, cancelled=pause, device=where)
            return
        except Exception as error:
            if not is_out_of_memory(error) or schedule.batch // 2 < _LEAST_BATCH:
                raise
        stage.zero_grad(set_to_none=True)
        release_memory()
        schedule = replace(schedule, batch=schedule.batch // 2)


class _Pause:
    """Answers the loop's question before each step: stop when the goal is reached, or when cancelled."""

    def __init__(self, cancelled: Callable[[], bool], step: int, goal: int) -> None:
        self.cancelled, self.left = cancelled, goal - step

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0 or self.cancelled()


def _trainable(stage: Stage) -> dict[str, nn.Parameter]:
    return {name: p for name, p in stage.named_parameters() if p.requires_grad}


def _keep(stage: Stage, path: Path) -> None:
    tensors = {name: p.detach().cpu().contiguous().clone() for name, p in _trainable(stage).items()}
    unfinished = path.with_suffix(".partial")
    save_file(tensors, unfinished)
    unfinished.replace(path)


def _put_back(stage: Stage, path: Path) -> None:
    try:
        tensors = load_file(path)
        for name, parameter in _trainable(stage).items():
            parameter.data.copy_(tensors[name])
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> ModelError:
    return ModelError(f"The checkpoint {path} is damaged.", "Delete its folder and start the training again.")


def seconds_per_step(stage: Stage, batch: int) -> float:
    """Time of one training step; the first of two is not counted, because it warms up. Changes nothing."""
    rng, seconds = np.random.default_rng(0), 0.0
    stage.train()
    for _ in range(2):
        start = time.monotonic()
        device = next(stage.parameters()).device
        with torch.random.fork_rng(), autocast(device):
            loss = torch.stack(list(stage(batch, rng).values())).sum()
        loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.monotonic() - start
    stage.zero_grad(set_to_none=True)
    stage.eval()
    return seconds
