"""Qt the way PythonQt presents it, on top of PySide6.

PythonQt makes Qt properties plain attributes (`label.text`), hides a method behind a property of the same
name, connects by `signal.connect(f)` or `connect("signal(types)", f)` with arguments cut to what `f` takes,
and refuses attributes that the C++ class does not have. PySide6 does none of this, so every Qt object that
the module sees is wrapped in a :class:`QtInstance`.
"""

from __future__ import annotations

import enum
import inspect
import sys
import traceback
import types
import weakref
from typing import Any

import shiboken6
from PySide6 import QtCore, QtGui, QtNetwork, QtUiTools, QtWidgets

_LIBRARIES = (QtWidgets, QtGui, QtCore, QtUiTools, QtNetwork)
_PLAIN = (type(None), bool, int, float, str, bytes, enum.Enum)
# What PySide6 adds to Qt's classes and PythonQt does not know.
_PYSIDE_ONLY = {"receivers", "emit", "tr_", "exec", "toTuple", "data_ptr"}

callback_errors: list[str] = []  # what PythonQt would have printed to the console; tests look here
_connections: dict[tuple[int, str, Any], Any] = {}
_instances: weakref.WeakValueDictionary[int, QtInstance] = weakref.WeakValueDictionary()
_class_wrappers: dict[type, QtClass] = {}


class QtClass(type):
    """Wrapper of a Qt class: construct it, ask for its enum values or static methods."""

    _qt_class: type

    def __call__(cls, *arguments: Any, **properties: Any) -> Any:
        made = cls._qt_class(*[unwrap(a) for a in arguments])
        wrapped = wrap(made)
        for name, value in properties.items():
            setattr(wrapped, name, value)
        return wrapped

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(cls._qt_class, name, None)
        if value is None or name.startswith("_"):
            raise AttributeError(f"type object {cls.__name__!r} has no attribute {name!r}")
        if isinstance(value, type) and issubclass(value, enum.Enum):
            return value
        return _converting(value) if callable(value) and not isinstance(value, enum.Enum) else value


class QtInstance:
    """Wrapper of one Qt object or value."""

    __slots__ = ("__weakref__", "_it")

    def __getattr__(self, name: str) -> Any:  # noqa: PLR0911
        it = _alive(object.__getattribute__(self, "_it"), name)
        if name.startswith("_") or name in _PYSIDE_ONLY:
            raise AttributeError(f"{type(it).__name__} has no attribute {name!r}")
        if name == "exec_":
            return _converting(it.exec)
        if isinstance(it, QtCore.QObject):
            name = "objectName" if name == "name" and not _has_property(it, "name") else name
            if _has_property(it, name):
                return wrap(_read_property(it, name))
            if name in getattr(type(it), "_only_properties", ()):
                raise AttributeError(f"{type(it).__name__} has no attribute {name!r}")
            if _signal_signatures(it, name):
                return Signal(it, name)
            if name.encode() in [bytes(n.data()) for n in it.dynamicPropertyNames()]:
                return wrap(it.property(name))
            if name == "connect":
                return lambda signature, slot: _connect_by_signature(it, signature, slot)
            if name == "disconnect":
                return lambda signature, slot: _disconnect(it, signature, slot)
            if name == "className":
                return lambda: it.metaObject().className()
        value = getattr(it, name, None)
        if value is None:
            raise AttributeError(f"{type(it).__name__} has no attribute {name!r}")
        if isinstance(value, (enum.Enum, type)):
            return value
        return _converting(value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_it":
            object.__setattr__(self, name, value)
            return
        it = _alive(self._it, name)
        if isinstance(it, QtCore.QObject):
            name = "objectName" if name == "name" else name
            if _has_property(it, name):
                _write_property(it, name, unwrap(value))
                return
        raise AttributeError(f"{type(it).__name__} has no property {name!r} to set")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, QtInstance) and (self._it is other._it or self._it == other._it)

    def __hash__(self) -> int:
        return id(self._it)

    def __bool__(self) -> bool:
        return True

    def __or__(self, other: Any) -> Any:
        return wrap(self._it | unwrap(other))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} wrapper of {self._it!r}>"


