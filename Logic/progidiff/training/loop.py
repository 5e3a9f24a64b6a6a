"""The training loop every stage shares: accelerate, EMA, resumable checkpoints, progress with time left.

A stage hands over a module and a function that draws a batch and returns its losses; the loop does
the rest, on one CPU, one GPU, or many under `accelerate launch`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import broadcast
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from progidiff.errors import ModelError
from progidiff.pipelines.precision import autocast
from progidiff.training.optimizers import Muon, build_optimizers

_WARMUP_SHARE = 0.05
_MOMENTS = {"adam": ("step", "exp_avg", "exp_avg_sq"), "muon": ("momentum",)}

Losses = dict[str, Tensor]
Progress = Callable[["Report"], None]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a stage trains; read from the configuration files."""

    steps: int
    batch: int
    learning_rate: float
    warmup: int = 100
    weight_decay: float = 0.01
    optimizer: str = "adamw"  # or "muon", see `optimizers`
    ema_decay: float = 0.999
    gradient_clip: float = 1.0
    precision: str = "bf16"  # "bf16" (where the processor computes in it, else fp32) or "no"
    checkpoint_minutes: float = 5.0
    max_minutes: float = math.inf
    seed: int = 0
    minutes_done: float = 0.0  # of `max_minutes`, by earlier runs that this one resumes


@dataclass(frozen=True)
class Report:
    """Where the training stands, for progress bars."""

    step: int
    steps: int
    losses: dict[str, float]
    seconds_left: float


class Stage(nn.Module):
    """A module whose forward draws a batch and returns named losses; subclass per training stage."""

    def forward(self, batch: int, rng: np.random.Generator) -> Losses:
        raise NotImplementedError


def train(
    stage: Stage,
    schedule: Schedule,
    folder: Path,
    *,
    resume: bool = True,
    on_progress: Progress | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    device: str = "auto",
) -> dict[str, float]:
    """Train the parameters of `stage` that require gradients and leave their moving average in it.

    Args:
        stage: draws batches and computes losses.
        schedule: steps, batch size, learning rate and so on.
        folder: checkpoints and `losses.jsonl` are written here.
        resume: continue from the checkpoint in `folder` if there is one.
        on_progress: called about once a second.
        cancelled: checked every step; stops after saving a checkpoint.
        device: "auto", "cpu" or "cuda".

    Returns:
        The last running losses.

    Raises:
        ModelError: the checkpoint in `folder` is damaged or belongs to a network of other sizes.
    """
    accelerator = Accelerator(
        mixed_precision="no",  # accelerate fixes it for the whole process, but stages differ: see below
        cpu=device == "cpu",
        # A stage may leave outputs of a part unused, such as the encoder's control features in stage two.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    folder.mkdir(parents=True, exist_ok=True)
    trainable = {n: p for n, p in stage.named_parameters() if p.requires_grad}
    optimizers = build_optimizers(stage, schedule.optimizer, schedule.learning_rate, schedule.weight_decay)
    ema = EMAModel(
        trainable.values(), decay=schedule.ema_decay, use_ema_warmup=True, inv_gamma=1.0, power=0.75
    )
    checkpoint = folder / "checkpoint.safetensors"
    step = _restore(checkpoint, trainable, ema, optimizers) if resume and checkpoint.is_file() else 0
    prepared, *optimizers = accelerator.prepare(stage, *optimizers)
    ema.to(accelerator.device)
    rng = np.random.default_rng([schedule.seed, step, accelerator.process_index])
    torch.manual_seed(schedule.seed + 1000 * step + accelerator.process_index)
    clock = _Clock(schedule, step)
    stage.train()
    running: dict[str, float] = {}
    while step < schedule.steps:
        stop = clock.expired or cancelled()
        stop, factor = _agree(accelerator, stop, clock.learning_rate_factor(step))
        if stop:
            break
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = schedule.learning_rate * factor
        with autocast(accelerator.device, wanted=schedule.precision == "bf16"):
            losses = prepared(schedule.batch, rng)
        loss = torch.stack([value.float() for value in losses.values()]).sum()
        accelerator.backward(loss)
        if schedule.gradient_clip:
            accelerator.clip_grad_norm_(trainable.values(), schedule.gradient_clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        ema.step(trainable.values())
        step += 1
        _update(running, losses)
        if accelerator.is_main_process:
            if clock.log_due():
                _log(folder / "losses.jsonl", step, running)
                if on_progress:
                    on_progress(Report(step, schedule.steps, dict(running), clock.seconds_left(step)))
            if clock.checkpoint_due():
                _save(checkpoint, step, trainable, ema, optimizers)
    if accelerator.is_main_process:
        _save(checkpoint, step, trainable, ema, optimizers)
        (folder / "schedule.json").write_text(json.dumps(_plain(asdict(schedule)), indent=1))
    ema.copy_to(trainable.values())
    stage.eval()
    accelerator.wait_for_everyone()
    return running


def _agree(accelerator: Accelerator, stop: bool, factor: float) -> tuple[bool, float]:
    """The main process's word for all: clocks differ, but steps and learning rates must not."""
    if accelerator.num_processes == 1:
        return stop, factor
    word = broadcast(torch.tensor([float(stop), factor], device=accelerator.device))
    return bool(word[0] > 0), float(word[1])


class _Clock:
    """Wall-clock bookkeeping: learning rate by progress, log and checkpoint intervals, time left."""

    def __init__(self, schedule: Schedule, first_step: int) -> None:
        self.schedule, self.first_step = schedule, first_step
        self.start = self.last_log = self.last_checkpoint = time.monotonic()

    @property
    def minutes(self) -> float:
        return self.schedule.minutes_done + (time.monotonic() - self.start) / 60

    @property
    def expired(self) -> bool:
        return self.minutes >= self.schedule.max_minutes

    def progress(self, step: int) -> float:
        """Share of the training done, by steps or by wall clock, whichever ends first."""
        return min(1.0, max(step / self.schedule.steps, self.minutes / self.schedule.max_minutes))

    def learning_rate_factor(self, step: int) -> float:
        """Linear warm-up, then a cosine down to one per cent.

        The warm-up takes a twentieth of the training at most, or a short one would never leave it. A run
        that goes on has Adam's moments from before and needs none.
        """
        progress = self.progress(step)
        warm = min(1.0, max((step + 1) / max(1, self.schedule.warmup), progress / _WARMUP_SHARE))
        return warm * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)

    def seconds_left(self, step: int) -> float:
        done = step - self.first_step
        by_steps = (time.monotonic() - self.start) / max(1, done) * (self.schedule.steps - step)
        return min(by_steps, (self.schedule.max_minutes - self.minutes) * 60)

    def log_due(self) -> bool:
        due = time.monotonic() - self.last_log >= 1.0
        if due:
            self.last_log = time.monotonic()
        return due

    def checkpoint_due(self) -> bool:
        due = time.monotonic() - self.last_checkpoint >= self.schedule.checkpoint_minutes * 60
        if due:
            self.last_checkpoint = time.monotonic()
        return due


def _update(running: dict[str, float], losses: Losses) -> None:
    for name, value in losses.items():
        number = float(value.detach())
        running[name] = number if name not in running else 0.98 * running[name] + 0.02 * number


def _log(path: Path, step: int, running: dict[str, float]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, **{k: round(v, 5) for k, v in running.items()}}) + "\n")


