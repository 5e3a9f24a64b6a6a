"""`progidiff segment`: an image and a prompt in, proposals out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from progidiff.cli.arguments import some_path
from progidiff.output_folder import check_output
from progidiff.quality import QUALITIES, check_numbers, steps_for

if TYPE_CHECKING:
    from progidiff.proposals import Proposal, ProposalSet, SegmentationResult
    from progidiff.segmenter import Segmenter
    from progidiff.volumes.volume import Volume

SUMMARY = "propose masks for the organs named in a prompt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "input",
        type=some_path,
        metavar="INPUT",
        help="NIfTI, NRRD or MHA file, or a folder with one DICOM series",
    )
    add("--prompt", required=True, metavar="TEXT", help='what to segment, such as "segment both kidneys"')
    add_drawing_arguments(parser)


def add_drawing_arguments(parser: argparse.ArgumentParser) -> None:
    """What all commands that draw proposals have in common."""
    add = parser.add_argument
    add("--output", required=True, type=some_path, metavar="DIR", help="folder for the results")
    add("--proposals", type=int, default=5, metavar="N", help="how many proposals per organ (default 5)")
    add("--steps", type=int, metavar="N", help="denoising steps per proposal; overrides --quality")
    add("--quality", choices=QUALITIES, default="standard", help="how many steps to take (default standard)")
    add("--seed", type=int, default=0, help="the same seed gives the same proposals (default 0)")
    add("--model", default="embedded", metavar="NAME_OR_PATH", help="see `progidiff models`")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:<n> (default auto)")
    add("--modality", choices=("auto", "CT", "MR"), default="auto", help="what the image is (default auto)")
    add("--adapter", default="", metavar="PATH", help="folder of an adapter to put on the model")


def run(options: argparse.Namespace) -> int:
    """Checks all that can be checked before the model is loaded, then segments and writes."""
    from progidiff.proposals import write_results
    from progidiff.segmenter_factory import check_adapter, load_segmenter, targets_of

    check_numbers(options.proposals, options.steps, options.seed)
    targets_of(options.prompt, options.model)
    check_adapter(options.adapter, options.model)
    check_output(options.output)
    volume = read_input(options)
    segmenter = load_segmenter(options.model, options.device, options.adapter)
    result = _segment_with_bar(segmenter, volume, options)
    write_results(result, options.output)
    print_table(result, options.output)
    return 0


def read_input(options: argparse.Namespace) -> Volume:
    """The image, with the modality the user gave it; tells which of several DICOM series was taken."""
    from progidiff.volumes import read_volume

    volume = read_volume(options.input)
    if note := volume.metadata.get("note"):
        print(f"Warning: {note}", file=sys.stderr)
    return volume if options.modality == "auto" else replace(volume, modality=options.modality)


def _segment_with_bar(
    segmenter: Segmenter, volume: Volume, options: argparse.Namespace
) -> SegmentationResult:
    with drawing_bar() as on_step:
        return segmenter.segment(
            volume,
            options.prompt,
            proposals=options.proposals,
            steps=options.steps or steps_for(options.quality, segmenter.default_steps),
            seed=options.seed,
            on_step=on_step,
        )


@contextmanager
def drawing_bar() -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr; gives the function that moves it to (done, total)."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Looking at the volume", total=None)
        yield lambda done, total: bar.update(
            task, description="Drawing proposals", completed=done, total=total
        )


def print_table(result: SegmentationResult, folder: Path) -> None:
    """The results in a few lines: for each organ its consensus, and below it the proposals that differ."""
    from rich.console import Console
    from rich.table import Table

    from progidiff.proposals.distinct import distinct_proposals

    table = Table("organ", "proposals", "differ", "volume", "expected Dice", box=None, pad_edge=False)
    for found in result.sets:
        table.add_row(*_row(found))
        for shown in distinct_proposals(found) if found.found else []:
            table.add_row(f"  {shown.name}", "", "", *_measures(shown.proposal))
    console = Console(soft_wrap=True, markup=False, highlight=False)
    console.print(table)
    seconds = result.seconds.get("total", sum(result.seconds.values()))
    console.print(f"{result.model_id} on {result.device}, {seconds:.1f} s. Results in {folder}")


def _row(found: ProposalSet) -> tuple[str, ...]:
    consensus = found.consensus
    if not found.found or consensus is None:
        return found.target.name, "", "", found.reason or "not found", ""
    return (
        found.target.name,
        str(len(found.proposals)),
        str(found.distinct),
        *_measures(consensus),
    )


def _measures(proposal: Proposal) -> tuple[str, str]:
    """Volume and expected Dice."""
    if proposal.is_empty:
        return "empty", ""
    return f"{proposal.volume_ml:.0f} ml", f"{proposal.score:.2f}"
