"""Where the module's resources and the engine lie, in the source tree and in the packaged extension."""

from __future__ import annotations

from pathlib import Path

_MODULE_FOLDER = Path(__file__).resolve().parent.parent


def resource(relative: str) -> str:
    """Absolute path of a file below `Resources`.

    Packaged, `Resources` lies beside the module file; in the source tree one folder higher.
    """
    for folder in (_MODULE_FOLDER / "Resources", _MODULE_FOLDER.parent / "Resources"):
        if (folder / relative).exists():
            return str(folder / relative)
    raise FileNotFoundError(f"{relative} is missing from the Resources folder of ProGiDiffSlicer")


def engine_folder() -> str:
    """The folder to put on the worker's PYTHONPATH: the one that holds the `progidiff` package."""
    for folder in (_MODULE_FOLDER, _MODULE_FOLDER.parent / "Logic"):
        if (folder / "progidiff").is_dir():
            return str(folder)
    raise FileNotFoundError("the progidiff package is missing beside ProGiDiffSlicer")
