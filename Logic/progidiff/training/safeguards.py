"""What every training run guards against: torn files, a full disk, losses that are no numbers, stops."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast
from safetensors import SafetensorError, safe_open
from torch import nn

from progidiff.errors import Cancelled, ModelError, OutputError, UsageError
from progidiff.training.case import file_name
from progidiff.training.loop import Losses, Schedule
from progidiff.training.pack import OnCase

_TOLERANCE_MINUTES = 0.05  # the loop's clock starts after the stage's, and minutes are kept rounded


def checkpoint_step(folder: Path) -> int:
    """Steps of the checkpoint in a stage's folder, 0 without one.

    Raises:
        ModelError: the checkpoint is damaged.
    """
    path = folder / "checkpoint.safetensors"
    if not path.is_file():
        return 0
    try:
        with safe_open(path, "pt") as file:
            return int((file.metadata() or {})["step"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise ModelError(
            f"The checkpoint {path} is damaged ({error}).", "Begin anew with --fresh."
        ) from error


def time_is_up(minutes: float, schedule: Schedule) -> bool:
    """Whether a stage has had its minutes."""
    return minutes >= schedule.max_minutes - _TOLERANCE_MINUTES


def has_ended(step: int, minutes: float, schedule: Schedule) -> bool:
    """Whether a stage has had its steps or minutes, in the main process's word: clocks differ.

    All processes must ask, or the others wait for ever.
    """
    ended = step >= schedule.steps or time_is_up(minutes, schedule)
    word = torch.tensor([float(ended)], device=PartialState().device)
    return bool(broadcast(word)[0] > 0)


def read_json(path: Path, remedy: str = "Begin anew with --fresh.") -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}).", remedy) from error


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file whole or not at all, and the folder if need be.

    Raises:
        OutputError: it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.replace(path)


def write_kept_aside(run: Path, aside: Sequence[str], exclude: Collection[str], fold: object) -> None:
    """List the cases that a run keeps aside, for `progidiff evaluate --cases RUN/kept_aside.txt`.

    Those of a fold are its own alone: what is excluded from all folds would be measured in each of them.

    Args:
        run: the run's folder.
        aside: as `pack.select_cases` returns them.
        exclude, fold: what it was given.

    Raises:
        OutputError: it cannot be written.
    """
    path, excluded = run / "kept_aside.txt", {file_name(case_id) for case_id in exclude}
    ids = [case_id for case_id in aside if case_id not in excluded] if fold else aside
    with writing(path):
        run.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        if ids:
            path.write_text("\n".join(ids) + "\n", encoding="utf-8")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A full disk or a folder without leave to write becomes an OutputError that names `path`."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk by its own error
        reason = getattr(error, "strerror", None) or error
        raise OutputError(
            f"{path} cannot be written ({reason}).", "Free some space, or choose another folder."
        ) from error


@contextmanager
def finite_losses(name: str, stage: nn.Module) -> Iterator[None]:
    """Within this, a loss that is not finite raises ModelError before it reaches weights or checkpoint.

    Args:
        name: of the stage, for the message.
        stage: returns its losses.
    """

    def check(module: nn.Module, arguments: Any, losses: Losses) -> None:
        if not all(math.isfinite(float(value.detach())) for value in losses.values()):
            raise ModelError(
                f"The losses of {name} are no numbers any more.",
                "Lower its learning rate or set its precision to no, and continue from the last "
                "checkpoint or begin it anew with --fresh.",
            )

    hook = stage.register_forward_hook(check)
    try:
        yield
    finally:
        hook.remove()


def stoppable(on_case: OnCase | None, cancelled: Callable[[], bool]) -> OnCase:
    """`on_case`, raising Cancelled once the user has stopped."""

    def tell(case_id: str, done: int, total: int) -> None:
        if cancelled():
            raise Cancelled(
                "Stopped while packing.", "The same command again, without --fresh, continues it."
            )
        if on_case is not None:
            on_case(case_id, done, total)

    return tell
