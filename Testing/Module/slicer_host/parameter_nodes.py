"""`slicer.parameterNodeWrapper` for the field and widget types that the module uses.

Values live in a real vtkMRMLScriptedModuleNode (references for nodes, text for the rest) so that they are
saved with the scene. Widgets are matched by exact type, as Slicer does.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

import slicer
import vtk


@dataclasses.dataclass
class Default:
    value: Any


@dataclasses.dataclass
class Choice:
    choices: list[Any]


@dataclasses.dataclass
class WithinRange:
    minimum: float
    maximum: float


def parameterNodeWrapper(cls: type) -> type:
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {name: _Field(name, hint, getattr(cls, name, None)) for name, hint in hints.items()}
    for name, field in fields.items():
        setattr(cls, name, property(field.read, field.write))

    def start(self: Any, parameterNode: Any) -> None:
        self.parameterNode = parameterNode
        self._links, self._updating = {}, False
        for field in fields.values():
            field.initialise(self)

    cls.__init__ = start
    cls.allParameters = fields
    cls.connectGui = _connect_gui
    cls.disconnectGui = _disconnect_gui
    cls.AddObserver = lambda self, event, callback, priority=0.0: self.parameterNode.AddObserver(
        event, callback, priority
    )
    cls.RemoveObserver = lambda self, tag: self.parameterNode.RemoveObserver(tag)
    cls.StartModify = lambda self: self.parameterNode.StartModify()
    cls.EndModify = lambda self, was: self.parameterNode.EndModify(was)
    return cls


class _Field:
    def __init__(self, name: str, hint: Any, default: Any) -> None:
        self.name = name
        annotated = typing.get_origin(hint) is typing.Annotated
        self.type = typing.get_args(hint)[0] if annotated else hint
        self.notes = list(typing.get_args(hint)[1:]) if annotated else []
        given = [n.value for n in self.notes if isinstance(n, Default)]
        self.default = default if default is not None else (given[0] if given else None)
        if self.default is None and self.type in (str, int, float, bool):
            self.default = self.type()
        if self.type not in (str, int, float, bool) and not self._is_node:
            raise TypeError(f"the host's parameterNodeWrapper does not know {hint}")

    @property
    def _is_node(self) -> bool:
        return isinstance(self.type, type) and issubclass(self.type, slicer.vtkMRMLNode)

    def note(self, kind: type) -> Any:
        return next((n for n in self.notes if isinstance(n, kind)), None)

    def initialise(self, wrapper: Any) -> None:
        if not self._is_node and wrapper.parameterNode.GetParameter(self.name) == "":
            self.write(wrapper, self.default)

    def read(self, wrapper: Any) -> Any:
        if self._is_node:
            return wrapper.parameterNode.GetNodeReference(self.name)
        text = wrapper.parameterNode.GetParameter(self.name)
        return text == "True" if self.type is bool else self.type(text or self.default)

    def write(self, wrapper: Any, value: Any) -> None:
        if self._is_node:
            wrapper.parameterNode.SetNodeReferenceID(self.name, value.GetID() if value else None)
            return
        if not isinstance(value, self.type):
            raise ValueError(f"{self.name} is {self.type.__name__}, not {value!r}")
        choice, within = self.note(Choice), self.note(WithinRange)
        if choice and value not in choice.choices:
            raise ValueError(f"{value!r} is not one of {choice.choices}")
        if within and not within.minimum <= value <= within.maximum:
            raise ValueError(f"{value!r} is not within {within.minimum} and {within.maximum}")
        wrapper.parameterNode.SetParameter(self.name, str(value))


def _connect_gui(self: Any, gui: Any) -> int:
    links = []
    for widget in vars(gui).values():
        name = widget.property("SlicerParameterName")
        if name:
            links.append(_Link(self, self.allParameters[name], widget))
    tag = len(self._links)

    def show(_caller: Any = None, _event: Any = None) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            for link in links:
                link.show()
        finally:
            self._updating = False

    show()
    observer = self.AddObserver(vtk.vtkCommand.ModifiedEvent, show)
    for link in links:
        link.connect()
    self._links[tag] = (links, observer)
    return tag


def _disconnect_gui(self: Any, tag: int) -> None:
    if tag in self._links:
        links, observer = self._links.pop(tag)
        self.RemoveObserver(observer)
        for link in links:
            link.disconnect()


class _Link:
    """One field and the widget that shows it."""

    def __init__(self, wrapper: Any, field: _Field, widget: Any) -> None:
        import ctk
        import qt

        self.wrapper, self.field, self.widget = wrapper, field, widget
        known = {
            qt.QLineEdit: ("text", "textChanged(QString)", (str,)),
            qt.QSpinBox: ("value", "valueChanged(int)", (int,)),
            qt.QCheckBox: ("checked", "stateChanged(int)", (bool,)),
            qt.QComboBox: ("currentIndex", "currentIndexChanged(int)", (str, int, float, bool)),
            ctk.ctkSliderWidget: ("value", "valueChanged(double)", (float, int)),
            ctk.ctkPathLineEdit: ("currentPath", "currentPathChanged(QString)", (str,)),
            slicer.qMRMLNodeComboBox: ("node", "currentNodeChanged(vtkMRMLNode*)", ()),
        }
        if type(widget) not in known:
            raise RuntimeError(f"Unable to create GUI connector from {field.type} to {type(widget)}")
        self.property, self.signal, accepted = known[type(widget)]
        if self.property != "node" and field.type not in accepted:
            raise RuntimeError(f"Unable to create GUI connector from {field.type} to {type(widget)}")
        if self.property == "currentIndex":
            self.choices = field.note(Choice).choices
            widget.clear()
            for choice in self.choices:
                widget.addItem(str(choice))
        within = field.note(WithinRange)
        if within and self.property == "value":
            widget.minimum, widget.maximum = within.minimum, within.maximum
        elif self.property == "value" and type(widget) is qt.QSpinBox:
            widget.minimum, widget.maximum = -(2**31), 2**31 - 1

    def _changed(self) -> None:
        if self.wrapper._updating:
            return
        if self.property == "node":
            value = self.widget.currentNode()
        elif self.property == "currentIndex":
            value = self.choices[self.widget.currentIndex]
        else:
            value = getattr(self.widget, self.property)
        self.field.write(self.wrapper, value)

    def show(self) -> None:
        value = self.field.read(self.wrapper)
        if self.property == "node":
            self.widget.setCurrentNode(value)
        elif self.property == "currentIndex":
            self.widget.currentIndex = self.choices.index(value)
        elif getattr(self.widget, self.property) != value:
            setattr(self.widget, self.property, value)

    def connect(self) -> None:
        self.widget.connect(self.signal, self._changed)

    def disconnect(self) -> None:
        self.widget.disconnect(self.signal, self._changed)
