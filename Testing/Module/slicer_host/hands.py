"""Hands and eyes of a user: clicks, keys, and what can be read on the panel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PySide6.QtCore import QPoint, QRect, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QStyle, QStyleOptionViewItem, QTreeWidgetItem, QWidget

from slicer_host.pythonqt import unwrap


class Hands:
    """Works the panel only through events that a mouse and a keyboard can send."""

    def __init__(self, widget: Any) -> None:
        self.widget = widget
        self.ui = widget.ui

    def it(self, name: str) -> Any:
        """The bare Qt widget of that name."""
        return unwrap(getattr(self.ui, name))

    def click(self, name: str) -> None:
        button = self.it(name)
        self.reveal(button)
        if not button.isEnabled():
            raise AssertionError(f"{name} cannot be pressed now")
        if not button.isVisible():
            raise AssertionError(f"{name} cannot be seen now")
        QTest.mouseClick(button, Qt.MouseButton.LeftButton, pos=button.rect().center())
        QApplication.processEvents()

    def fold(self, section: str) -> None:
        """Clicks the title of a section."""
        QTest.mouseClick(self.it(section), Qt.MouseButton.LeftButton, pos=QPoint(30, 10))
        QApplication.processEvents()

    def tick_box(self, name: str) -> None:
        box = self.it(name)
        self.reveal(box)
        QTest.mouseClick(box, Qt.MouseButton.LeftButton, pos=QPoint(8, box.height() // 2))

    def type(self, name: str, text: str, enter: bool = False) -> None:
        line = self.it(name)
        line.setFocus()
        line.selectAll()
        QTest.keyClick(line, Qt.Key.Key_Delete)
        QTest.keyClicks(line, text)
        if line.completer() is not None:
            line.completer().popup().hide()
        if enter:
            QTest.keyClick(line, Qt.Key.Key_Return)
        QApplication.processEvents()

    def press(self, key: Qt.Key, name: str | None = None) -> None:
        self.window.activateWindow()
        QTest.qWaitForWindowActive(self.window)
        target = self.it(name) if name else self.window
        QTest.keyClick(target, key)
        QApplication.processEvents()

    def choose(self, name: str, text: str) -> None:
        """Picks an entry of a combo box by its text."""
        box = self.it(name)
        box = box if hasattr(box, "findText") else box._box
        index = box.findText(text)
        if index < 0:
            raise AssertionError(f"{name} has no entry {text!r}")
        box.setFocus()
        while box.currentIndex() != index:
            QTest.keyClick(box, Qt.Key.Key_Down if box.currentIndex() < index else Qt.Key.Key_Up)
        QApplication.processEvents()

    def pick(self, name: str, text: str) -> None:
        """Opens the menu of a button and clicks the entry that begins with a text."""
        button = self.it(name)
        self.reveal(button)
        if not (button.isEnabled() and button.isVisible()):
            raise AssertionError(f"{name} cannot be pressed now")
        menu = button.menu()
        menu.popup(button.mapToGlobal(QPoint(0, button.height())))
        QApplication.processEvents()
        found = [a for a in menu.actions() if a.text().startswith(text)]
        if not found:
            menu.hide()
            raise AssertionError(f"{name} offers {[a.text() for a in menu.actions()]}, not {text!r}")
        QTest.mouseClick(menu, Qt.MouseButton.LeftButton, pos=menu.actionGeometry(found[0]).center())
        QApplication.processEvents()

    def slide(self, name: str, to: int) -> None:
        """Moves a slider by the keyboard."""
        slider = self.it(name)
        self.reveal(slider)
        slider.setFocus()
        while slider.value() != to:
            QTest.keyClick(slider, Qt.Key.Key_Right if slider.value() < to else Qt.Key.Key_Left)

    def turn(self, name: str, value: int) -> None:
        """Types a number into a spin box."""
        box = self.it(name)
        self.reveal(box)
        if not (box.isEnabled() and box.isVisible()):
            raise AssertionError(f"{name} cannot be used now")
        box.selectAll()
        self.hands_type(box, str(value))

    @property
    def window(self) -> QWidget:
        return self.it("proposalsTree").window()

    def reveal(self, widget: QWidget) -> None:
        area = self.window.centralWidget()
        QApplication.processEvents()
        area.ensureWidgetVisible(widget)
        QApplication.processEvents()

    def fit(self, width: int = 480) -> None:
        """Makes the window as high as the panel now is, so that nothing scrolls."""
        bar = self.window.centralWidget().verticalScrollBar()
        self.window.resize(width, 300)
        QApplication.processEvents()
        while bar.maximum() > 0:
            self.window.resize(width, self.window.height() + bar.maximum())
            QApplication.processEvents()

    def rows(self) -> list[QTreeWidgetItem]:
        """The proposals in the list, top to bottom, without the groups' titles."""
        tree = self.it("proposalsTree")
        heads = [tree.topLevelItem(i) for i in range(tree.topLevelItemCount())]
        rows = [head.child(i) for head in heads for i in range(head.childCount())]
        return [r for r in rows if r.data(0, Qt.ItemDataRole.UserRole)]

    def titles(self) -> list[str]:
        tree = self.it("proposalsTree")
        return [tree.topLevelItem(i).text(0) for i in range(tree.topLevelItemCount())]

    def click_row(self, row: QTreeWidgetItem) -> None:
        tree = self.it("proposalsTree")
        tree.scrollToItem(row)
        place = tree.visualItemRect(row)
        QTest.mouseClick(
            tree.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(place.right() - 20, place.center().y())
        )
        QApplication.processEvents()

    def tick_row(self, row: QTreeWidgetItem) -> None:
        """Clicks the tick box at the left of a row."""
        tree = self.it("proposalsTree")
        tree.scrollToItem(row)
        option = QStyleOptionViewItem()
        option.initFrom(tree)
        option.rect = tree.visualItemRect(row)
        option.features |= QStyleOptionViewItem.ViewItemFeature.HasCheckIndicator
        box: QRect = tree.style().subElementRect(
            QStyle.SubElement.SE_ItemViewItemCheckIndicator, option, tree
        )
        before = row.checkState(0)
        QTest.mouseClick(tree.viewport(), Qt.MouseButton.LeftButton, pos=box.center())
        QApplication.processEvents()
        if row.checkState(0) == before:
            raise AssertionError("the tick box was not where a row's tick box is")

    def status(self) -> str:
        """As it is read: where a line may end within a word is not seen."""
        return self.it("statusLabel").text().replace("\u200b", "")

    def screenshot(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        QApplication.processEvents()
        self.window.grab().save(str(path))

    def hands_type(self, widget: QWidget, text: str) -> None:
        """Types into a widget that has no name of its own, then leaves it."""
        widget.setFocus()
        QTest.keyClicks(widget, text)
        QTest.keyClick(widget, Qt.Key.Key_Return)
        QApplication.processEvents()
