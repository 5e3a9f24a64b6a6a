"""Which cases a model has learnt from: figures on those say little of new patients."""

from __future__ import annotations

import json
from pathlib import Path

from progidiff.errors import ModelError


def learnt_cases(model: str) -> set[str]:
    """Ids of the training cases that a model or a training run lists in `training_data.json`.

    Args:
        model: name of an installed model, or path of a model's or run's folder.

    Returns:
        An empty set where the model does not say.
    """
    from progidiff.pipelines.model_folder import model_folder

    try:
        folder = Path(model) if Path(model).is_dir() else model_folder(model)
        path = folder / "training_data.json"
        return set(json.loads(path.read_text(encoding="utf-8"))["cases"])
    except (ModelError, OSError, ValueError, KeyError, TypeError):
        return set()
