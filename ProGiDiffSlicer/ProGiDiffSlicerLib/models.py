"""Which models there are on this computer, which one draws, and what each can draw."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ProGiDiffSlicerLib import settings
from ProGiDiffSlicerLib.adapters import Adapters
from ProGiDiffSlicerLib.engine import Engine
from ProGiDiffSlicerLib.errors import SegmentationError
from ProGiDiffSlicerLib.locations import resource

_LOG = logging.getLogger("ProGiDiffSlicer")
EMBEDDED_NAME = "progidiff-abdomen-small"  # what the engine loads for "embedded"


@dataclass(frozen=True)
class Model:
    """One model to choose.

    Attributes:
        choice: what the engine is asked to load: "embedded", a model's id, or a folder.
        name: what people call it.
        description: what it does, from its card; "" if that is not known.
        findings: ids of what it can draw besides organs, such as "liver_tumor".
        there: False for one that was chosen but is not on this computer.
    """

    choice: str
    name: str
    description: str = ""
    findings: tuple[str, ...] = ()
    there: bool = True


class Models:
    """The engine's list, as last heard, and the user's choice.

    Attributes:
        on_changed: called when the list or the choice changed.
    """

    def __init__(self, engine: Engine, adapters: Adapters) -> None:
        self._engine, self._adapters = engine, adapters
        self._listed: dict[str, Model] = {}
        self.on_changed: list[Callable[[], None]] = []
        engine.on_ready.append(self._heard)

    @property
    def known(self) -> list[Model]:
        """All to choose from, the chosen one among them wherever it comes from."""
        models = self._listed or {settings.EMBEDDED: _embedded()}
        return list({**models, self.chosen.choice: self.chosen}.values())

    @property
    def chosen(self) -> Model:
        """The one that draws from the next prompt on."""
        choice = settings.model()
        if choice in self._listed:
            return self._listed[choice]
        return _embedded() if choice == settings.EMBEDDED else self._unlisted(choice)

    @property
    def heard_of_all(self) -> bool:
        """The engine has said which models there are."""
        return bool(self._listed)

    def choose(self, choice: str) -> None:
        """Takes another model from the next prompt on; an adapter belongs to one model and is taken off."""
        if choice == settings.model():
            return
        settings.set_model(choice)
        if self._adapters.active:
            self._adapters.use("", lambda error: _LOG.info("%s", error))
        self._tell()

    def way_out(self, error: SegmentationError) -> SegmentationError:
        """The same error with what to choose, where the choice of the model is to blame."""
        if error.kind == "ModelError":
            return SegmentationError(
                error.message, "Choose another model in Advanced.", error.kind, error.details
            )
        if error.kind != "FindingError" or self.chosen.findings:
            return error
        able = [m.name for m in self.known if m.findings]
        remedy = f"Choose {able[0]} in Advanced" if able else "No model on this computer does"
        return SegmentationError(
            f"{self.chosen.name} draws organs, not tumors or other findings in them.",
            f"{remedy}, or ask for an organ.",
            error.kind,
            error.details,
        )

    def _heard(self) -> None:
        listed = [_model(m) for m in self._engine.greeting.get("models") or []]
        self._listed = {m.choice: m for m in listed}
        self._tell()

    def _unlisted(self, choice: str) -> Model:
        """A folder of the user's, or one that a scene from another computer asks for."""
        folder = Path(choice)
        there = (folder / "model_index.json").is_file() if folder.is_absolute() else not self._listed
        return Model(choice, folder.name, "", _findings(folder), there)

    def _tell(self) -> None:
        for tell in self.on_changed:
            tell()


def _embedded() -> Model:
    folder = Path(resource("organs.json")).parent / "Models" / EMBEDDED_NAME
    return Model(settings.EMBEDDED, EMBEDDED_NAME, "", _findings(folder))


def _model(described: dict[str, Any]) -> Model:
    """From an entry of the worker's `hello`."""
    name = str(described["id"])
    choice = settings.EMBEDDED if described.get("embedded") else name
    findings = tuple(described.get("findings") or ())
    return Model(choice, name, str(described.get("description") or ""), findings)


def _findings(folder: Path) -> tuple[str, ...]:
    """What a model folder says it can draw besides organs, where the engine has not listed it (yet)."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        _LOG.info("What the model in %s can draw is not known: %s", folder, problem)
        return ()
    said = index.get("findings") if isinstance(index, dict) else ""
    return tuple(said.split()) if isinstance(said, str) else ()
