"""Finds the project's `Resources` folder wherever the package happens to live."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from progidiff.errors import ModelError

_PACKAGE = Path(__file__).resolve().parent


@lru_cache(maxsize=1)
def resources_folder() -> Path:
    """Folder with the organ table, icons and embedded models.

    Three layouts are known: an installed wheel (`progidiff/Resources`), a packaged Slicer extension
    (`Resources` beside the `progidiff` package) and the source tree (`Logic/progidiff` below the root).

    Raises:
        ModelError: none of the three exists.
    """
    candidates = [_PACKAGE / "Resources", _PACKAGE.parent / "Resources", _PACKAGE.parent.parent / "Resources"]
    for folder in candidates:
        if (folder / "organs.json").is_file():
            return folder
    raise ModelError(
        "The Resources folder of ProGiDiff is missing.", "Reinstall the package or the Slicer extension."
    )
