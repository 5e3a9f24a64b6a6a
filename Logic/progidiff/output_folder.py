"""Whether results can be written to a folder, asked before the work that makes them."""

from __future__ import annotations

import os
from pathlib import Path

from progidiff.errors import OutputError
from progidiff.paths import expanded, is_folder


def check_output(folder: Path) -> None:
    """Notices before minutes of work that the results could not be written. Creates nothing.

    Raises:
        OutputError: the folder, or the one it would be created in, is a file or cannot be written to.
    """
    existing = expanded(folder).absolute()
    # lexists rather than Path.exists: no error where one may not look or a name is too long.
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not is_folder(existing):
        raise OutputError(f"{existing} is a file, not a folder.", "Choose another folder for the results.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(
            f"The folder {existing} cannot be written to.", "Choose another folder for the results."
        )
