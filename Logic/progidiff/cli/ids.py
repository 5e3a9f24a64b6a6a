"""Lists of ids on a command line."""

from __future__ import annotations

import os
from pathlib import Path


def listed(text: str) -> list[str]:
    """Words joined by commas, or the lines of the file of that name."""
    if os.path.isfile(text):  # noqa: PTH113 - Path.is_file fails on a list longer than a file name may be
        text = ",".join(Path(text).read_text(encoding="utf-8").splitlines())
    return [word.strip() for word in text.split(",") if word.strip()]
