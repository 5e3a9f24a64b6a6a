"""Lists of ids on a command line."""

from __future__ import annotations

import os
from pathlib import Path

from progidiff.errors import UsageError


def listed(text: str) -> list[str]:
    """Words joined by commas, or the lines of the file of that name.

    Raises:
        UsageError: the file cannot be read as text.
    """
    if os.path.isfile(text):  # noqa: PTH113 - Path.is_file fails on a list longer than a file name may be
        try:
            text = ",".join(Path(text).read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"The list “{text}” cannot be read as text.", "Save it as UTF-8.") from error
    return [word.strip() for word in text.split(",") if word.strip()]
