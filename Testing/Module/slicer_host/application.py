"""Puts `qt`, `ctk` and the missing half of `slicer` in place, and opens a module's panel in a window."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import types
import unittest
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

from slicer_host import ctk_widgets, mrml_widgets, parameter_nodes, pythonqt

_BASES = (
    "ScriptedLoadableModule",
    "ScriptedLoadableModuleWidget",
    "ScriptedLoadableModuleLogic",
    "ScriptedLoadableModuleTest",
)


class _UiLoader(QtUiTools.QUiLoader):
    """Knows ctk's and qMRML's widgets, and refuses a .ui with any other."""

    def __init__(self) -> None:
        super().__init__()
        for widget in (*ctk_widgets.WIDGETS.values(), *mrml_widgets.WIDGETS.values()):
            self.registerCustomWidget(widget)

    def createWidget(self, name: str, parent: Any = None, objectName: str = "") -> Any:
        if name not in self.availableWidgets():
            raise RuntimeError(f"the .ui names a class that does not exist: {name}")
        return super().createWidget(name, parent, objectName)


class _Modules(types.SimpleNamespace):
    """`slicer.modules`: by lower-case name, each with its logic."""


class _ModuleManager(QtCore.QObject):
    moduleAboutToBeUnloaded = QtCore.Signal(str)

    def module(self, name: str) -> Any:
        return getattr(slicer.modules, name.lower(), None)


class _Application(QtCore.QObject):
    """`slicer.app`."""

    aboutToQuit = QtCore.Signal()
    startupCompleted = QtCore.Signal()
    _only_properties = ("applicationName", "slicerHome", "temporaryPath")
    applicationName = QtCore.Property(str, lambda _s: "Slicer")
    slicerHome = QtCore.Property(str, lambda _s: "")

    def __init__(self) -> None:
        super().__init__()
        self._manager = _ModuleManager()
        self._logic = slicer.vtkSlicerApplicationLogic()
        self._testing = True

    def processEvents(self) -> None:
        QtWidgets.QApplication.processEvents()

    def testingEnabled(self) -> bool:
        return self._testing

    def moduleManager(self) -> QtCore.QObject:
        return self._manager

    def topLevelWidgets(self) -> list[Any]:
        return QtWidgets.QApplication.topLevelWidgets()

    def layoutManager(self) -> None:
        return None

    def applicationLogic(self) -> Any:
        return self._logic

    def pauseRender(self) -> None: ...

    def resumeRender(self) -> None: ...

    def settings(self) -> Any:
        return QtCore.QSettings()

    userSettings = settings

    def startupEnvironment(self) -> Any:
        return QtCore.QProcessEnvironment.systemEnvironment()

    def restart(self) -> None: ...


class _Representation:
    """qSlicerScriptedLoadableModuleWidget: leads from a module to its Python widget."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def self(self) -> Any:
        return self._host.panel


