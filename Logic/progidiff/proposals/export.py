"""Writes a result to a folder: all files or none."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from numpy.typing import NDArray

from progidiff.atomic_files import UNFINISHED, remove_abandoned
from progidiff.errors import OutputError
from progidiff.paths import expanded, is_folder
from progidiff.proposals.contact_sheet import contact_sheet
from progidiff.proposals.description import describe
from progidiff.proposals.maps import agreement_map, consensus_labels, mean_probability_map
from progidiff.proposals.proposal import ProposalSet
from progidiff.proposals.result import SegmentationResult
from progidiff.proposals.segmentation_file import write_segmentation
from progidiff.proposals.segments import segments_of
from progidiff.volumes import write_volume
from progidiff.volumes.volume import Grid, Volume

# The description comes last: where it lies, all the others lie too.
RESULT_FILES = (
    "proposals.seg.nrrd",
    "consensus.nii.gz",
    "probability.nii.gz",
    "agreement.nii.gz",
    "contact_sheet.png",
    "proposals.json",
)


def write_results(result: SegmentationResult, folder: str | Path) -> dict[str, Path]:
    """Writes all result files into `folder`, which is made if need be.

    Files of an earlier result are replaced, other files are left alone. Everything is first written
    under a temporary name on the same disk: if anything goes wrong nothing of the new result is left
    behind, and an earlier one stays as it was. What a killed process has left unfinished is removed by the
    next result that is written a day later. A computer that stops in the middle of the last step, the
    renaming, leaves a folder without `proposals.json`, and the earlier files in a hidden folder in it.

    Returns:
        The path of each file by its name (`RESULT_FILES`).

    Raises:
        OutputError: the folder cannot be made or written, a folder has the name of a result file, or the
            disk is full.
    """
    folder = expanded(folder)
    _refuse_folders_in_the_way(folder)
    with _whole_or_not_at_all(folder) as unfinished:
        _write_all(result, unfinished)
    return {name: folder / name for name in RESULT_FILES}


def _write_all(result: SegmentationResult, folder: Path) -> None:
    sets, grid = result.sets, result.volume.grid
    write_segmentation(list(segments_of(sets).values()), grid, folder / "proposals.seg.nrrd")
    # One map at a time: on a large CT each is as large as the image.
    maps: dict[str, Callable[[Sequence[ProposalSet], Grid], NDArray]] = {
        "consensus": consensus_labels,
        "probability": mean_probability_map,
        "agreement": agreement_map,
    }
    for name, make in maps.items():
        write_volume(Volume(make(sets, grid), grid.affine, name=name), folder / f"{name}.nii.gz")
    contact_sheet(result, folder / "contact_sheet.png")
    text = json.dumps(describe(result), indent=2, ensure_ascii=False)
    (folder / "proposals.json").write_text(text + "\n", encoding="utf-8")


@contextmanager
def _whole_or_not_at_all(folder: Path) -> Iterator[Path]:
    """Gives an empty folder inside `folder`; what is written there moves up once all of it is there."""
    made = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    unfinished: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder)
        unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder))
        yield unfinished
        _replace_all(unfinished, folder)
        made = []
    except (OSError, OutputError) as error:
        raise _output_error(folder, error) from error
    finally:
        if unfinished is not None:
            shutil.rmtree(unfinished, ignore_errors=True)
        _remove_if_empty(made)


def _refuse_folders_in_the_way(folder: Path) -> None:
    for name in RESULT_FILES:
        if is_folder(folder / name):
            raise OutputError(
                f"“{folder / name}” is a folder, where a result file has to go.",
                "Rename it, or choose another folder for the results.",
            )


def _replace_all(new: Path, folder: Path) -> None:
    """Moves the result files from `new` to `folder`, all or none, whatever exception comes in between.

    The description is the first to go and the last to come, so that it never lies beside files of
    another result.
    """
    earlier = Path(tempfile.mkdtemp(prefix=".earlier-", dir=folder))
    try:
        for name in reversed(RESULT_FILES):
            if _is_file(folder / name):
                (folder / name).replace(earlier / name)
        for name in RESULT_FILES:
            (new / name).replace(folder / name)
    except BaseException:  # also Ctrl-C and the SystemExit that SIGTERM becomes
        _put_back(earlier, new, folder)
        earlier.rmdir()
        raise
    shutil.rmtree(earlier, ignore_errors=True)


def _put_back(earlier: Path, new: Path, folder: Path) -> None:
    """Undoes as much of `_replace_all` as had happened, which the disk itself tells."""
    for name in reversed(RESULT_FILES):
        if not (new / name).exists():
            (folder / name).unlink(missing_ok=True)
    for name in RESULT_FILES:
        if _is_file(earlier / name):
            (earlier / name).replace(folder / name)


def _is_file(path: Path) -> bool:
    return path.is_symlink() or path.is_file()


def _remove_if_empty(folders: list[Path]) -> None:
    """Removes the folders, innermost first, as far as nobody else has put something there."""
    for folder in folders:
        if not is_folder(folder) or any(folder.iterdir()):
            return
        folder.rmdir()


def _output_error(folder: Path, error: OSError | OutputError) -> OutputError:
    """The error as the user should read it: with the folder asked for, not the temporary one."""
    cause = error.__cause__ if isinstance(error, OutputError) else error
    number = cause.errno if isinstance(cause, OSError) else None
    reason = f": {cause.strerror}" if isinstance(cause, OSError) and cause.strerror else ""
    full = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return OutputError(
        f"The results cannot be written to “{folder}”{reason}.",
        "Make room on the disk or choose another folder." if full else "Choose a folder you may write to.",
    )
