"""What the model has learnt: an honest before and after, and what can be done with it."""

from __future__ import annotations

from typing import Any

import qt
import slicer

from ProGiDiffSlicerLib import columns
from ProGiDiffSlicerLib.adapters import Adapters
from ProGiDiffSlicerLib.compare_dialog import CompareDialog
from ProGiDiffSlicerLib.errors import SegmentationError
from ProGiDiffSlicerLib.job_view import JobView
from ProGiDiffSlicerLib.organs import organs

_NOTHING = "Nothing yet: add cases, then press Adapt to my cases."
_HIGHEST_PICTURE, _MARGINS = 440, 12  # pixels; what is higher scrolls


class LearntSection:
    """Args:
    ui: the panel's widgets.
    logic: ProGiDiffSlicerLogic.
    """

    def __init__(self, ui: Any, logic: Any) -> None:
        self._ui, self._logic = ui, logic
        self._adapters: Adapters = logic.adapters
        self._shown = ""  # path of the adapter that is shown
        self._paths: list[str] = []
        self._asked = False
        self._view = JobView(None, ui.learntStatus)
        self._comparison: CompareDialog | None = None
        columns.fit(ui.learntTree)
        ui.learntBox.connect("activated(int)", self._chosen)
        ui.learntNameEdit.connect("editingFinished()", self._renamed)
        ui.useButton.connect("clicked()", self.use)
        ui.compareButton.connect("clicked()", self.compare)
        ui.exportButton.connect("clicked()", self.export)
        ui.importButton.connect("clicked()", self.take_in)
        ui.deleteButton.connect("clicked()", self.delete)
        ui.learntSection.connect("contentsCollapsed(bool)", self._unfolded)
        self._adapters.on_changed.append(self.show)
        self.show()

    def show(self) -> None:
        """The known adapters and the facts of the one that is shown."""
        box, known = self._ui.learntBox, self._adapters.known
        self._paths = [adapter["path"] for adapter in known]
        if self._shown not in self._paths:
            active = self._adapters.active
            self._shown = active if active in self._paths else next(iter(self._paths), "")
        box.clear()
        for adapter in known:
            box.addItem(_title(adapter, self._adapters.active))
        if self._shown:
            box.setCurrentIndex(self._paths.index(self._shown))
        self._show_facts()
        if self._adapters.problems:
            self._view.say(" ".join(self._adapters.problems), problem=True)
        self.refresh()

    def show_new(self, adapter: dict[str, Any]) -> None:
        """An adaptation has ended: unfolds and shows what came of it."""
        self._asked, self._shown = True, adapter["path"]
        self._adapters.refresh(self._failed)
        self._ui.learntSection.collapsed = False

    def refresh(self) -> None:
        """Enables what can be pressed."""
        ui, busy, adapter = self._ui, self._logic.engine.is_busy(), self._adapters.get(self._shown)
        for widget in (ui.exportButton, ui.deleteButton, ui.learntNameEdit):
            widget.setEnabled(adapter is not None and not busy)
        ui.learntBox.setEnabled(bool(self._paths))
        ui.importButton.setEnabled(not busy)
        ui.compareButton.setEnabled(len(self._paths) > 1 and not busy)
        fits = adapter is not None and adapter["fits"] is not False
        ui.useButton.setEnabled(fits and not busy)
        in_use = adapter is not None and self._shown == self._adapters.active
        ui.useButton.setText("Do without it" if in_use else "Use it")

    def use(self) -> None:
        """Takes the shown one into use, or puts it away."""
        path = "" if self._shown == self._adapters.active else self._shown
        self._view.say("")
        self._adapters.use(path, self._failed)

    def compare(self) -> None:
        """Shows all that was learnt side by side."""
        if self._comparison is None:
            self._comparison = CompareDialog(self._ui.learntSection)
        self._view.say("")
        self._adapters.compare(self._paths, self._comparison.show, self._failed)

    def export(self) -> None:
        name = self._adapters.get(self._shown)["name"]
        target = qt.QFileDialog.getSaveFileName(
            self._ui.learntSection, "Save what was learnt", f"{name}.zip", "Adapter (*.zip)"
        )
        if target:
            self._adapters.export(
                self._shown, target, lambda path: self._view.say(f"Saved as {path}."), self._failed
            )

    def take_in(self) -> None:
        source = qt.QFileDialog.getOpenFileName(
            self._ui.learntSection, "Take in what another computer has learnt", "", "Adapter (*.zip)"
        )

        def done(adapter: dict[str, Any]) -> None:
            self._shown = adapter["path"]
            self._view.say(f"Took in “{adapter['name']}”. Press Use it to work with it.")

        if source:
            self._view.say("Looking at it…")
            self._adapters.take_in(source, done, self._failed)

    def delete(self) -> None:
        name = self._adapters.get(self._shown)["name"]
        question = f"Delete “{name}”? The cases it learnt from stay."
        if slicer.util.confirmOkCancelDisplay(question, "Delete what was learnt"):
            self._adapters.delete(self._shown, self._failed)

    def _chosen(self, index: int) -> None:
        self._shown = self._paths[index]
        self._view.say("")
        self._show_facts()
        self.refresh()

    def _renamed(self) -> None:
        adapter, name = self._adapters.get(self._shown), self._ui.learntNameEdit.text.strip()
        if adapter is not None and name and name != adapter["name"]:
            self._adapters.rename(self._shown, name, self._failed)

    def _unfolded(self, collapsed: bool) -> None:
        if collapsed:
            return
        if not self._asked:
            self._asked = True
            self._adapters.refresh(self._failed)
        self._show_facts()

    def _failed(self, error: SegmentationError) -> None:
        self._view.say(str(error), problem=True)
        self.show()

    def _show_facts(self) -> None:
        ui, adapter = self._ui, self._adapters.get(self._shown)
        ui.learntTree.clear()
        ui.learntNameEdit.setText(adapter["name"] if adapter else "")
        ui.verdictLabel.setText("\n\n".join(_sentences(adapter)) if adapter else _NOTHING)
        self._show_picture(adapter["picture"] if adapter else "")
        if adapter is None:
            return
        ui.learntTree.setToolTip(adapter["measured"]["how"])
        for organ, score in adapter["measured"]["organs"].items():
            self._add_row(
                organs()[organ].name if organ in organs() else organ, score["before"], score["after"]
            )
        checked = list(adapter["forgetting"]["organs"].values())
        if checked:
            before, after = (sum(s[when] for s in checked) / len(checked) for when in ("before", "after"))
            self._add_row(f"Synthetic patient ({len(checked)})", before, after)

    def _add_row(self, name: str, before: float, after: float) -> None:
        row = qt.QTreeWidgetItem()
        self._ui.learntTree.addTopLevelItem(row)
        for column, text in enumerate((name, f"{100 * before:.0f} %", f"{100 * after:.0f} %")):
            row.setText(column, text)
            if column:
                row.setTextAlignment(column, qt.Qt.AlignRight | qt.Qt.AlignVCenter)

    def _show_picture(self, path: str) -> None:
        ui = self._ui
        if ui.learntSection.collapsed:
            return
        picture = qt.QPixmap(path) if path else qt.QPixmap()
        ui.pictureArea.setVisible(not picture.isNull())
        if not picture.isNull():
            width = max(ui.learntTree.width - 40, 200)
            shown = picture.scaledToWidth(width, qt.Qt.SmoothTransformation)
            ui.pictureLabel.setPixmap(shown)
            ui.pictureArea.setFixedHeight(min(shown.height() + _MARGINS, _HIGHEST_PICTURE))


def _title(adapter: dict[str, Any], active: str) -> str:
    if adapter["path"] == active:
        return f"{adapter['name']} (in use)"
    return f"{adapter['name']} (for another model)" if adapter["fits"] is False else adapter["name"]


def _sentences(adapter: dict[str, Any]) -> list[str]:
    """Is it any better, and was anything forgotten?"""
    return [text for text in (adapter["verdict"], adapter["forgetting"].get("how", "")) if text]
