"""`progidiff train`: one command a stage, or all of them; the same command again continues."""

from __future__ import annotations

import argparse
import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from progidiff.cli import train_textdiffseg
from progidiff.cli.arguments import some_path
from progidiff.cli.ids import listed
from progidiff.cli.segment import check_output
from progidiff.errors import UsageError

if TYPE_CHECKING:
    from progidiff.training.configuration import Configuration
    from progidiff.training.loop import Report
    from progidiff.training.run import TrainingRun

SUMMARY = "train a model of your own, stage by stage or all at once"

_BASELINE = "unet"  # a plain U-Net to compare with; no part of the model
_SECOND = "textdiffseg"  # the second model, which needs a locator and nothing else
_STAGES = ("locator", "encoder", "autoencoder", "generator", "wordings", "control", "refiner")
_WHAT = (*_STAGES, "assemble", "all", _BASELINE, _SECOND)
_SECONDS_BETWEEN_LINES = 20.0
_SECONDS_OF_ONE_STOP = 2.0
_LEAST_MINUTES = 0.01  # where earlier stages have had all the time: the others end at once


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("stage", choices=_WHAT, metavar="STAGE", help=f"one of {', '.join(_WHAT)}")
    add("--output", required=True, type=some_path, metavar="RUN", help="folder of the training run")
    add(
        "--data",
        nargs="+",
        type=some_path,
        default=[],
        metavar="FOLDER",
        help="data sets; needed once for a run",
    )
    add("--config", default="", metavar="NAME_OR_FILE", help="of Resources/Training (new run: embedded)")
    add("--base", default="", metavar="PATH_OR_ID", help="another Stable Diffusion than the configuration's")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="continue where the run stopped (the default)")
    again.add_argument("--fresh", action="store_true", help="begin the stage anew; with `all`, every stage")
    add("--exclude", default="", metavar="IDS", help="case ids to leave out, joined by commas, or a file")
    add("--fold", default="", metavar="I/N", help="leave out every N-th case with an image, from the I-th on")
    add("--minutes", type=float, metavar="M", help="time limit; of `all`: for all stages together")
    add("--unfrozen", action="store_true", help="control also trains the generator")
    add("--cache", type=some_path, metavar="FOLDER", help="for packed cases, to share (default RUN/packed)")
    add("--report", type=some_path, metavar="FOLDER", help="evaluation whose figures the card shall carry")
    add("--allow-download", action="store_true", help="a base that is not on this computer may be downloaded")
    add("--device", default="auto", help="auto, cpu or cuda (default auto)")
    train_textdiffseg.add_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Trains what was asked for; only the main process of `accelerate launch` prints."""
    _check(options)
    check_output(options.output)
    if options.stage == _SECOND:
        with _stop_on_signals() as stopped:
            _train_second(options, stopped)
        return 0
    if options.stage != "assemble":
        with _stop_on_signals() as stopped:
            _train(options, stopped)
    if options.stage in ("assemble", "all"):
        _assemble(options)
    return 0


def _check(options: argparse.Namespace) -> None:
    if options.minutes is not None and not options.minutes > 0:
        raise UsageError("The time limit must be positive.", "Give --minutes 30, for instance.")
    packed = options.stage == _SECOND and options.cache and not options.fold
    if (options.exclude or options.fold) and not (options.data or packed):
        raise UsageError("Cases can only be left out of data that is named.", "Give --data as well.")
    if options.report and options.stage not in ("assemble", "all", _SECOND):
        raise UsageError("--report belongs to what writes a model folder.", "Leave it out here.")
    options.fold = _fold(options.fold)


def _fold(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    if match is None:
        raise UsageError(f"{text!r} is no fold.", "Give --fold 1/3, 2/3 or 3/3, for instance.")
    return int(match[1]), int(match[2])


def _train(options: argparse.Namespace, stopped: Callable[[], bool]) -> None:
    from progidiff.training.pack import without_labels
    from progidiff.training.run import DataSelection, TrainingRun

    _quieten_libraries()
    kind = TrainingRun
    if options.stage == _BASELINE:
        from progidiff.training.unet_baseline import UNetRun

        kind = UNetRun
    bar = _Bar()
    with bar:
        training = kind(
            options.output,
            _configuration(options),
            DataSelection(tuple(options.data), tuple(listed(options.exclude)), options.fold),
            cache=options.cache,
            device=options.device,
            unfrozen=options.unfrozen,
            allow_download=options.allow_download,
            fresh=options.fresh and options.stage == "all",
            on_case=bar.case,
            on_progress=bar.progress,
            cancelled=stopped,
        )
        if unused := without_labels(options.data):
            bar.say(f"Not used, because no organ is labelled by name: {', '.join(unused)}")
        stages, minutes = [options.stage], options.minutes
        if options.stage == "all":
            stages, minutes = _unsettled(training, minutes, bar)
        training.configuration = _limited(training.configuration, stages, minutes)
        for stage in stages:
            bar.say(_ended(training, stage, training.train(stage, options.fresh and options.stage != "all")))


def _unsettled(training: TrainingRun, minutes: float | None, bar: _Bar) -> tuple[list[str], float | None]:
    """The stages that `all` still trains, and the time that is left for them of what was given for all."""
    from progidiff.training.run import stage_summary

    for stage in (settled := training.settled()):
        summary = stage_summary(training.stage_folder(stage))
        assert summary is not None
        bar.say(_ended(training, stage, summary))
        minutes = None if minutes is None else max(_LEAST_MINUTES, minutes - summary["minutes"])
    return [name for name in training.stages if name not in settled], minutes


def _quieten_libraries() -> None:
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.logging.set_verbosity_error()
        library.logging.disable_progress_bar()


def _train_second(options: argparse.Namespace, stopped: Callable[[], bool]) -> None:
    from progidiff.training.pack import unclear_findings

    _quieten_libraries()
    bar = _Bar()
    with bar:
        ids = tuple(listed(options.exclude))
        if unclear := unclear_findings(options.data):
            bar.say(f"Not learnt, as their organ is not certain or not labelled: {', '.join(unclear)}")
        bar.say(train_textdiffseg.train(options, ids, bar.case, bar.progress, stopped))


def _configuration(options: argparse.Namespace) -> Configuration | None:
    """What was named, the run's own (None), or the default of a new run."""
    from dataclasses import replace

    from progidiff.training.configuration import DEFAULT, load_configuration, read_configuration

    own = options.output / "configuration.json"
    if not options.config and own.is_file() and not options.base:
        return load_configuration(own) if options.fresh else None
    if not options.config and own.is_file():
        configuration = load_configuration(own)
    else:
        configuration = read_configuration(options.config or DEFAULT)
    if not options.base:
        return configuration
    if not configuration.base:
        raise UsageError(
            "This configuration trains its own generator.", "Use --base with one that has a base."
        )
    return replace(configuration, base=options.base)


