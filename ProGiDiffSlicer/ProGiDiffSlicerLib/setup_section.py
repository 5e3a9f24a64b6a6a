"""Is everything there that the engine needs? Green or red, and buttons that put it right."""

from __future__ import annotations

import html
from typing import Any

import qt
import slicer

from ProGiDiffSlicerLib import installation, settings
from ProGiDiffSlicerLib.errors import SegmentationError
from ProGiDiffSlicerLib.job_view import breakable, problem_color

_GREEN, _GREY = "#2e9d37", "#808080"


class SetupSection:
    """Folds away when all is well and unfolds when something is missing.

    Args:
        ui: the panel's widgets.
        logic: ProGiDiffSlicerLogic.
        on_interpreter: called after another interpreter was chosen.
    """

    def __init__(self, ui: Any, logic: Any, on_interpreter: Any) -> None:
        self._ui, self._logic, self._on_interpreter = ui, logic, on_interpreter
        ui.checkButton.connect("clicked()", self.check)
        ui.installButton.connect("clicked()", self.install)
        ui.otherPythonButton.connect("clicked()", self.choose_python)
        ui.removeDownloadsButton.connect("clicked()", self.remove_downloads)
        self._show([("Engine", "not started yet; press Self-check, or just Propose", None)])

    def refresh(self) -> None:
        """What ends the engine has to wait for the job that runs."""
        for button in (self._ui.installButton, self._ui.removeDownloadsButton):
            button.setEnabled(not self._logic.engine.is_busy())

    def check(self) -> None:
        """Starts the engine and asks it what it finds."""
        if self._logic.engine.is_busy():
            self._show([("Engine", "busy; wait for it, or press Cancel", None)])
            return
        self._ui.checkButton.setEnabled(False)
        self._show([("Engine", "starting…", None)])
        self._logic.engine.ask("doctor", self._found, self.show_problem)

    def _found(self, result: dict[str, Any]) -> None:
        self._ui.checkButton.setEnabled(True)
        lines = [(str(name), str(value), bool(ok)) for name, value, ok in result.get("lines", [])]
        self._show(lines)
        self._ui.setupSection.collapsed = bool(lines) and all(ok for _name, _value, ok in lines)

    def show_problem(self, error: SegmentationError) -> None:
        """Something about the set-up keeps the engine from working: unfolds and says what."""
        self._ui.checkButton.setEnabled(True)
        self._show([("Engine", str(error), False)])
        self._ui.setupSection.collapsed = False

    def install(self) -> None:
        if not slicer.util.confirmOkCancelDisplay(
            installation.question(), "Install what ProGiDiffSlicer needs"
        ):
            return
        self._logic.engine.stop()
        try:
            with slicer.util.WaitCursor():
                installation.install()
        except SegmentationError as error:
            self.show_problem(error)
            return
        self.check()

    def choose_python(self) -> None:
        path = qt.QFileDialog.getOpenFileName(self._ui.setupSection, "Choose a Python interpreter", "")
        if path:
            settings.set_interpreter(path)
            self._on_interpreter()
            self.check()

    def remove_downloads(self) -> None:
        if not slicer.util.confirmOkCancelDisplay(
            "Delete all models that ProGiDiffSlicer has downloaded? The embedded model stays.",
            "Remove downloads",
        ):
            return
        self._logic.engine.stop()
        try:
            self._show([("Downloads", f"{installation.remove_downloads()} MB freed", True)])
        except SegmentationError as error:
            self.show_problem(error)

    def _show(self, lines: list[tuple[str, str, bool | None]]) -> None:
        rows = []
        for name, value, ok in lines:
            color = _GREY if ok is None else _GREEN if ok else problem_color(self._ui.setupLabel)
            rows.append(
                f'<tr><td style="color:{color}">●&nbsp;</td><td><b>{html.escape(name)}</b>&nbsp;&nbsp;</td>'
                f"<td>{html.escape(breakable(value))}</td></tr>"
            )
        self._ui.setupLabel.setText(f"<table>{''.join(rows)}</table>")
