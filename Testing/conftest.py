"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real CT and MR cases; tests that need it are skipped where there is none."""
    root = Path(__file__).resolve().parent.parent
    folder = Path(os.environ.get("PROGIDIFF_SHARED_DATA", root.parent / "shared" / "data"))
    if not (folder / "ct").is_dir():
        pytest.skip(f"real volumes are not on this machine (looked in {folder})")
    return folder
