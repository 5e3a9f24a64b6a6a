"""What several adaptations have learnt, side by side, and whether their figures may be compared."""

from __future__ import annotations

from typing import Any

import qt

from ProGiDiffSlicerLib.organs import organs

_FEW = 2  # held-out cases that are named; of more only the number is told
_SIZE = (640, 420)  # pixels


class CompareDialog:
    """A window that stays open beside the panel: one column an adapter, one row a fact or an organ.

    Args:
        parent: widget that it belongs to.
    """

    def __init__(self, parent: Any) -> None:
        self._window = qt.QDialog(parent)
        self._window.objectName = "compareDialog"
        self._window.windowTitle = "What was learnt, side by side"
        self._window.resize(*_SIZE)
        self._table, self._notes = qt.QTreeWidget(), qt.QLabel()
        self._table.objectName, self._notes.objectName = "compareTree", "compareNotes"
        self._table.rootIsDecorated = False
        self._table.alternatingRowColors = True
        self._notes.wordWrap = True
        close = qt.QPushButton("Close")
        close.connect("clicked()", self._close)
        layout = qt.QVBoxLayout(self._window)
        for widget in (self._table, self._notes, close):
            layout.addWidget(widget)

    def show(self, compared: dict[str, Any]) -> None:
        """Fills the window and opens it.

        Args:
            compared: result of `adapters_compare`, see Logic/progidiff/worker/PROTOCOL.md.
        """
        columns = compared["adapters"]
        self._table.clear()
        self._table.setColumnCount(1 + len(columns))
        self._table.setHeaderLabels(["Overlap before → after", *(column["name"] for column in columns)])
        self._add("Base model", [column["base_model"] for column in columns])
        self._add("Cases it learnt from", [str(column["cases"]) for column in columns])
        self._add("Measured on", [_held_out(column) for column in columns], [c["how"] for c in columns])
        for organ in compared["organs"]:
            name = organs()[organ].name if organ in organs() else organ
            self._add(name, [_change(column["organs"].get(organ)) for column in columns])
        self._add("Mean", [_change(column["mean"]) for column in columns])
        self._add("Synthetic patient", [_change(column["forgetting"]) for column in columns])
        for column in range(1 + len(columns)):
            self._table.resizeColumnToContents(column)
        self._notes.text = " ".join(compared["notes"])
        self._window.show()
        self._window.activateWindow()

    def _add(self, name: str, values: list[str], hints: list[str] | None = None) -> None:
        row = qt.QTreeWidgetItem()
        self._table.addTopLevelItem(row)
        for number, text in enumerate((name, *values)):
            row.setText(number, text)
            row.setToolTip(number, hints[number - 1] if hints and number else text)

    def _close(self) -> None:
        self._window.hide()


def _held_out(column: dict[str, Any]) -> str:
    """The cases that judged; how they did is in the tool tip."""
    cases = column["held_out"]
    if cases is None:
        return "not recorded"
    if not cases:
        return "nothing held out"
    return ", ".join(cases) if len(cases) <= _FEW else f"slices of {len(cases)} cases"


def _change(score: dict[str, float] | None) -> str:
    return f"{100 * score['before']:.0f} → {100 * score['after']:.0f} %" if score else "–"