class ByteArray:
    """QByteArray: only `.data()` gives the bytes; `bytes(x)` and `str(x)` are refused as in PythonQt."""

    def __init__(self, content: Any = b"") -> None:
        self._content = bytes(content.data()) if isinstance(content, QtCore.QByteArray) else bytes(content)

    def data(self) -> bytes:
        return self._content

    def length(self) -> int:
        return len(self._content)

    def isEmpty(self) -> bool:
        return not self._content

    def __bytes__(self) -> bytes:
        raise TypeError("cannot convert 'QByteArray' object to bytes; use .data()")

    def __str__(self) -> str:
        raise TypeError("str() of a QByteArray; use .data().decode()")


class Signal:
    """A signal as an attribute: connect, disconnect, or call it to emit."""

    def __init__(self, it: QtCore.QObject, name: str) -> None:
        self._it, self._name = it, name

    def connect(self, slot: Any) -> bool:
        return _connect_by_signature(self._it, _signal_signatures(self._it, self._name)[0], slot)

    def disconnect(self, slot: Any) -> bool:
        return _disconnect(self._it, _signal_signatures(self._it, self._name)[0], slot)

    def __call__(self, *arguments: Any) -> None:
        getattr(self._it, self._name).emit(*[unwrap(a) for a in arguments])


def wrap(value: Any) -> Any:
    """What PythonQt would hand to Python for a C++ value."""
    if isinstance(value, (_PLAIN, QtInstance, ByteArray, QtClass)):
        return value
    if isinstance(value, QtCore.QByteArray):
        return ByteArray(value)
    if isinstance(value, (list, tuple)):
        return tuple(wrap(v) for v in value)
    if not _is_qt(type(value)):
        return value
    if isinstance(value, QtCore.QObject):
        known = _instances.get(_address(value))
        if known is not None and known._it is value:
            return known
    cls = class_wrapper(type(value))
    wrapped = object.__new__(cls)
    object.__setattr__(wrapped, "_it", value)
    if isinstance(value, QtCore.QObject):
        _instances[_address(value)] = wrapped
    return wrapped


def unwrap(value: Any) -> Any:
    """What PySide6 wants for an argument coming from the module."""
    if isinstance(value, QtInstance):
        return value._it
    if isinstance(value, ByteArray):
        return QtCore.QByteArray(value.data())
    if isinstance(value, QtClass):
        return value._qt_class
    if isinstance(value, (list, tuple)):
        return [unwrap(v) for v in value]
    if isinstance(value, (types.FunctionType, types.MethodType)):
        return _guarded(value)
    return value


def class_wrapper(qt_class: type) -> QtClass:
    """One wrapper class per Qt class, with no inheritance among them: PythonQt's isinstance is exact too."""
    if qt_class not in _class_wrappers:
        made = QtClass(qt_class.__name__, (QtInstance,), {"__slots__": ()})
        type.__setattr__(made, "_qt_class", qt_class)
        _class_wrappers[qt_class] = made
    return _class_wrappers[qt_class]


def flat_module(name: str, extra: dict[str, type] | None = None) -> types.ModuleType:
    """A module such as `qt`, where all of Qt's libraries lie side by side."""

    class _Flat(types.ModuleType):
        def __getattr__(self, attribute: str) -> Any:
            if attribute == "QByteArray":
                return ByteArray
            if attribute == "QFileDialog":
                return _FileDialog
            if extra and attribute in extra:
                return class_wrapper(extra[attribute])
            for library in () if extra is not None else _LIBRARIES:
                found = getattr(library, attribute, None)
                if isinstance(found, type):
                    return class_wrapper(found)
                if callable(found):
                    return _converting(found)
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}")

    return _Flat(name)


