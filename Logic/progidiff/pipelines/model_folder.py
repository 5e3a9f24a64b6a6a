"""Finds a model folder and makes sure that it is complete and safe before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path

from progidiff.errors import ModelError
from progidiff.model_list import EMBEDDED, SHORT_NAMES, embedded_folder, require_model

_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
_LIBRARIES = {"diffusers", "transformers", "progidiff"}
_WITHOUT_WEIGHTS = {"tokenizer", "scheduler"}


def model_folder(model: str) -> Path:
    """The checked folder of a model.

    Args:
        model: "embedded", "textdiffseg", the name of an installed model, or a path.

    Raises:
        ModelError: it is not there, incomplete, or contains pickled weights.
    """
    if model == EMBEDDED:
        folder = embedded_folder()
    elif model in SHORT_NAMES:
        folder = require_model(model).path
    else:
        folder = Path(model) if Path(model).is_dir() else require_model(model).path
    check_model_folder(folder)
    return folder


def check_model_folder(folder: Path) -> None:
    """Raises ModelError unless `folder` is a complete diffusers folder with safetensors weights only."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise ModelError(f"{folder} is not a model: model_index.json is missing.", "Choose another folder.")
    pickles = sorted(p for p in folder.rglob("*") if p.suffix in _PICKLES)
    if pickles:
        raise ModelError(
            f"The model contains pickled weights ({pickles[0].name}), which could run any program.",
            "Use a model that is saved as safetensors.",
        )
    for name in _parts(index):
        _check_part(folder / name, name)


def _parts(index: Path) -> list[str]:
    """Names of the parts that model_index.json lists; their classes must come from where ours do."""
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))
        listed = {name: v for name, v in entries.items() if isinstance(v, list) and v[0] is not None}
        foreign = [name for name, (library, _) in listed.items() if library.split(".")[0] not in _LIBRARIES]
    except (OSError, ValueError, AttributeError, IndexError) as error:
        raise ModelError(f"{index} cannot be read ({error}).", "Install the model again.") from error
    if foreign:
        raise ModelError(
            f"The model's {foreign[0]} wants to run code of {listed[foreign[0]][0]!r}.",
            "Use a model made of the parts of this project.",
        )
    return list(listed)


def _check_part(part: Path, name: str) -> None:
    if not part.is_dir():
        raise ModelError(f"The model is incomplete: its {name} is missing.", "Install the model again.")
    if name in _WITHOUT_WEIGHTS:
        return
    weights = list(part.glob("*.safetensors"))
    if not weights:
        raise ModelError(f"The model is incomplete: {name} has no weights.", "Install the model again.")
    for file in weights:
        _check_safetensors(file)


def _check_safetensors(file: Path) -> None:
    """The header of a safetensors file says how long it must be."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length)) if 0 < length < file.stat().st_size else None
        if header is None:
            raise ValueError("no header")
        end = max((t["data_offsets"][1] for n, t in header.items() if n != "__metadata__"), default=0)
        if file.stat().st_size < 8 + length + end:
            raise ValueError("cut off")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"The weights {file.parent.name}/{file.name} are damaged ({error}).", "Install the model again."
        ) from error