def _plain(values: dict[str, object]) -> dict[str, object]:
    return {k: (None if v == math.inf else v) for k, v in values.items()}


def _save(
    path: Path,
    step: int,
    trainable: dict[str, nn.Parameter],
    ema: EMAModel,
    optimizers: list[torch.optim.Optimizer],
) -> None:
    """Parameters, their average and the optimizers' moments as safetensors: nothing is ever pickled."""
    tensors: dict[str, Tensor] = {}
    for (name, parameter), average in zip(trainable.items(), ema.shadow_params, strict=True):
        tensors[f"parameter.{name}"] = parameter.detach()
        tensors[f"average.{name}"] = average.detach()
        for moment, value in (item for o in optimizers for item in o.state.get(parameter, {}).items()):
            kind = "muon" if moment in _MOMENTS["muon"] else "adam"
            tensors[f"{kind}.{moment}.{name}"] = torch.as_tensor(value).detach()
    tensors = {k: v.clone().contiguous().cpu() for k, v in tensors.items()}
    temporary = path.with_suffix(".partial")
    save_file(tensors, temporary, metadata={"step": str(step)})
    temporary.replace(path)


def _restore(
    path: Path,
    trainable: dict[str, nn.Parameter],
    ema: EMAModel,
    optimizers: list[torch.optim.Optimizer],
) -> int:
    """The step of the checkpoint; moments of another optimizer than today's begin anew."""
    kinds = {
        id(parameter): ("muon" if isinstance(optimizer, Muon) else "adam", optimizer)
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    try:
        with safe_open(path, "pt") as file:
            step = int((file.metadata() or {})["step"])
        tensors = load_file(path)
        for (name, parameter), average in zip(trainable.items(), ema.shadow_params, strict=True):
            if tensors[f"parameter.{name}"].shape != parameter.shape:
                raise KeyError(f"{name} has another size")  # copying might broadcast in silence
            parameter.data.copy_(tensors[f"parameter.{name}"])
            average.data.copy_(tensors[f"average.{name}"])
            kind, optimizer = kinds[id(parameter)]
            keys = {moment: f"{kind}.{moment}.{name}" for moment in _MOMENTS[kind]}
            if all(key in tensors for key in keys.values()):
                optimizer.state[parameter] = {moment: tensors[key] for moment, key in keys.items()}
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"The checkpoint {path} cannot be continued ({error}).",
            "Train with the sizes it was begun with, or begin anew with --fresh.",
        ) from error
    ema.optimization_step = step
    return step
