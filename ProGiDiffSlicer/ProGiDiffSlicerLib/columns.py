"""Columns of the panel's lists: names take the room that the others leave, however narrow the panel is."""

from __future__ import annotations

from typing import Any

import qt

_NARROW = 310  # pixels of a list, below which all columns would leave no room to read a name
_WIDEST = 80  # pixels of any column but the names


def fit(tree: Any, minor: int | None = None) -> None:
    """The first column is for names; the others are as wide as their texts.

    Args:
        tree: QTreeWidget with its columns.
        minor: a column that is hidden in a narrow panel; a tool tip should say the same.
    """
    header = tree.header()
    header.setStretchLastSection(False)
    header.setMaximumSectionSize(_WIDEST)
    header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
    for column in range(1, tree.columnCount):
        header.setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
    if minor is not None:
        header.connect("sectionResized(int,int,int)", lambda: _hide_if_narrow(tree, minor))


def _hide_if_narrow(tree: Any, column: int) -> None:
    tree.setColumnHidden(column, tree.viewport().width < _NARROW)
