"""`progidiff train textdiffseg`: the second model, and its model folder."""

from __future__ import annotations

import argparse
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from progidiff.cli.arguments import some_path
from progidiff.errors import CasesError, UsageError

if TYPE_CHECKING:
    from progidiff.training.case_store import PackedCase
    from progidiff.training.loop import Report
    from progidiff.training.textdiffseg_run import Recipe

PARTS_TO_LEAVE_OUT = ("text", "label_encoder", "image_features")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("only for textdiffseg").add_argument
    add(
        "--locator", type=some_path, metavar="FOLDER", help="run or model whose locator to take (default RUN)"
    )
    add("--without", nargs="+", choices=PARTS_TO_LEAVE_OUT, default=[], help="ablations")
    add("--text-model", default="", metavar="PATH_OR_ID", help="a BERT such as dmis-lab/biobert-v1.1")
    add("--lesions", type=float, metavar="SHARE", help="how often organs get synthesised lesions, 0 to 1")
    add("--batch", type=int, metavar="N", help="pieces of volumes a step (default 2)")
    add("--learning-rate", type=float, metavar="R", help="of the joint training (default 0.0007)")
    add("--licence", default="", metavar="TEXT", help="terms of the weights, for the card")


def train(
    options: argparse.Namespace,
    exclude: tuple[str, ...],
    on_case: Callable[[str, int, int], None],
    on_progress: Callable[[str, Report], None],
    cancelled: Callable[[], bool],
) -> str:
    """Trains as long as `--minutes` says, earlier calls included, and writes the model folder.

    Without `--data` the cases teach that the run began with, or its locator did; else all that are packed in
    `--cache`.

    Returns:
        One line to print.

    Raises:
        Cancelled: stopped; an earlier model folder is left as it is.
    """
    from accelerate import PartialState

    from progidiff.evaluation.learnt import learnt_cases
    from progidiff.training.assemble import parts_size_mb
    from progidiff.training.run import check_device
    from progidiff.training.safeguards import stoppable
    from progidiff.training.textdiffseg_run import TextDiffSegRun, read_locator

    check_device(options.device)
    recipe, locator = _recipe(options), read_locator(options.locator or options.output)
    processes = PartialState(cpu=options.device == "cpu")
    with processes.main_process_first():  # the others find all packed
        cases = _cases(options, exclude, stoppable(on_case, cancelled), processes.is_main_process)
    processes.wait_for_everyone()  # until all have read what the run began with
    if options.fresh and processes.is_main_process:
        _forget(options.output)
    processes.wait_for_everyone()
    run = TextDiffSegRun(
        options.output,
        cases,
        locator,
        recipe,
        located=learnt_cases(str(options.locator)) if options.locator else (),
        device=options.device,
        allow_download=options.allow_download,
    )
    losses = run.train(on_progress, cancelled)
    folder = run.save(options.report)
    words = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
    return f"{folder} ({parts_size_mb(folder):.1f} MB of weights), {run.minutes:.1f} min, {words}"


def _forget(run: Path) -> None:
    for stage in ("image_encoder", "textdiffseg"):
        shutil.rmtree(run / stage, ignore_errors=True)
    (run / "recipe.json").unlink(missing_ok=True)


def _recipe(options: argparse.Namespace) -> Recipe:
    from dataclasses import replace

    from progidiff.training.textdiffseg_run import recipe_with

    if options.lesions is not None and not 0 <= options.lesions <= 1:
        raise UsageError(
            "The share of lesions must lie between 0 and 1.", "Give --lesions 0.4, for instance."
        )
    if options.batch is not None and options.batch < 1:
        raise UsageError("A step needs at least one piece.", "Give --batch 2, for instance.")
    if options.learning_rate is not None and not 0 < options.learning_rate < math.inf:
        raise UsageError("The learning rate must be positive.", "Give --learning-rate 0.0007, for instance.")
    values: dict[str, Any] = {"without": options.without, "text_model": options.text_model}
    if options.licence:
        values["licence"] = options.licence
    if options.lesions is not None:
        values["lesions"] = options.lesions
    recipe = recipe_with(values)
    schedule = replace(
        recipe.schedule,
        batch=options.batch or recipe.schedule.batch,
        learning_rate=options.learning_rate or recipe.schedule.learning_rate,
    )
    recipe = replace(recipe, schedule=schedule)
    return recipe if options.minutes is None else recipe.with_minutes(options.minutes)


def _cases(
    options: argparse.Namespace,
    exclude: tuple[str, ...],
    on_case: Callable[[str, int, int], None],
    is_main: bool,
) -> list[PackedCase]:
    """The cases of `--data`, packed, with phantoms; else the run's own, or all that are packed already."""
    from progidiff.training.configuration import Phantoms
    from progidiff.training.pack import load_cases, pack_cases, pack_phantoms, select_cases
    from progidiff.training.run import recorded_data
    from progidiff.training.safeguards import write_kept_aside
    from progidiff.training.textdiffseg_run import recorded_cases

    cache = options.cache or options.output / "packed"
    if options.data:
        chosen, aside = select_cases(options.data, exclude, options.fold)
        _refuse_to_leak(options.locator, aside)
        if is_main:
            write_kept_aside(options.output, aside, exclude, options.fold)
        return [*pack_cases(chosen, cache, on_case), *pack_phantoms(Phantoms(), cache, on_case)]
    _refuse_to_leak(options.locator, list(exclude))
    ids = recorded_cases(options.output)
    if ids is None:
        ids = recorded_data(options.output) or sorted(note.stem for note in cache.glob("*.json"))
        if unknown := sorted(set(exclude) - set(ids)):
            raise CasesError(
                f"There is no case “{unknown[0]}” to exclude.", "Check the ids of the packed cases."
            )
    return load_cases(cache, [case_id for case_id in ids if not _left_out(case_id, exclude)])


def _refuse_to_leak(locator: Path | None, aside: list[str]) -> None:
    """A locator that has learnt from the cases kept aside would flatter every figure on them."""
    from progidiff.evaluation.learnt import learnt_cases

    leaked = sorted(set(aside) & learnt_cases(str(locator))) if locator else []
    if leaked:
        raise CasesError(
            f"The locator of {locator} has learnt from cases that are kept aside, such as {leaked[0]}.",
            "Train one with the same --fold or --exclude by `progidiff train locator`, and give its run.",
        )


def _left_out(case_id: str, exclude: tuple[str, ...]) -> bool:
    """Whether a case, or the one that its image was painted from, is excluded."""
    return bool({case_id, re.sub(r"_painted_\d+$", "", case_id)} & set(exclude))
