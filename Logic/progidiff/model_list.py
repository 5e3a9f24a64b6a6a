"""Which models are on this computer. Knows nothing of torch, so that a list is there at once."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from progidiff.errors import ModelError
from progidiff.resources import resources_folder

EMBEDDED = "embedded"
"""Name under which the model that ships with the project is asked for."""
EMBEDDED_FOLDER = "progidiff-abdomen-small"
SHORT_NAMES = {EMBEDDED: EMBEDDED_FOLDER, "textdiffseg": "textdiffseg-abdomen-small"}


@dataclass(frozen=True)
class InstalledModel:
    """A model folder in the diffusers layout.

    Attributes:
        id: the folder's name, by which it can be asked for.
        path: the folder.
        description: first paragraph of its model card, "" without one.
        findings: ids of what it draws besides organs, such as "liver_tumor".
    """

    id: str
    path: Path
    description: str
    findings: tuple[str, ...] = ()

    @property
    def is_embedded(self) -> bool:
        """Whether it is what "embedded" stands for."""
        return self.path == embedded_folder()


def embedded_folder() -> Path:
    """Where the model that ships with the project lies."""
    return resources_folder() / "Models" / EMBEDDED_FOLDER


def user_models_folder() -> Path:
    """Where a user's own models lie; `PROGIDIFF_MODELS` overrides the system's usual place."""
    if override := os.environ.get("PROGIDIFF_MODELS"):
        return Path(override)
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local")) / "ProGiDiff" / "models"
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "ProGiDiff" / "models"
    return Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "progidiff" / "models"


def installed_models() -> list[InstalledModel]:
    """The models in `Resources/Models`, then those in the user's folder, each by name."""
    return _models_in(resources_folder() / "Models") + _models_in(user_models_folder())


def _models_in(folder: Path) -> list[InstalledModel]:
    if not folder.is_dir():
        return []
    found = sorted(path.parent for path in folder.glob("*/model_index.json"))
    return [
        InstalledModel(path.name, path, card_summary(path / "README.md"), findings_of(path)) for path in found
    ]


def findings_of(folder: Path) -> tuple[str, ...]:
    """Ids of the findings that the model in a folder draws, told without loading it.

    As the pipeline's configuration lists them, separated by spaces; none if it cannot be read: loading the
    model will say what is wrong with it.
    """
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ()
    said = index.get("findings") if isinstance(index, dict) else None
    return tuple(said.split()) if isinstance(said, str) else ()


def card_summary(card: Path) -> str:
    """First paragraph of prose in a model card, after its YAML header and headings; "" without one."""
    try:
        text = card.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    if text.startswith("---"):
        text = text.partition("\n---")[2].partition("\n")[2]
    for paragraph in text.split("\n\n"):
        lines = [line.strip() for line in paragraph.splitlines() if not line.lstrip().startswith("#")]
        if summary := " ".join(filter(None, lines)):
            return summary
    return ""


def weights_hash(folder: Path) -> str:
    """SHA-256 over the names and contents of all safetensors files below a model folder.

    Raises:
        ModelError: a file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for path in sorted(
            folder.rglob("*.safetensors"), key=lambda path: path.relative_to(folder).as_posix()
        ):
            with path.open("rb") as file:
                content = hashlib.sha256()
                while block := file.read(1 << 20):
                    content.update(block)
            digest.update(f"{path.relative_to(folder).as_posix()} {content.hexdigest()}\n".encode())
    except OSError as error:
        raise ModelError(f"The model in {folder} cannot be read ({error}).", "Install it again.") from error
    return digest.hexdigest()


def require_model(name: str) -> InstalledModel:
    """The installed model of that name, or of that short name.

    Raises:
        ModelError: there is none; the message lists those there are.
    """
    models = installed_models()
    for model in models:
        if SHORT_NAMES.get(name, name) in (model.id, str(model.path)):
            return model
    known = ", ".join(model.id for model in models) or "none"
    raise ModelError(f"There is no model {name!r} on this computer.", f"Installed models: {known}.")
