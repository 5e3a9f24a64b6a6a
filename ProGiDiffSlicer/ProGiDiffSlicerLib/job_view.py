"""A bar and a sentence: how far a job is and what came of it."""

from __future__ import annotations

import re
from typing import Any

import qt

_RED, _RED_ON_DARK = "#b3261e", "#ff8a80"
_LONG_WORD = re.compile(r"[^\s/-]{25,}")  # longer than a line of a narrow panel; Qt itself breaks at / and -
_LINE_OF_IT = re.compile(r"(.{1,23}[\\_]|.{24})(?=.)")
_MAY_BREAK = "\u200b"
_BAR_MARGINS = 12  # pixels


class JobView:
    """Args:
    bar: QProgressBar with a maximum of 1000, hidden while nothing runs; None where only sentences are said.
    label: QLabel for the last sentence, as wide as the bar.
    """

    def __init__(self, bar: Any, label: Any) -> None:
        self._bar, self._label = bar, label

    def progress(self, fraction: float, text: str) -> None:
        self._bar.setVisible(True)
        self._bar.setValue(round(1000 * fraction))
        room = self._label.width - _BAR_MARGINS  # the bar's own width is not known when it was just shown
        self._bar.setFormat(self._bar.fontMetrics().elidedText(text, qt.Qt.ElideMiddle, room))
        self._bar.setToolTip(text)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.setVisible(False)

    def say(self, text: str, problem: bool = False) -> None:
        self._label.setStyleSheet(f"color: {problem_color(self._label)};" if problem else "")
        self._label.setText(breakable(text))


def problem_color(widget: Any) -> str:
    """A red that can be read on the widget's background, in Slicer's dark style too."""
    background = widget.palette.color(qt.QPalette.Window)
    return _RED_ON_DARK if background.lightness() < 128 else _RED


def breakable(text: str) -> str:
    """The same to look at, but lines may end within long names and paths, which would else be cut off."""
    return _LONG_WORD.sub(lambda word: _LINE_OF_IT.sub(rf"\1{_MAY_BREAK}", word[0]), text)


def time_left(seconds: float | None) -> str:
    """To be put after a sentence, such as ", about 3 min left"."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f", about {max(1, round(seconds))} s left"
    return f", about {round(seconds / 60)} min left"
