"""The line one types into: completion from the organ table, earlier prompts, an example as placeholder."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import qt

from ProGiDiffSlicerLib import settings
from ProGiDiffSlicerLib.models import Models
from ProGiDiffSlicerLib.organs import EXAMPLES, prompt_completions

_LAST_SEPARATOR = re.compile(r"^(.*(?:,|;|\+|\band\b|&)\s*)", re.IGNORECASE)


class PromptLine:
    """Args:
    edit: QLineEdit.
    history_button: QToolButton whose menu lists earlier prompts.
    on_enter: called when Enter is pressed.
    on_typing: called when the user types.
    models: what the chosen one can draw is what completion offers.
    """

    def __init__(
        self,
        edit: Any,
        history_button: Any,
        on_enter: Callable[[], None],
        on_typing: Callable[[], None],
        models: Models,
    ) -> None:
        self._edit, self._models = edit, models
        edit.setPlaceholderText(f"for example: {EXAMPLES[0]}")
        self._offers = qt.QStringListModel()
        self._completer = qt.QCompleter(edit)
        self._completer.setModel(self._offers)
        self._completer.setCaseSensitivity(qt.Qt.CaseInsensitive)
        self._completer.setFilterMode(qt.Qt.MatchContains)
        self._completer.setMaxVisibleItems(8)
        edit.setCompleter(self._completer)
        edit.connect("textEdited(QString)", self._offer)
        edit.connect("textEdited(QString)", on_typing)
        edit.connect("returnPressed()", on_enter)
        self._menu = qt.QMenu(history_button)
        history_button.setMenu(self._menu)
        self._menu.connect("aboutToShow()", self._fill_history)
        self._beginning = ""
        models.on_changed.append(self._renew_offers)
        self._renew_offers()

    def text(self) -> str:
        return self._edit.text.strip()

    def remember(self) -> None:
        settings.remember_prompt(self.text())

    def _offer(self, typed: str) -> None:
        """After "liver and " the completion goes on with the next organ."""
        before = _LAST_SEPARATOR.match(typed)
        beginning = before.group(1) if before else ""
        if beginning != self._beginning:
            self._beginning = beginning
            self._renew_offers()

    def _renew_offers(self) -> None:
        beginning, known = self._beginning, prompt_completions(self._models.chosen.findings)
        self._offers.setStringList(
            [beginning + c for c in known if not (beginning and c.startswith("segment"))]
        )

    def _fill_history(self) -> None:
        self._menu.clear()
        for prompt in settings.history() or list(EXAMPLES):
            action = self._menu.addAction(prompt)
            action.connect("triggered()", lambda chosen=prompt: self._edit.setText(chosen))
