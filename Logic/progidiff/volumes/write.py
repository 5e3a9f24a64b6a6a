"""Writing volumes so that a file is either complete or not there."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from progidiff.errors import OutputError
from progidiff.paths import expanded, is_folder
from progidiff.volumes.nifti import write_nifti
from progidiff.volumes.text_headers import write_mha, write_nrrd
from progidiff.volumes.volume import Volume

_WRITERS = {".nii.gz": write_nifti, ".nii": write_nifti, ".nrrd": write_nrrd, ".mha": write_mha}
WRITABLE = tuple(_WRITERS)


def write_volume(volume: Volume, path: str | os.PathLike[str]) -> Path:
    """Write a volume as NIfTI, NRRD or MHA, chosen by the extension, compressed except for .nii.

    The dtype is kept (bool becomes uint8). The file gets its name only when it is complete and on
    disk; an older file of that name stays until then.

    Returns:
        The path written.

    Raises:
        OutputError: unknown extension, missing folder, no permission, read-only or full disk.
    """
    path = expanded(path)
    suffix = next((ending for ending in WRITABLE if path.name.lower().endswith(ending)), None)
    if suffix is None:
        raise OutputError(
            f"“{path.name}” has no extension that can be written.", f"Use one of {', '.join(WRITABLE)}."
        )
    if not is_folder(path.parent):
        raise OutputError(f"The folder “{path.parent}” does not exist.", "Create it first.")
    if is_folder(path):
        raise OutputError(f"“{path}” is a folder.", "Give a file name.")
    # In the same folder, so that the rename cannot cross disks.
    unfinished = path.parent / f".{uuid.uuid4().hex}{suffix}"
    try:
        _WRITERS[suffix](volume, unfinished)
        _flush_to_disk(unfinished)
        unfinished.replace(path)
    except OSError as error:
        raise OutputError(
            f"“{path}” cannot be written: {error.strerror or error}.",
            "Free some space or choose another folder.",
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
