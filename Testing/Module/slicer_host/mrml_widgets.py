"""The qMRML widgets that the panel uses, with the properties, signals and slots of Slicer's headers."""

from __future__ import annotations

from typing import Any

import slicer
from PySide6.QtCore import Property, QObject, Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from slicer_host.ctk_widgets import ctkComboBox


class qMRMLWidget(QWidget):
    mrmlSceneChanged = Signal(object)
    _signals = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}  # noqa: RUF012

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self) -> Any:
        return self._scene


class qMRMLNodeComboBox(QWidget):
    """Lists the scene's nodes of given classes; "None" first when allowed."""

    currentNodeChanged = Signal(object)
    currentNodeIDChanged = Signal(str)
    nodeActivated = Signal(object)
    _signals = {  # noqa: RUF012
        "currentNodeChanged(bool)": "currentNodeChanged",
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "nodeActivated(vtkMRMLNode*)": "nodeActivated",
    }
    _only_properties = (
        "currentNodeID", "nodeTypes", "noneEnabled", "addEnabled", "removeEnabled", "editEnabled",
        "renameEnabled", "noneDisplay", "selectNodeUponCreation", "showChildNodeTypes", "hideChildNodeTypes",
        "baseName", "showHidden",
    )  # fmt: skip

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._box = ctkComboBox()
        self._box.setElideMode(Qt.TextElideMode.ElideMiddle)
        self._box.setSizeAdjustPolicy(ctkComboBox.SizeAdjustPolicy.AdjustToContents)  # as wide as any name
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self.setFocusProxy(self._box)
        self._scene: Any = None
        self._attributes: list[tuple[str, str, str | None]] = []
        self._options: dict[str, Any] = {
            "nodeTypes": [], "noneEnabled": False, "addEnabled": True, "removeEnabled": True,
            "editEnabled": False, "renameEnabled": False, "noneDisplay": "None",
            "selectNodeUponCreation": True, "showChildNodeTypes": True, "hideChildNodeTypes": [],
            "baseName": "", "showHidden": False,
        }  # fmt: skip
        self.setEnabled(False)
        self._box.currentIndexChanged.connect(lambda _i: self._changed())
        self._box.activated.connect(lambda _i: self.nodeActivated.emit(self.currentNode()))

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        if self._scene is not None:
            raise RuntimeError("this stand-in takes a scene only once")
        self._scene = scene
        self.setEnabled(scene is not None)
        events = (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndImportEvent)
        tags = [scene.AddObserver(event, lambda _caller, _event: self._refill()) for event in events]
        self.destroyed.connect(lambda: [scene.RemoveObserver(tag) for tag in tags])
        self._refill()

    def addAttribute(self, node_type: str, name: str, value: Any = None) -> None:
        self._attributes.append((node_type, name, value))
        self._refill()

    def nodeCount(self) -> int:
        return len([i for i in range(self._box.count()) if self._box.itemData(i)])

    def currentNode(self) -> Any:
        identity = self._box.currentData()
        return self._scene.GetNodeByID(identity) if self._scene and identity else None

    def setCurrentNode(self, node: Any) -> None:
        self.setCurrentNodeID(node.GetID() if node is not None and not isinstance(node, str) else node or "")

    def setCurrentNodeID(self, identity: str) -> None:
        found = self._box.findData(identity) if identity else -1
        self._box.setCurrentIndex(found if found >= 0 else (0 if self._options["noneEnabled"] else -1))

    def _fits(self, node: Any) -> bool:
        if node.GetHideFromEditors() and not self._options["showHidden"]:
            return False
        exact = not self._options["showChildNodeTypes"]
        kinds = self._options["nodeTypes"]
        right = node.GetClassName() in kinds if exact else any(node.IsA(kind) for kind in kinds)
        wanted = [(n, v) for kind, n, v in self._attributes if node.IsA(kind)]
        return right and all(
            (node.GetAttribute(n) is not None if v is None else node.GetAttribute(n) == v) for n, v in wanted
        )

    def _refill(self) -> None:
        before = self._box.currentData()
        self._box.blockSignals(True)
        self._box.clear()
        if self._options["noneEnabled"]:
            self._box.addItem(self._options["noneDisplay"], "")
        nodes = (
            [self._scene.GetNthNode(i) for i in range(self._scene.GetNumberOfNodes())] if self._scene else []
        )
        for node in nodes:
            if self._fits(node):
                self._box.addItem(node.GetName(), node.GetID())
        found = self._box.findData(before) if before else -1
        first = 0 if self._options["noneEnabled"] or self._box.count() else -1
        self._box.setCurrentIndex(found if found >= 0 else first)
        self._box.blockSignals(False)
        if (self._box.currentData() or "") != (before or ""):
            self._changed()

    def _changed(self) -> None:
        self.currentNodeChanged.emit(self.currentNode())
        self.currentNodeIDChanged.emit(self._box.currentData() or "")

    def _set_option(self, name: str, value: Any) -> None:
        self._options[name] = value
        self._refill()


