"""Writing volumes so that a file is either complete or not there."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path

import numpy as np

from progidiff.errors import OutputError
from progidiff.volumes.conversion import array_from_image, no_chatter, simpleitk, storable, to_sitk
from progidiff.volumes.nifti import write_nifti
from progidiff.volumes.volume import Volume

WRITABLE = (".nii.gz", ".nii", ".nrrd", ".mha")


def write_volume(volume: Volume, path: str | os.PathLike[str]) -> Path:
    """Write a volume as NIfTI, NRRD or MHA, chosen by the extension, compressed except for .nii.

    The dtype is kept (bool becomes uint8). The file gets its name only when it is complete and on
    disk; an older file of that name stays until then.

    Returns:
        The path written.

    Raises:
        OutputError: unknown extension, missing folder, no permission, read-only or full disk.
    """
    path = Path(path).expanduser()
    suffix = next((ending for ending in WRITABLE if path.name.lower().endswith(ending)), None)
    if suffix is None:
        raise OutputError(
            f"“{path.name}” has no extension that can be written.", f"Use one of {', '.join(WRITABLE)}."
        )
    if not path.parent.is_dir():
        raise OutputError(f"The folder “{path.parent}” does not exist.", "Create it first.")
    if path.is_dir():
        raise OutputError(f"“{path}” is a folder.", "Give a file name.")
    # In the same folder, so that the rename cannot cross disks; SimpleITK tells the format by the ending.
    unfinished = path.parent / f".{uuid.uuid4().hex}{suffix}"
    try:
        if suffix.startswith(".nii"):
            write_nifti(volume, unfinished)
        else:
            _write_with_simpleitk(volume, unfinished)
        _flush_to_disk(unfinished)
        unfinished.replace(path)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "the disk may be full or the folder read-only"
        raise OutputError(
            f"“{path}” cannot be written: {reason}.", "Free some space or choose another folder."
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _write_with_simpleitk(volume: Volume, path: Path) -> None:
    """Write and read back: SimpleITK says nothing when the disk fills up during the last few bytes.

    Raises:
        RuntimeError: SimpleITK cannot write, or cannot read what it wrote.
        OSError: what it wrote differs from the volume.
    """
    sitk = simpleitk()
    with no_chatter():
        sitk.WriteImage(to_sitk(volume), str(path), useCompression=True)
        written = array_from_image(sitk.ReadImage(str(path)))
    if not np.array_equal(written, storable(volume.array), equal_nan=True):
        raise OSError(errno.EIO, "the file is incomplete")


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
