"""What the model has learnt from cases on this computer, and which of it is in use."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ProGiDiffSlicerLib import settings
from ProGiDiffSlicerLib.engine import Engine
from ProGiDiffSlicerLib.errors import SegmentationError

_LOG = logging.getLogger("ProGiDiffSlicer")
Failed = Callable[[SegmentationError], None]


class Adapters:
    """Asks the worker about its adapters; which one is in use is a setting of this computer.

    Attributes:
        known: ADAPTER objects of Logic/progidiff/worker/PROTOCOL.md, newest first, as last heard.
        problems: a sentence for each that is damaged.
        on_changed: called when any of this changed.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.known: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self.on_changed: list[Callable[[], None]] = []

    @property
    def active(self) -> str:
        """Folder of the one in use; "" for the model as it comes."""
        return settings.adapter()

    def get(self, path: str) -> dict[str, Any] | None:
        return next((a for a in self.known if a["path"] == path), None)

    def refresh(self, failed: Failed | None = None) -> None:
        """Asks which there are."""
        self._engine.ask("adapters_list", self._listed, failed or _log)

    def use(self, path: str, failed: Failed) -> None:
        """Takes an adapter into use, or none (""), at once and for later."""
        chosen = self.get(path)
        settings.set_adapter(path, chosen["name"] if chosen else "")
        self._tell()

        def undo(error: SegmentationError) -> None:
            self._engine.adapter_is("")
            settings.set_adapter("", "")
            self._tell()
            failed(error)

        self._engine.use_adapter(path, self.refresh if self._engine.greeting else self._tell, undo)

    def learnt(self, result: dict[str, Any]) -> None:
        """An adaptation has ended: the worker uses what got better already."""
        adapter = result.get("adapter")
        if adapter and result.get("activated"):
            settings.set_adapter(adapter["path"], adapter["name"])
            self._engine.adapter_is(adapter["path"])

    def rename(self, path: str, name: str, failed: Failed) -> None:
        def renamed(answer: dict[str, Any]) -> None:
            if path == self.active:
                settings.set_adapter(path, answer["adapter"]["name"])
            self.refresh()

        self._engine.ask("adapter_rename", renamed, failed, {"path": path, "name": name})

    def compare(self, paths: list[str], done: Callable[[dict[str, Any]], None], failed: Failed) -> None:
        """Sets two or more side by side."""
        self._engine.ask("adapters_compare", done, failed, {"paths": paths})

    def export(self, path: str, target: str, done: Callable[[str], None], failed: Failed) -> None:
        """Writes one to a .zip file, without pictures of patients."""
        self._engine.ask(
            "adapter_export",
            lambda answer: done(str(answer["target"])),
            failed,
            {"path": path, "target": target},
        )

    def take_in(self, source: str, done: Callable[[dict[str, Any]], None], failed: Failed) -> None:
        """Imports an exported one, if it fits the model."""

        def imported(answer: dict[str, Any]) -> None:
            done(answer["adapter"])
            self.refresh()

        self._engine.ask("adapter_import", imported, failed, {"source": source}, with_model=True)

    def delete(self, path: str, failed: Failed) -> None:
        def deleted(_answer: dict[str, Any]) -> None:
            if path == self.active:
                settings.set_adapter("", "")
                self._engine.adapter_is("")
            self.refresh()

        self._engine.ask("adapter_delete", deleted, failed, {"path": path})

    def _listed(self, answer: dict[str, Any]) -> None:
        self.known, self.problems = answer["adapters"], answer["problems"]
        self._tell()

    def _tell(self) -> None:
        for tell in self.on_changed:
            tell()


def _log(error: SegmentationError) -> None:
    _LOG.info("The adapters are not known: %s", error)
