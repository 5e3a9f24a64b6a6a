"""Keys that work while the panel is open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer


class Shortcuts:
    """Args:
    keys: what each key does. Letters typed into a text field are still typed there.
    """

    def __init__(self, keys: dict[str, Callable[[], None]]) -> None:
        self._keys = keys
        self._made: list[Any] = []

    def install(self, fallback_window: Any) -> None:
        """In the main window if there is one, so that the keys also work over the slice views."""
        window = slicer.util.mainWindow() or fallback_window
        for key, action in self._keys.items():
            shortcut = qt.QShortcut(qt.QKeySequence(key), window)
            shortcut.connect("activated()", action)
            self._made.append(shortcut)

    def remove(self) -> None:
        for shortcut in self._made:
            shortcut.setEnabled(False)
            shortcut.deleteLater()
        self._made = []
