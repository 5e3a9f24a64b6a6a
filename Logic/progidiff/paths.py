"""Paths as users give them, and names in any encoding as text that can be written."""

from __future__ import annotations

import os
from pathlib import Path


def printable(text: str | os.PathLike[str]) -> str:
    """The text without the surrogates that stand for bytes that are not UTF-8.

    Such bytes come from old DICOM headers and from file names of other computers; they are read as
    Latin-1, which is what most of them are.
    """
    raw = os.fspath(text).encode("utf-8", "surrogateescape")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with a leading "~" as the home folder; one of an unknown user stays as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def is_folder(path: Path) -> bool:
    """Whether there is a folder of this name; no error where one may not look or the name is too long."""
    try:
        return path.is_dir()
    except OSError:
        return False
