"""What `progidiff vary` and `progidiff constrain` share: masks, marks and regions from the command line."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from progidiff.cli.arguments import label_value, some_path
from progidiff.cli.segment import (
    add_drawing_arguments,
    check_output,
    drawing_bar,
    print_table,
)
from progidiff.errors import UsageError
from progidiff.quality import check_numbers, check_strength, steps_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from progidiff.prompts import Target
    from progidiff.proposals import Proposal, ProposalSet
    from progidiff.segmenter import PreparedVolume, Segmenter
    from progidiff.steering import SteerOptions, Voxels
    from progidiff.volumes.volume import Grid, Volume

Steer = Callable[["Segmenter", "PreparedVolume", "SteerOptions"], "ProposalSet"]


def add_steering_arguments(parser: argparse.ArgumentParser, strength: float) -> None:
    """The volume, the organ, how far to go, where, and how to draw."""
    add = parser.add_argument
    add("input", type=some_path, metavar="INPUT", help="the image: a file, or a folder with one DICOM series")
    add("--prompt", required=True, metavar="TEXT", help='the organ, such as "the liver"')
    add(
        "--label",
        type=label_value,
        metavar="N",
        help="value of the organ in label maps (default: its number in the organ table, as in "
        "consensus.nii.gz; any but 0 where there is only one value)",
    )
    add(
        "--strength",
        type=float,
        default=strength,
        metavar="S",
        help=f"0 stays, 1 forgets (default {strength})",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--roi", nargs=6, type=float, metavar=("R", "A", "S", "DX", "DY", "DZ"),
        help="work only in this box: centre and size in mm (RAS)",
    )  # fmt: skip
    where.add_argument(
        "--slices", nargs=2, type=int, metavar=("FIRST", "LAST"),
        help="work only on these slices and those between, counted from 0",
    )  # fmt: skip
    add_drawing_arguments(parser)


def one_target(prompt: str, model: str) -> Target:
    """The organ, or the finding that the model draws, to steer.

    Raises:
        PromptError, ModelError: see `targets_of`.
        UsageError: several are named.
    """
    from progidiff.segmenter_factory import targets_of

    targets = targets_of(prompt, model)
    if len(targets) > 1:
        names = ", ".join(target.name for target in targets)
        raise UsageError(f"The prompt names several organs ({names}).", "Steer one at a time.")
    return targets[0]


def check_options(options: argparse.Namespace) -> None:
    """Finds what is wrong before anything is read."""
    from progidiff.segmenter_factory import check_adapter

    check_numbers(options.proposals, options.steps, options.seed)
    check_strength(options.strength)
    check_adapter(options.adapter, options.model)
    check_output(options.output)


def read_mask(path: Path, grid: Grid, label: int | None, target: Target) -> NDArray:
    """The organ in a label map, on the volume's grid, (I, J, K) bool.

    Args:
        label: the organ's value; by default its number in the organ table where the map has several values,
            as consensus.nii.gz has, or else any but 0.
        target: the organ.

    Raises:
        VolumeError: it cannot be read.
        UsageError: it has none of the organ's voxels in the volume, or several values, none of them known
            to be the organ's.
    """
    from progidiff.volumes import read_label

    given = read_label(path)
    return _mask_on(grid, given, _value_of(given, target, path.name) if label is None else label, path.name)


def _value_of(given: Volume, target: Target, name: str) -> int | None:
    """The value that must be the organ's; None where there is no choice."""
    from progidiff.prompts import organ_table

    if not _has_several_values(given):
        return None
    number = organ_table().by_id(target.organ).label
    if not (given.array == number).any():
        raise UsageError(
            f"{name} has several values, but not {number}, the number of {target.name} in the organ table.",
            "Say with --label which value is meant.",
        )
    return number


def _has_several_values(given: Volume) -> bool:
    values = given.array[given.array != 0]
    return values.size > 0 and values.min() != values.max()


