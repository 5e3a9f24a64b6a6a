"""`progidiff phantom`: a synthesised abdomen to try things on, without any patient's data."""

from __future__ import annotations

import argparse
from pathlib import Path

from progidiff.cli.arguments import some_path
from progidiff.cli.segment import check_output
from progidiff.errors import UsageError
from progidiff.quality import check_seed

SUMMARY = "write a synthesised CT or MR volume and its label map"

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--output",
        required=True,
        type=some_path,
        metavar="FILE",
        help=f"image to write ({', '.join(ENDINGS)})",
    )
    add("--seed", type=int, default=0, help="the same seed gives the same phantom (default 0)")
    add("--modality", choices=("CT", "MR"), default="CT", help="what it should look like (default CT)")


def run(options: argparse.Namespace) -> int:
    """Writes FILE and, beside it, the labels with the numbers of the organ table."""
    check_seed(options.seed)
    label_path = label_path_for(options.output)
    check_output(options.output.parent)
    from progidiff.training.phantom import make_phantom
    from progidiff.volumes import write_volume

    image, label = make_phantom(options.seed, options.modality)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_volume(label, label_path)
    try:
        write_volume(image, options.output)
    except BaseException:  # also Ctrl-C and the SystemExit that SIGTERM becomes
        label_path.unlink(missing_ok=True)  # labels without their image are of no use
        raise
    print(f"{options.output}\n{label_path}")
    return 0


def label_path_for(image_path: Path) -> Path:
    """`case.nii.gz` → `case_label.nii.gz`.

    Raises:
        UsageError: an ending that is not known.
    """
    for ending in ENDINGS:
        if image_path.name.lower().endswith(ending):
            stem = image_path.name[: -len(ending)]
            return image_path.with_name(f"{stem}_label{image_path.name[-len(ending) :]}")
    raise UsageError(f"{image_path.name} has no known ending.", f"Use one of: {', '.join(ENDINGS)}.")
