"""Which Python runs the engine, and in what environment."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import qt
import slicer

from ProGiDiffSlicerLib import settings
from ProGiDiffSlicerLib.locations import engine_folder
from ProGiDiffSlicerLib.worker import Launch


def default_launch() -> Launch:
    """The worker as the settings want it."""
    chosen = settings.interpreter()
    program = chosen or shutil.which("PythonSlicer") or sys.executable
    return Launch(program, ("-m", "progidiff.worker"), worker_environment(foreign=bool(chosen)))


def worker_environment(foreign: bool) -> dict[str, str]:
    """Environment variables of the worker.

    Slicer's own Python needs Slicer's library paths; any other Python must not see them.
    """
    environment = dict(slicer.util.startupEnvironment() if foreign else os.environ)
    paths = [engine_folder()]
    if not foreign and environment.get("PYTHONPATH"):
        paths.append(environment["PYTHONPATH"])
    if foreign:
        environment.pop("PYTHONHOME", None)
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    environment.setdefault("HF_HOME", str(downloads_folder()))
    environment["PYTHONUNBUFFERED"] = "1"
    environment["PYTHONIOENCODING"] = "utf-8"
    return environment


def downloads_folder() -> Path:
    """Where models go that the user asked to download, apart from everything else so they can be removed."""
    return (
        Path(qt.QStandardPaths.writableLocation(qt.QStandardPaths.GenericCacheLocation)) / "ProGiDiffSlicer"
    )
