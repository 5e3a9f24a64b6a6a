"""Paths as users give them, and names in any encoding as text that can be written."""

from __future__ import annotations

import os
from pathlib import Path


def printable(text: str | os.PathLike[str]) -> str:
    """The text without the surrogates that stand for bytes that are not UTF-8.

    Such bytes come from old DICOM headers and from file names of other computers; they are read as
    Latin-1, which is what most of them are. Half a character, which Windows allows in names, becomes "�".
    """
    return "".join(map(_printable_character, os.fspath(text)))


def _printable_character(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8, see Python's "surrogateescape"
        return chr(code - 0xDC00)
    return "\ufffd" if 0xD800 <= code <= 0xDFFF else character


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
