"""The one place where command line and worker get their Segmenter from."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from progidiff.errors import UsageError

if TYPE_CHECKING:
    from progidiff.prompts import Target
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


def targets_of(prompt: str, model: str) -> list[Target]:
    """What a prompt asks of a model, before that is loaded: its folder says which findings it draws.

    Raises:
        PromptError: nothing that is known, or a finding that this model does not draw.
        ModelError: there is no such model, or it is incomplete.
    """
    from progidiff.model_list import findings_of
    from progidiff.pipelines.model_folder import model_folder
    from progidiff.prompts import organ_table, parse_prompt

    targets = parse_prompt(prompt, organ_table().finding_ids)
    if os.environ.get(SEAM):
        return targets
    return parse_prompt(prompt, findings_of(model_folder(model)))


def check_adapter(adapter: str, model: str) -> None:
    """Whether an adapter, if one is named, can be put on a model, before that is loaded.

    Raises:
        AdapterError: it is missing, damaged, or made for another model.
        ModelError: there is no such model, or it is incomplete.
    """
    if not adapter or os.environ.get(SEAM):
        return
    from progidiff.adaptation.adapter import Adapter
    from progidiff.model_list import weights_hash
    from progidiff.pipelines.model_folder import model_folder

    Adapter.open(Path(adapter)).require_base(weights_hash(model_folder(model)))


def _load(model: str, device: str) -> Segmenter:
    seam = os.environ.get(SEAM, "")
    if seam:
        module, separator, function = seam.partition(":")
        if not separator:
            raise UsageError(f"{SEAM} is {seam!r}.", "Set it to module:function, or not at all.")
        return getattr(importlib.import_module(module), function)(model, device)
    from progidiff.segmenter import Segmenter

    return Segmenter.load(model, device=device)
