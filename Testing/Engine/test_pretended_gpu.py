"""The GPU path is the CPU path; without a GPU, this is how one knows that no tensor stays behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch.utils.backend_registration")

SCRIPT = Path(__file__).with_name("pretended_gpu.py")


@pytest.mark.parametrize("kind", ["progidiff", "textdiffseg"])
def test_no_operation_mixes_devices(kind: str) -> None:
    """In a process of its own, because the device is registered for good."""
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), kind],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=240,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "never mixed"
