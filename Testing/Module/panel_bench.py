"""What the module tests share beside fixtures: places, the panel on a chosen worker, waiting."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MODULE_FILE = ROOT / "ProGiDiffSlicer" / "ProGiDiffSlicer.py"

_WAIT_SECONDS = 20


def scripted_launch() -> Any:
    """The scripted worker of these tests, in this interpreter."""
    from ProGiDiffSlicerLib.worker import Launch

    return Launch(sys.executable, ("-m", "fake_worker"), {**os.environ, "PYTHONPATH": str(HERE)})


def open_panel(host: Any, module: Any, launch: Callable[[], Any] = scripted_launch) -> Any:
    engine = sys.modules["ProGiDiffSlicerLib.engine"].Engine(launch)
    original = module.ProGiDiffSlicerLogic.__init__.__defaults__
    module.ProGiDiffSlicerLogic.__init__.__defaults__ = (engine,)
    try:
        return host.open_panel(module)
    finally:
        module.ProGiDiffSlicerLogic.__init__.__defaults__ = original


def until(condition: Callable[[], Any], seconds: float = _WAIT_SECONDS) -> None:
    """Runs the event loop until something is so."""
    from PySide6.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("waited in vain")
        QApplication.processEvents()
        time.sleep(0.003)
