"""The one place where command line and worker get their Segmenter from."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from progidiff.errors import UsageError

if TYPE_CHECKING:
    from progidiff.segmenter import Segmenter

SEAM = "PROGIDIFF_SEGMENTER"
"""Environment variable for tests: "module:function" that is called instead of `Segmenter.load`."""


def load_segmenter(model: str = "embedded", device: str = "auto", adapter: str = "") -> Segmenter:
    """Loads a model and, if one is named, puts an adapter on it.

    Args:
        model: name of an installed model or path of a model folder.
        device: "auto", "cpu", "cuda" or "cuda:<n>".
        adapter: path of an adapter folder, "" for none.

    Raises:
        ModelError, AdapterError, DeviceError: as `Segmenter.load` and `Segmenter.load_adapter`.
    """
    segmenter = _load(model, device)
    if adapter:
        segmenter.load_adapter(Path(adapter))
    return segmenter


def _load(model: str, device: str) -> Segmenter:
    seam = os.environ.get(SEAM, "")
    if seam:
        module, separator, function = seam.partition(":")
        if not separator:
            raise UsageError(f"{SEAM} is {seam!r}.", "Set it to module:function, or not at all.")
        return getattr(importlib.import_module(module), function)(model, device)
    from progidiff.segmenter import Segmenter

    return Segmenter.load(model, device=device)
