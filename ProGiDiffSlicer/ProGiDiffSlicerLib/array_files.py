"""Arrays on their way to and from the worker: `.npy` files in a private folder."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np

from ProGiDiffSlicerLib.errors import SegmentationError


def give_array(folder: str, array: np.ndarray) -> str:
    """Writes `array` for the worker, whole or not at all, and returns the file's name.

    Raises:
        SegmentationError: the disk is full or the folder has gone.
    """
    name = f"{uuid.uuid4().hex}.npy"
    temporary = Path(folder) / f"{name}.part"
    try:
        with temporary.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        temporary.rename(temporary.with_name(name))
    except OSError as problem:
        temporary.unlink(missing_ok=True)
        raise SegmentationError(
            f"The image could not be handed to the segmentation engine: {problem.strerror or problem}.",
            f"Free some disk space on the drive of {folder}, then press Propose again.",
            kind="OutputError",
        ) from problem
    return name


def take_array(folder: str, name: str) -> np.ndarray:
    """Reads an array the worker wrote and deletes its file.

    Raises:
        SegmentationError: the file is missing, cut short, or not inside the folder.
    """
    path = Path(folder) / Path(name).name
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as problem:
        raise SegmentationError(
            "A result of the segmentation engine could not be read.",
            "Press Propose again; if it happens again, check the free disk space.",
            kind="OutputError",
            details=str(problem),
        ) from problem
    path.unlink(missing_ok=True)
    return array
