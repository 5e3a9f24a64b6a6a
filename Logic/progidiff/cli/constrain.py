"""`progidiff constrain`: proposals that keep to marks inside, outside, and to finished parts."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from progidiff.cli import steering
from progidiff.cli.arguments import some_path
from progidiff.cli.segment import read_input
from progidiff.quality import CONSTRAIN_STRENGTH

if TYPE_CHECKING:
    from progidiff.prompts import Target
    from progidiff.steering import Promises, Voxels
    from progidiff.volumes.volume import Grid

SUMMARY = "propose masks that keep to marks inside and outside, and to finished parts"
_POINT = ("R", "A", "S")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    # argparse would take -1e1 for an option.
    parser._negative_number_matcher = re.compile(r"-(\d+|\d*\.\d+)([eE][-+]?\d+)?")
    add = parser.add_argument
    add("--mask", type=some_path, metavar="FILE", help="label map with the mask to start from")
    for side in ("inside", "outside"):
        add(
            f"--{side}", nargs=3, type=float, action="append", default=[], metavar=_POINT,
            help=f"a point (mm, RAS) that is {side}; may be repeated",
        )  # fmt: skip
        add(f"--{side}-mask", type=some_path, metavar="FILE", help=f"label map of voxels that are {side}")
    add("--fixed", type=some_path, metavar="FILE", help="label map of voxels where the mask is finished")
    steering.add_steering_arguments(parser, CONSTRAIN_STRENGTH)
    parser.epilog = (
        "--label holds for all label maps given, so that of several organs in consensus.nii.gz one is meant. "
        "Only a mask of what is inside, outside or finished that has a single value counts whole, whatever "
        "the value. Without --label, all values of the masks of what is outside or finished count."
    )


def run(options: argparse.Namespace) -> int:
    """Draws proposals that keep every promise exactly."""
    steering.check_options(options)
    target = steering.one_target(options.prompt, options.model)
    volume = read_input(options)
    promises = _promises(options, target, volume.grid)
    promises.require_some()
    promises.check(volume.grid)
    return steering.steer_and_write(
        options,
        volume,
        lambda segmenter, prepared, how: segmenter.constrain(
            prepared, target, promises, options.strength, how
        ),
    )


def _promises(options: argparse.Namespace, target: Target, grid: Grid) -> Promises:
    from progidiff.steering import NOTHING, Promises, Voxels

    def painted(path: Path | None, organ: Target | None = None) -> Voxels:
        if path is None:
            return NOTHING
        return Voxels.of_mask(steering.read_marks(path, grid, options.label, organ))

    return Promises(
        inside=Voxels.of_points(options.inside, grid).joined(painted(options.inside_mask, target)),
        outside=Voxels.of_points(options.outside, grid).joined(painted(options.outside_mask)),
        fixed=painted(options.fixed),
        region=steering.region_of(options, grid),
        parent=None
        if options.mask is None
        else steering.read_parent(options.mask, target, grid, options.label),
    )