def _option(kind: Any, name: str) -> Property:
    return Property(kind, lambda s: s._options[name], lambda s, v: s._set_option(name, v))


def _node_combo_box() -> type:
    """The class again with its Qt properties, which PySide6 wants in the class body."""
    booleans = ("noneEnabled", "addEnabled", "removeEnabled", "editEnabled", "renameEnabled",
                "selectNodeUponCreation", "showChildNodeTypes", "showHidden")  # fmt: skip
    body = {name: _option(bool, name) for name in booleans}
    body |= {name: _option("QStringList", name) for name in ("nodeTypes", "hideChildNodeTypes")}
    body |= {name: _option(str, name) for name in ("noneDisplay", "baseName")}
    body["currentNodeID"] = Property(
        str, lambda s: s._box.currentData() or "", lambda s, v: s.setCurrentNodeID(v)
    )
    return type("qMRMLNodeComboBox", (qMRMLNodeComboBox,), body)


class qMRMLSegmentEditorWidget(QWidget):
    """Remembers what it was told; effects are Slicer's own and cannot be shown here."""

    segmentationNodeChanged = Signal(object)
    currentSegmentIDChanged = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        QVBoxLayout(self).addWidget(QLabel("(Segment Editor's effects appear here in 3D Slicer)"))
        self._scene = self._node = None

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene

    def setMRMLSegmentEditorNode(self, node: Any) -> None:
        self._node = node

    def mrmlSegmentEditorNode(self) -> Any:
        return self._node

    def setSegmentationNode(self, node: Any) -> None:
        if self._node is None:
            raise RuntimeError("the real widget ignores the segmentation before its editor node is set")
        self._node.SetAndObserveSegmentationNode(node)

    def segmentationNode(self) -> Any:
        return self._node.GetSegmentationNode() if self._node else None

    def setSourceVolumeNode(self, node: Any) -> None:
        self._node.SetAndObserveSourceVolumeNode(node)

    def setCurrentSegmentID(self, identity: str) -> None:
        self._node.SetSelectedSegmentID(identity)

    def currentSegmentID(self) -> str:
        return self._node.GetSelectedSegmentID() or ""

    def setActiveEffectByName(self, name: str) -> None:
        self._node.SetActiveEffectName(name)

    def saveStateForUndo(self) -> None:
        if self._node is None or self._node.GetSegmentationNode() is None:
            raise RuntimeError("nothing to save: no segmentation is selected")

    def installKeyboardShortcuts(self, parent: QWidget | None = None) -> None: ...

    def uninstallKeyboardShortcuts(self) -> None: ...

    def setupViewObservations(self) -> None: ...

    def removeViewObservations(self) -> None: ...

    def _only(self, name: str, value: bool) -> None:
        self.setProperty("_" + name, value)

    def setSegmentationNodeSelectorVisible(self, visible: bool) -> None:
        self._only("segmentationNodeSelectorVisible", visible)

    def setSourceVolumeNodeSelectorVisible(self, visible: bool) -> None:
        self._only("sourceVolumeNodeSelectorVisible", visible)

    def setSwitchToSegmentationsButtonVisible(self, visible: bool) -> None:
        self._only("switchToSegmentationsButtonVisible", visible)

    def setAddRemoveSegmentButtonsVisible(self, visible: bool) -> None:
        self._only("addRemoveSegmentButtonsVisible", visible)

    def setMaximumNumberOfUndoStates(self, number: int) -> None:
        self.setProperty("_undo", number)


class qSlicerScriptedLoadableModule(QObject):
    """The `parent` that a module class fills in: every field of the real one's that a module may set."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._fields = {"path": path, "title": "", "helpText": "", "acknowledgementText": "", "index": -1}
        self._lists = {"categories": [], "dependencies": [], "contributors": []}
        self._icon: Any = None
        self._hidden = False

    path = Property(str, lambda s: s._fields["path"])
    title = Property(str, lambda s: s._fields["title"], lambda s, v: s._fields.update(title=v))
    helpText = Property(str, lambda s: s._fields["helpText"], lambda s, v: s._fields.update(helpText=v))
    acknowledgementText = Property(
        str,
        lambda s: s._fields["acknowledgementText"],
        lambda s, v: s._fields.update(acknowledgementText=v),
    )
    categories = Property(
        "QStringList", lambda s: s._lists["categories"], lambda s, v: s._lists.update(categories=v)
    )
    dependencies = Property(
        "QStringList", lambda s: s._lists["dependencies"], lambda s, v: s._lists.update(dependencies=v)
    )
    contributors = Property(
        "QStringList", lambda s: s._lists["contributors"], lambda s, v: s._lists.update(contributors=v)
    )
    icon = Property("QIcon", lambda s: s._icon, lambda s, v: setattr(s, "_icon", v))


assert slicer.vtkMRMLScene, "slicer-core is what these widgets stand on"
WIDGETS: dict[str, type] = {
    "qMRMLWidget": qMRMLWidget,
    "qMRMLNodeComboBox": _node_combo_box(),
    "qMRMLSegmentEditorWidget": qMRMLSegmentEditorWidget,
}