class _FileDialog:
    """PythonQt's file dialogs return the path alone; tests put the answer into `answer`."""

    answer = ""

    @classmethod
    def getOpenFileName(cls, *_arguments: Any) -> str:
        return cls.answer

    @classmethod
    def getSaveFileName(cls, *_arguments: Any) -> str:
        return cls.answer

    @classmethod
    def getExistingDirectory(cls, *_arguments: Any) -> str:
        return cls.answer


def _is_qt(cls: type) -> bool:
    return cls.__module__.startswith("PySide6") or issubclass(cls, QtCore.QObject)


def _address(it: Any) -> int:
    return shiboken6.getCppPointer(it)[0]


def _alive(it: Any, name: str) -> Any:
    if isinstance(it, QtCore.QObject) and not shiboken6.isValid(it):
        raise ValueError(f"Trying to call {name!r} on a destroyed {type(it).__name__} object")
    return it


def _has_property(it: QtCore.QObject, name: str) -> bool:
    return it.metaObject().indexOfProperty(name) >= 0


def _read_property(it: QtCore.QObject, name: str) -> Any:
    for getter in (name, "is" + name[0].upper() + name[1:]):
        found = getattr(it, getter, None)
        if found is not None and not isinstance(found, QtCore.SignalInstance):
            return found() if callable(found) else found
    return it.property(name)


def _write_property(it: QtCore.QObject, name: str, value: Any) -> None:
    described = it.metaObject().property(it.metaObject().indexOfProperty(name))
    if not described.isWritable():
        raise AttributeError(f"Property {name!r} of type {type(it).__name__!r} object is not writable")
    setter = getattr(it, "set" + name[0].upper() + name[1:], None)
    if callable(setter):
        setter(value)
    else:
        it.setProperty(name, value)


def _signal_signatures(it: QtCore.QObject, name: str) -> list[str]:
    declared = [s for s in getattr(type(it), "_signals", {}) if s.split("(")[0] == name]
    meta = it.metaObject()
    methods = [meta.method(i) for i in range(meta.methodCount())]
    is_signal = QtCore.QMetaMethod.MethodType.Signal
    own = [
        bytes(m.methodSignature().data()).decode()
        for m in methods
        if m.methodType() == is_signal and bytes(m.name().data()).decode() == name
    ]
    return declared or own


def _connect_by_signature(it: QtCore.QObject, signature: str, slot: Any) -> bool:
    signature = signature.replace(" ", "")
    name = signature.split("(")[0]
    if signature not in [s.replace(" ", "") for s in _signal_signatures(it, name)]:
        raise ValueError(f"{type(it).__name__} has no signal {signature!r}")
    guarded = _guarded(slot)
    declared = getattr(type(it), "_signals", {})
    if signature in declared:
        getattr(it, declared[signature]).connect(guarded)
        _connections[(_address(it), signature, slot)] = (it, guarded, declared[signature])
    else:
        link = QtCore.QObject.connect(it, QtCore.SIGNAL(signature), guarded)
        _connections[(_address(it), signature, slot)] = (it, guarded, link)
    return True


def _disconnect(it: QtCore.QObject, signature: str, slot: Any) -> bool:
    signature = signature.replace(" ", "")
    kept = _connections.pop((_address(it), signature, slot), None)
    if kept is None:
        return False
    if isinstance(kept[2], str):
        getattr(it, kept[2]).disconnect(kept[1])
    else:
        QtCore.QObject.disconnect(kept[2])
    return True


def _converting(function: Any) -> Any:
    def call(*arguments: Any) -> Any:
        return wrap(function(*[unwrap(a) for a in arguments]))

    return call


def _guarded(function: Any) -> Any:
    """Cut the arguments to what `function` takes, and report its exceptions instead of raising them."""
    try:
        parameters = inspect.signature(function).parameters.values()
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        takes = len([p for p in parameters if p.kind in kinds])
        if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
            takes = 99
    except (TypeError, ValueError):
        takes = 99

    def call(*arguments: Any) -> Any:
        try:
            return unwrap(function(*[wrap(a) for a in arguments[:takes]]))
        except Exception:
            callback_errors.append(traceback.format_exc())
            traceback.print_exc(file=sys.stderr)
            return None

    return call
