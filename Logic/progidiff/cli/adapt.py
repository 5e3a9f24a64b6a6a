"""`progidiff adapt`: corrected cases in, an adapter and an honest before and after out."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from progidiff.cli.arguments import some_path
from progidiff.errors import CasesError, OutputError, UsageError
from progidiff.quality import check_seed

if TYPE_CHECKING:
    from progidiff.adaptation.adapter import Adapter
    from progidiff.adaptation.case_library import StoredCase
    from progidiff.adaptation.settings import AdaptSettings
    from progidiff.segmenter import Segmenter

SUMMARY = "teach the model a new scanner from a few checked cases (LoRA)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--cases", required=True, type=some_path, metavar="DIR", help="library made by `progidiff cases add`")
    add(
        "--output",
        required=True,
        type=some_path,
        metavar="ADAPTER",
        help="folder of the adapter; must not exist",
    )
    add("--only", nargs="+", default=[], metavar="CASE", help="ids of the cases to use (default all)")
    add("--name", default="", metavar="TEXT", help="what to call the adapter (default: the date)")
    add("--minutes", type=float, metavar="N", help="for everything (default 15, on a GPU 1)")
    add("--rank", type=int, default=8, metavar="N", help="of the low-rank matrices (default 8)")
    add("--seed", type=int, default=0, help="of everything random (default 0)")
    add("--model", default="embedded", metavar="NAME_OR_PATH", help="see `progidiff models`")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:<n> (default auto)")
    parser.epilog = "Stopped with Ctrl-C or by a power cut, the same command continues where it was."


def run(options: argparse.Namespace) -> int:
    """Checks what can be checked before the model is loaded, adapts, and prints the verdict."""
    from progidiff.adaptation.case_library import CaseLibrary
    from progidiff.adaptation.settings import LEAST_MINUTES, MOST_MINUTES, AdaptSettings
    from progidiff.cli.segment import check_output
    from progidiff.segmenter_factory import load_segmenter

    if options.minutes is not None and not LEAST_MINUTES <= options.minutes <= MOST_MINUTES:
        limits = f"from {LEAST_MINUTES:g} to {MOST_MINUTES:g}"
        raise UsageError(f"--minutes is {options.minutes:g}.", f"Give a number {limits}, or leave it out.")
    if not 1 <= options.rank <= 128:
        raise UsageError(f"--rank is {options.rank}.", "Give a number from 1 to 128.")
    check_seed(options.seed)
    library = CaseLibrary(options.cases)
    cases = [library.case(case_id) for case_id in dict.fromkeys(options.only)] or library.cases()
    if not cases:
        raise CasesError(f"There are no cases in {options.cases}.", "Add some with `progidiff cases add`.")
    if options.output.exists():
        raise OutputError(f"“{options.output}” exists already.", "Choose another folder with --output.")
    check_output(options.output.parent)
    segmenter = load_segmenter(options.model, options.device)
    settings = AdaptSettings(minutes=options.minutes, rank=options.rank, seed=options.seed)
    _print(_adapt_with_bar(segmenter, cases, settings, options))
    return 0


def _adapt_with_bar(
    segmenter: Segmenter, cases: list[StoredCase], settings: AdaptSettings, options: argparse.Namespace
) -> Adapter:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    from progidiff.adaptation.adapt import adapt
    from progidiff.adaptation.progress import AdaptProgress

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    left = TextColumn("{task.fields[left]}")
    with Progress(*columns, left, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Starting", total=1.0, left="")

        def show(report: AdaptProgress) -> None:
            loss = "" if report.loss is None else f", loss {report.loss:.3f}"
            bar.update(
                task,
                description=report.text + loss,
                completed=report.fraction,
                left=f"{report.seconds_left / 60:.0f} min left",
            )

        return adapt(segmenter, cases, options.output, name=options.name, settings=settings, on_progress=show)


def _print(adapter: Adapter) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("organ", "Dice before", "after", box=None, pad_edge=False)
    for organ, score in adapter.facts["measured"]["organs"].items():
        table.add_row(organ.replace("_", " "), f"{score['before']:.3f}", f"{score['after']:.3f}")
    console = Console(soft_wrap=True, markup=False, highlight=False)
    console.print(table)
    console.print(adapter.facts["verdict"])
    console.print(adapter.facts["forgetting"]["how"])
    console.print(f"{adapter.id} in {adapter.folder}")
