"""`progidiff vary`: new proposals near a given mask."""

from __future__ import annotations

import argparse

from progidiff.cli import steering
from progidiff.cli.arguments import some_path
from progidiff.cli.segment import read_input
from progidiff.quality import VARY_STRENGTH

SUMMARY = "propose masks near a given one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mask", required=True, type=some_path, metavar="FILE", help="label map with the mask"
    )
    steering.add_steering_arguments(parser, VARY_STRENGTH)


def run(options: argparse.Namespace) -> int:
    """Draws proposals around the mask, farther from it the greater the strength."""
    steering.check_options(options)
    target = steering.one_target(options.prompt, options.model)
    volume = read_input(options)
    parent = steering.read_parent(options.mask, target, volume.grid, options.label)
    region = steering.region_of(options, volume.grid)
    return steering.steer_and_write(
        options,
        volume,
        lambda segmenter, prepared, how: segmenter.vary(prepared, parent, options.strength, region, how),
    )