def read_marks(path: Path, grid: Grid, label: int | None, target: Target | None = None) -> NDArray:
    """Marked voxels on the volume's grid, (I, J, K) bool; errors as of `read_mask`.

    Args:
        label: of a label map with several values, only the voxels of this one are marked. A file with one
            value is painted marks: all of it counts, whatever the value.
        target: the organ that such a label map is asked for where no label is given; None: all of it counts.
    """
    from progidiff.volumes import read_label

    given = read_label(path)
    if label is None and target is not None:
        label = _value_of(given, target, path.name)
    return _mask_on(grid, given, label if _has_several_values(given) else None, path.name, thin=True)


def _mask_on(grid: Grid, given: Volume, label: int | None, name: str, thin: bool = False) -> NDArray:
    """Where a label map has a value, on the volume's grid; with `thin`, marks finer than its voxels too."""
    import numpy as np

    from progidiff.volumes import resample

    same = given.shape == grid.shape and np.allclose(given.affine, grid.affine, atol=1e-3)
    array = given.array if same else resample(given, grid, order=0, fill=0).array
    mask = array != 0 if label is None else array == label
    if thin and not same:
        _add_thin_marks(mask, given.array != 0 if label is None else given.array == label, given, grid)
    if not mask.any():
        raise UsageError(f"{name} marks nothing in the volume.", "Check the file and --label.")
    return mask


def _add_thin_marks(mask: NDArray, marked: NDArray, given: Volume, grid: Grid) -> None:
    """Adds the voxels that hold marks which no sampling place on a coarser grid has hit, such as a thin line.

    Args:
        mask: (I, J, K) on `grid`, what was hit; is changed. A voxel beside one that was hit is not added, so
            that dense masks do not grow.
        marked: the marks on the grid of `given`.
    """
    import numpy as np
    from scipy.ndimage import binary_dilation

    to_voxel = np.linalg.inv(grid.affine) @ given.affine
    index = np.rint(np.argwhere(marked) @ to_voxel[:3, :3].T + to_voxel[:3, 3]).astype(int)
    index = index[((index >= 0) & (index < np.asarray(grid.shape))).all(1)]
    hit = binary_dilation(mask, np.ones((3, 3, 3)))
    index = index[~hit[tuple(index.T)]]
    mask[tuple(index.T)] = True


def read_parent(path: Path, target: Target, grid: Grid, label: int | None) -> Proposal:
    """A label map's organ as the mask to start from."""
    from progidiff.steering import proposal_from_mask

    return proposal_from_mask(read_mask(path, grid, label, target), target, grid, path.name.split(".")[0])


def region_of(options: argparse.Namespace, grid: Grid) -> Voxels | None:
    """The voxels to work on; None for all."""
    from progidiff.steering import Voxels

    if options.roi is not None:
        return Voxels.of_roi(options.roi[:3], options.roi[3:], grid)
    if options.slices is not None:
        first, last = options.slices
        return Voxels.of_slices(first, last, grid)
    return None


def steer_and_write(options: argparse.Namespace, volume: Volume, steer: Steer) -> int:
    """Loads the model, draws with a progress bar, writes the results and prints their table."""
    from progidiff.proposals import SegmentationResult, write_results
    from progidiff.segmenter_factory import load_segmenter
    from progidiff.steering import SteerOptions

    segmenter = load_segmenter(options.model, options.device, options.adapter)
    start = time.perf_counter()
    steps = options.steps or steps_for(options.quality, segmenter.default_steps)
    with drawing_bar() as on_step:
        prepared = segmenter.prepare(volume)
        found = steer(
            segmenter,
            prepared,
            SteerOptions(options.proposals, steps, options.seed, options.prompt, on_step),
        )
    seconds = {"total": time.perf_counter() - start}
    image = replace(volume, modality=prepared.modality)  # as it was read, for the record
    result = SegmentationResult(
        image, options.prompt, [found], segmenter.model_id, segmenter.model_hash, segmenter.device, seconds
    )
    write_results(result, options.output)
    print_table(result, options.output)
    return 0
