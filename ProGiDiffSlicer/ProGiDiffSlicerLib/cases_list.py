"""The cases so far, by organ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt

from ProGiDiffSlicerLib import columns

_CASE_ROLE, _ORGAN_ROLE = qt.Qt.UserRole, qt.Qt.UserRole + 1
_NAME, _SLICES, _DATE, _BY = range(4)


class CasesList:
    """Shows CASE objects of Logic/progidiff/worker/PROTOCOL.md in a QTreeWidget.

    Args:
        tree: the QTreeWidget of the .ui.
        on_selected: called when another row became current.
    """

    def __init__(self, tree: Any, on_selected: Callable[[], None]) -> None:
        self._tree = tree
        self._cases: dict[str, dict[str, Any]] = {}
        columns.fit(tree, minor=_DATE)
        tree.connect("currentItemChanged(QTreeWidgetItem*,QTreeWidgetItem*)", on_selected)

    def show(self, cases: list[dict[str, Any]], damaged: list[str]) -> None:
        """Fills the list anew.

        Args:
            damaged: ids of cases that cannot be read; they can be removed.
        """
        self._cases = {case["case_id"]: case for case in cases}
        self._tree.clear()
        by_organ: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
        for case in cases:
            for organ in case["organs"]:
                by_organ.setdefault(organ["organ"], []).append((case, organ))
        for rows in sorted(by_organ.values(), key=lambda rows: rows[0][1]["name"]):
            self._add_group(rows)
        if damaged:
            self._add_damaged(damaged)

    def selected(self) -> tuple[dict[str, Any], str] | None:
        """The case and the id of the organ of the current row; "" for a damaged case as a whole."""
        item = self._tree.currentItem()
        case_id = str(item.data(_NAME, _CASE_ROLE) or "") if item is not None else ""
        if case_id not in self._cases:
            return None
        return self._cases[case_id], str(item.data(_NAME, _ORGAN_ROLE))

    def _add_head(self, text: str) -> Any:
        head = qt.QTreeWidgetItem()
        head.setText(_NAME, text)
        head.setFlags(qt.Qt.ItemIsEnabled)
        font = qt.QFont(self._tree.font)
        font.setBold(True)
        head.setFont(_NAME, font)
        self._tree.addTopLevelItem(head)
        head.setFirstColumnSpanned(True)
        return head

    def _add_damaged(self, ids: list[str]) -> None:
        head = self._add_head(f"Damaged: {count_of(len(ids))}")
        for case_id in ids:
            self._cases[case_id] = {"case_id": case_id, "source": case_id}
            row = qt.QTreeWidgetItem()
            head.addChild(row)
            row.setText(_NAME, case_id)
            row.setToolTip(_NAME, "It cannot be read. Remove it and add it again.")
            row.setData(_NAME, _CASE_ROLE, case_id)
            row.setData(_NAME, _ORGAN_ROLE, "")
        head.setExpanded(True)

    def _add_group(self, rows: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
        name = rows[0][1]["name"]
        head = self._add_head(f"{name[:1].upper()}{name[1:]}: {count_of(len(rows))}")
        for case, organ in rows:
            row = qt.QTreeWidgetItem()
            head.addChild(row)
            texts = _texts(case, organ)
            hint = "{}\nSlices: {}\nChecked: {} {}\n{}".format(*texts, case["path"])
            for column, text in enumerate(texts):
                row.setText(column, text)
                row.setToolTip(column, hint)
            row.setData(_NAME, _CASE_ROLE, case["case_id"])
            row.setData(_NAME, _ORGAN_ROLE, organ["organ"])
        head.setExpanded(True)


def count_of(cases: int) -> str:
    return f"{cases} case{'' if cases == 1 else 's'}"


def _texts(case: dict[str, Any], organ: dict[str, Any]) -> tuple[str, str, str, str]:
    """One for each column."""
    return f"{case['source']} ({case['modality']})", _slices(case, organ), organ["date"][:10], organ["by"]


def _slices(case: dict[str, Any], organ: dict[str, Any]) -> str:
    """Which were checked, first and last of each range."""
    if organ["slices"] == [[0, case["shape"][case["slice_axis"]]]]:
        return "all"
    return ", ".join(f"{first}–{end - 1}" for first, end in organ["slices"])
