"""The CTK widgets that the panel uses, with the properties and signals of CTK's headers and no others."""

from __future__ import annotations

from PySide6.QtCore import Property, QEvent, QPoint, QRect, QSize, Qt, Signal
from PySide6.QtGui import QColor, QPainter, QPalette, QPolygon
from PySide6.QtWidgets import (
    QAbstractButton,
    QComboBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QLineEdit,
    QSizePolicy,
    QSlider,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QToolButton,
    QWidget,
)

_HEADER = 24


class ctkCollapsibleButton(QAbstractButton):
    """A titled section that folds; folding hides its children as CTK's does."""

    contentsCollapsed = Signal(bool)
    _only_properties = ("collapsed",)

    def __init__(self, text: object = None, parent: QWidget | None = None) -> None:
        super().__init__(text if isinstance(text, QWidget) else parent)
        if isinstance(text, str):
            self.setText(text)
        self._collapsed, self._hidden_by_us = False, []
        self.setCheckable(True)
        self.setChecked(True)
        self.setContentsMargins(0, _HEADER, 0, 0)
        self.setSizePolicy(QSizePolicy.Policy.Minimum, QSizePolicy.Policy.Preferred)
        self.toggled.connect(lambda open_: self._fold(not open_))

    def _get_collapsed(self) -> bool:
        return self._collapsed

    def setCollapsed(self, collapsed: bool) -> None:
        self.setChecked(not collapsed)

    collapsed = Property(bool, _get_collapsed, setCollapsed, notify=contentsCollapsed)

    def _fold(self, collapsed: bool) -> None:
        if collapsed == self._collapsed:
            return
        self._collapsed = collapsed
        if collapsed:
            self._hidden_by_us = [c for c in self.children() if isinstance(c, QWidget) and not c.isHidden()]
            for child in self._hidden_by_us:
                child.hide()
        else:
            for child in self._hidden_by_us:
                child.show()
            self._hidden_by_us = []
        self.setMaximumHeight(_HEADER if collapsed else 16777215)
        self.updateGeometry()
        self.contentsCollapsed.emit(collapsed)

    def childEvent(self, event: QEvent) -> None:
        super().childEvent(event)
        child = event.child()
        is_new_widget = event.type() == QEvent.Type.ChildPolished and isinstance(child, QWidget)
        if is_new_widget and self._collapsed and not child.isHidden():
            self._hidden_by_us.append(child)
            child.hide()

    def hitButton(self, position: object) -> bool:
        return position.y() < _HEADER

    def minimumSizeHint(self) -> QSize:
        return self.layout().totalMinimumSize() if self._is_open() else QSize(60, _HEADER)

    def sizeHint(self) -> QSize:
        return self.layout().totalSizeHint() if self._is_open() else QSize(120, _HEADER)

    def _is_open(self) -> bool:
        return self.layout() is not None and not self._collapsed

    def paintEvent(self, _event: QEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        palette = self.palette()
        painter.fillRect(
            0, 0, self.width(), _HEADER - 2, palette.color(QPalette.ColorRole.Button).darker(106)
        )
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(90, 90, 90))
        shape = [6, 9, 14, 9, 10, 14] if not self._collapsed else [8, 7, 13, 11, 8, 15]
        painter.drawPolygon(QPolygon([QPoint(x, y) for x, y in zip(shape[::2], shape[1::2], strict=True)]))
        painter.setPen(palette.color(QPalette.ColorRole.ButtonText))
        painter.drawText(
            QRect(20, 0, self.width() - 24, _HEADER - 2), Qt.AlignmentFlag.AlignVCenter, self.text()
        )


class ctkComboBox(QComboBox):
    """A combo box that can shorten the text it has no room for."""

    _only_properties = ("elideMode",)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._elide = Qt.TextElideMode.ElideNone

    def setElideMode(self, mode: Qt.TextElideMode) -> None:
        self._elide = mode
        self.update()

    elideMode = Property(Qt.TextElideMode, lambda s: s._elide, setElideMode)

    def paintEvent(self, _event: QEvent) -> None:
        painter, option = QStylePainter(self), QStyleOptionComboBox()
        self.initStyleOption(option)
        field = QStyle.SubControl.SC_ComboBoxEditField
        room = self.style().subControlRect(QStyle.ComplexControl.CC_ComboBox, option, field, self)
        option.currentText = option.fontMetrics.elidedText(option.currentText, self._elide, room.width())
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)


class ctkSliderWidget(QWidget):
    """A slider with a spin box; `value` is a double."""

    valueChanged = Signal(float)
    _only_properties = ("value", "minimum", "maximum", "singleStep", "decimals")

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._slider, self._box = QSlider(Qt.Orientation.Horizontal), QDoubleSpinBox()
        layout.addWidget(self._slider)
        layout.addWidget(self._box)
        self._slider.setRange(0, 100)
        self._box.setRange(0, 1)
        self._box.valueChanged.connect(self._from_box)
        self._slider.valueChanged.connect(self._from_slider)

    def _from_box(self, value: float) -> None:
        self._slider.blockSignals(True)
        span = (self._box.maximum() - self._box.minimum()) or 1
        self._slider.setValue(round(100 * (value - self._box.minimum()) / span))
        self._slider.blockSignals(False)
        self.valueChanged.emit(value)

    def _from_slider(self, tick: int) -> None:
        span = self._box.maximum() - self._box.minimum()
        self._box.setValue(self._box.minimum() + span * tick / 100)

    value = Property(float, lambda s: s._box.value(), lambda s, v: s._box.setValue(v))
    minimum = Property(float, lambda s: s._box.minimum(), lambda s, v: s._box.setMinimum(v))
    maximum = Property(float, lambda s: s._box.maximum(), lambda s, v: s._box.setMaximum(v))
    singleStep = Property(float, lambda s: s._box.singleStep(), lambda s, v: s._box.setSingleStep(v))
    decimals = Property(int, lambda s: s._box.decimals(), lambda s, v: s._box.setDecimals(v))

    def setValue(self, value: float) -> None:
        self._box.setValue(value)


class ctkPathLineEdit(QWidget):
    """A line for a path with a browse button."""

    currentPathChanged = Signal(str)
    _only_properties = ("currentPath", "nameFilters", "settingKey", "showHistoryButton", "showBrowseButton")

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._line, browse = QLineEdit(), QToolButton()
        browse.setText("…")
        layout.addWidget(self._line)
        layout.addWidget(browse)
        self._line.textChanged.connect(self.currentPathChanged)
        self._values = {"nameFilters": [], "settingKey": "", "history": True, "browse": True}

    currentPath = Property(str, lambda s: s._line.text(), lambda s, v: s._line.setText(v))
    nameFilters = Property(
        "QStringList", lambda s: s._values["nameFilters"], lambda s, v: s._values.update(nameFilters=v)
    )
    settingKey = Property(str, lambda s: s._values["settingKey"], lambda s, v: s._values.update(settingKey=v))
    showHistoryButton = Property(
        bool, lambda s: s._values["history"], lambda s, v: s._values.update(history=v)
    )
    showBrowseButton = Property(bool, lambda s: s._values["browse"], lambda s, v: s._values.update(browse=v))

    def setCurrentPath(self, path: str) -> None:
        self._line.setText(path)


_ALL = (ctkCollapsibleButton, ctkComboBox, ctkSliderWidget, ctkPathLineEdit)
WIDGETS: dict[str, type] = {c.__name__: c for c in _ALL}