class Host:
    """The application for one test session. Make it once; `reset()` between tests."""

    def __init__(self, settings_folder: Path) -> None:
        QtCore.QSettings.setDefaultFormat(QtCore.QSettings.Format.IniFormat)
        QtCore.QSettings.setPath(
            QtCore.QSettings.Format.IniFormat, QtCore.QSettings.Scope.UserScope, str(settings_folder)
        )
        self.qapp = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["Slicer"])
        self.qapp.setOrganizationName("NA-MIC")
        self.qapp.setApplicationName("Slicer")
        self.qapp.setStyle("Fusion")
        self.qapp.setFont(QtGui.QFont("DejaVu Sans", 9))
        self._application = _Application()
        self._install_qt()
        self._install_scene()
        self._install_modules()
        self._install_bases()
        self.windows: list[Any] = []

    def _install_qt(self) -> None:
        loader = {"QUiLoader": _UiLoader}
        qt = pythonqt.flat_module("qt")
        qt.QUiLoader = pythonqt.class_wrapper(loader["QUiLoader"])
        sys.modules["qt"] = qt
        sys.modules["ctk"] = pythonqt.flat_module("ctk", dict(ctk_widgets.WIDGETS))
        for name, widget in mrml_widgets.WIDGETS.items():
            setattr(slicer, name, pythonqt.class_wrapper(widget))
        slicer.app = pythonqt.wrap(self._application)
        slicer.qSlicerScriptedLoadableModuleWidget = _Representation

    def _install_scene(self) -> None:
        scene = slicer.vtkMRMLScene()
        slicer.mrmlScene = scene
        logic = self._application._logic
        logic.SetMRMLScene(scene)
        logic.SetMRMLSceneDataIO(scene, None, None) if hasattr(logic, "SetMRMLSceneDataIO") else None
        colors = slicer.vtkMRMLColorLogic()
        colors.SetMRMLScene(scene)
        colors.SetMRMLApplicationLogic(logic)
        colors.AddDefaultColorNodes()
        logic.SetModuleLogic("Colors", colors)
        self._colors = colors
        self._selection = scene.AddNewNodeByClass("vtkMRMLSelectionNode")
        self._add_views(scene)
        scene.AddObserver(scene.NodeAddedEvent, self._into_hierarchy)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _into_hierarchy(self, _caller: Any, _event: str, node: Any) -> None:
        """In the application a plug-in gives each data node its place in the subject hierarchy."""
        if node.IsA("vtkMRMLDisplayableNode") and not node.GetHideFromEditors():
            hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
            hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)

    def _add_views(self, scene: Any) -> None:
        """Red, Yellow, Green slice nodes and one 3D view node, as the application's layout would make."""
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene)
        for name, orientation in (("Red", "Axial"), ("Yellow", "Sagittal"), ("Green", "Coronal")):
            node = scene.CreateNodeByClass("vtkMRMLSliceNode")
            node.UnRegister(None)
            node.SetSingletonTag(name)
            node.SetName(name)
            node.SetLayoutName(name)
            scene.AddNode(node)
            node.SetOrientation(orientation)
            composite = slicer.vtkMRMLSliceCompositeNode()
            composite.SetSingletonTag(name)
            composite.SetLayoutName(name)
            scene.AddNode(composite)
        view = slicer.vtkMRMLViewNode()
        view.SetSingletonTag("1")
        view.SetLayoutName("1")
        scene.AddNode(view)

    def _install_modules(self) -> None:
        scene, app_logic = slicer.mrmlScene, self._application._logic
        kinds = {
            "segmentations": slicer.vtkSlicerSegmentationsModuleLogic,
            "volumes": slicer.vtkSlicerVolumesLogic,
            "subjecthierarchy": slicer.vtkSlicerSubjectHierarchyModuleLogic,
            "markups": slicer.vtkSlicerMarkupsLogic,
        }
        slicer.modules = _Modules()
        for name, kind in kinds.items():
            logic = kind()
            logic.SetMRMLApplicationLogic(app_logic)
            logic.SetMRMLScene(scene)
            app_logic.SetModuleLogic(name.capitalize(), logic)
            setattr(slicer.modules, name, types.SimpleNamespace(logic=lambda logic=logic: logic))

    def _install_bases(self) -> None:
        modules = {
            "slicer.ScriptedLoadableModule": dict(zip(_BASES, _base_classes(), strict=True)),
            "slicer.parameterNodeWrapper": {
                n: getattr(parameter_nodes, n)
                for n in ("parameterNodeWrapper", "Default", "Choice", "WithinRange")
            },
            "slicer.i18n": {"tr": lambda text: text, "translate": lambda _context, text: text},
        }
        for name, content in modules.items():
            module = types.ModuleType(name)
            module.__dict__.update(content, __all__=list(content))
            sys.modules[name] = module
            setattr(slicer, name.split(".")[1], module)

    def load_module(self, path: Path) -> types.ModuleType:
        """Imports a module file and makes its module object, as Slicer's factory does at start-up."""
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        parent = pythonqt.wrap(mrml_widgets.qSlicerScriptedLoadableModule(str(path)))
        instance = getattr(module, path.stem)(parent)
        described = types.SimpleNamespace(path=str(path), parent=parent)
        described.widgetRepresentation = lambda: _Representation(self)
        setattr(slicer.modules, path.stem.lower(), described)
        self._module_instance = instance
        return module

    def open_panel(self, module: types.ModuleType, width: int = 480, height: int = 900) -> Any:
        """Makes the widget, runs setup() and enter(), and shows it in a window of its own."""
        window = QtWidgets.QMainWindow()
        window.setObjectName("qSlicerMainWindow")
        panel = mrml_widgets.qMRMLWidget()
        QtWidgets.QVBoxLayout(panel).setContentsMargins(4, 4, 4, 4)
        scroll = QtWidgets.QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setWidget(panel)
        window.setCentralWidget(scroll)
        window.resize(width, height)
        panel.setMRMLScene(slicer.mrmlScene)
        window.show()
        self.windows.append(window)
        widget = getattr(module, module.__name__ + "Widget")(pythonqt.wrap(panel))
        widget.setup()
        widget.enter()
        self.panel = widget
        return widget

    def close_panel(self, widget: Any) -> None:
        """What Slicer does before a reload or at exit."""
        widget.exit()
        self._application._manager.moduleAboutToBeUnloaded.emit(widget.moduleName)
        for window in self.windows:
            window.close()
            window.deleteLater()
        self.windows.clear()
        self.qapp.processEvents()
        self.qapp.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete.value)

    def reset(self) -> None:
        """An empty scene and empty settings."""
        slicer.mrmlScene.Clear(0)
        QtCore.QSettings().clear()
        pythonqt.callback_errors.clear()


