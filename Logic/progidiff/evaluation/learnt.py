"""Which cases a model has learnt from: figures on those say little of new patients."""

from __future__ import annotations

import json

from progidiff.errors import ModelError


def learnt_cases(model: str) -> set[str]:
    """Ids of the training cases that a model folder lists in `training_data.json`.

    Args:
        model: name of an installed model or path of a model folder.

    Returns:
        An empty set where the model does not say.
    """
    from progidiff.pipelines.model_folder import model_folder

    try:
        path = model_folder(model) / "training_data.json"
        return set(json.loads(path.read_text(encoding="utf-8"))["cases"])
    except (ModelError, OSError, ValueError, KeyError, TypeError):
        return set()