def _limited(configuration: Configuration, stages: list[str], minutes: float | None) -> Configuration:
    """The time limit, shared out among the stages as the configuration weighs them."""
    known = [name for name in stages if name in configuration.stages]
    if minutes is None or not known:
        return configuration
    weights = [configuration.stages[name].max_minutes for name in known]
    if not all(map(math.isfinite, weights)):
        weights = [1.0] * len(known)
    shares = {name: minutes * w / sum(weights) for name, w in zip(known, weights, strict=True)}
    return configuration.with_minutes(shares)


def _ended(training: TrainingRun, stage: str, summary: dict[str, Any]) -> str:
    losses = ", ".join(f"{name} {value:.3f}" for name, value in summary["losses"].items())
    return f"{stage}: {summary['steps']} steps, {summary['minutes']:.1f} min, {losses}"


def _assemble(options: argparse.Namespace) -> None:
    from accelerate import PartialState

    from progidiff.training.assemble import assemble, parts_size_mb

    if PartialState(cpu=options.device == "cpu").is_main_process:
        folder = assemble(
            options.output,
            unfrozen=options.unfrozen,
            report=options.report,
            allow_download=options.allow_download,
        )
        print(f"{folder} ({parts_size_mb(folder):.1f} MB of weights)")


@contextmanager
def _stop_on_signals() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C or SIGTERM lets the step end and the checkpoint be written; a later one does not wait.

    `accelerate launch` passes on at once what the terminal has sent already: that is no second one.
    """
    asked, first = threading.Event(), math.inf
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def ask(number: int, frame: object) -> None:
        nonlocal first
        if time.monotonic() - first > _SECONDS_OF_ONE_STOP:
            raise KeyboardInterrupt
        first = min(first, time.monotonic())
        asked.set()

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Bar:
    """A progress bar with losses and time left on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"))
        self.console = Console(stderr=True, highlight=False)
        self.bar = Progress(*columns, console=self.console, transient=True)
        self.task = self.bar.add_task("Reading the cases", total=None, state="")
        self.main = os.environ.get("RANK", "0") == "0"  # set by `accelerate launch`
        self.last_line = 0.0

    def __enter__(self) -> None:
        if self.main and self.console.is_terminal:
            self.bar.start()

    def __exit__(self, *problem: object) -> None:
        self.bar.stop()

    def case(self, case_id: str, done: int, total: int) -> None:
        self._show(f"Packing {case_id}", done, total, f"{done}/{total}")

    def progress(self, stage: str, report: Report) -> None:
        losses = " ".join(f"{name} {value:.3f}" for name, value in report.losses.items())
        left = _duration(report.seconds_left)
        self._show(
            f"Training {stage}", report.step, report.steps, f"{losses}, {left} left, step {report.step}"
        )

    def say(self, line: str) -> None:
        if self.main:
            self.console.print(line, markup=False, soft_wrap=True)

    def _show(self, what: str, done: int, total: int, state: str) -> None:
        if self.console.is_terminal:
            self.bar.update(self.task, description=what, completed=done, total=total, state=state)
        elif time.monotonic() - self.last_line > _SECONDS_BETWEEN_LINES and self.main:
            self.last_line = time.monotonic()
            print(f"{what}: {state}", file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