def _base_classes() -> tuple[type, ...]:
    class ScriptedLoadableModule:
        def __init__(self, parent: Any) -> None:
            self.parent = parent
            self.moduleName = type(self).__name__

        def resourcePath(self, filename: str) -> str:
            return str(Path(self.parent.path).parent / "Resources" / filename)

        def getDefaultModuleDocumentationLink(self, docPage: str | None = None) -> str:
            return ""

    class ScriptedLoadableModuleWidget:
        def __init__(self, parent: Any = None) -> None:
            super().__init__()
            self.moduleName = type(self).__name__.removesuffix("Widget")
            self.developerMode = False
            self.parent = parent
            self.layout = parent.layout()
            slicer.app.moduleManager().connect("moduleAboutToBeUnloaded(QString)", self._about_to_unload)

        def resourcePath(self, filename: str) -> str:
            return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / filename)

        def setup(self) -> None: ...

        def onReload(self) -> None:
            slicer.util.reloadScriptedModule(self.moduleName)

        def cleanup(self) -> None: ...

        def _about_to_unload(self, name: str) -> None:
            if name == self.moduleName:
                self.cleanup()
                slicer.app.moduleManager().disconnect(
                    "moduleAboutToBeUnloaded(QString)", self._about_to_unload
                )

    class ScriptedLoadableModuleLogic:
        def __init__(self, parent: Any = None) -> None:
            super().__init__()
            self.moduleName = type(self).__name__.removesuffix("Logic")
            self.isSingletonParameterNode = True

        def getParameterNode(self) -> Any:
            node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
            if node is None:
                node = slicer.vtkMRMLScriptedModuleNode()
                node.SetSingletonTag(self.moduleName)
                node.SetName(self.moduleName)
                node = slicer.mrmlScene.AddNode(node)
            node.SetAttribute("ModuleName", self.moduleName)
            return node

    class ScriptedLoadableModuleTest(unittest.TestCase):
        def delayDisplay(
            self, message: str, requestedDelay: int | None = None, msec: int | None = None
        ) -> None:
            logging.info(message)
            slicer.app.processEvents()

    return (
        ScriptedLoadableModule,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest,
    )


assert vtk.vtkVersion, "slicer-core brings its own vtk"
