"""Pictures of the slice views and the 3D view, drawn off-screen by Slicer's own displayable managers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

_FACTORIES: dict[str, Any] = {}


class SliceView:
    """One slice view: Red, Yellow or Green."""

    def __init__(self, name: str, size: tuple[int, int] = (420, 360)) -> None:
        scene = slicer.mrmlScene
        self.node = scene.GetSingletonNode(name, "vtkMRMLSliceNode")
        self.composite = scene.GetSingletonNode(name, "vtkMRMLSliceCompositeNode")
        self.size = size
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        self.logic.SetMRMLScene(scene)
        self.logic.SetSliceNode(self.node)
        self.logic.SetSliceCompositeNode(self.composite)
        self.logic.ResizeSliceNode(*size)
        self.window, self.renderer = _window(size)
        self.mapper = vtk.vtkImageMapper()
        self.mapper.SetColorWindow(255)
        self.mapper.SetColorLevel(127.5)
        self.actor = vtk.vtkActor2D()
        self.actor.SetMapper(self.mapper)
        self.actor.GetProperty().SetDisplayLocationToBackground()
        self.renderer.AddActor2D(self.actor)
        self.group = _factory("slice").InstantiateDisplayableManagers(self.renderer)
        self.group.SetMRMLDisplayableNode(self.node)

    def fit(self) -> None:
        self.logic.FitSliceToBackground()
        self.logic.SnapSliceOffsetToIJK()

    def picture(self) -> Any:
        """(rows, columns, 3) uint8."""
        self.logic.UpdatePipeline()
        self.mapper.SetInputConnection(self.logic.GetImageDataConnection())
        return _grab(self.window)


class ThreeDView:
    """The 3D view, from the front."""

    def __init__(self, size: tuple[int, int] = (420, 360)) -> None:
        self.node = slicer.mrmlScene.GetSingletonNode("1", "vtkMRMLViewNode")
        self.node.SetBoxVisible(False)
        self.node.SetAxisLabelsVisible(False)
        self.window, self.renderer = _window(size)
        self.renderer.GradientBackgroundOn()
        self.renderer.SetBackground(0.75, 0.77, 0.91)
        self.renderer.SetBackground2(0.45, 0.47, 0.75)
        self.group = _factory("3d").InstantiateDisplayableManagers(self.renderer)
        self.group.SetMRMLDisplayableNode(self.node)

    def picture(self) -> Any:
        """(rows, columns, 3) uint8."""
        camera = self.renderer.GetActiveCamera()
        camera.SetPosition(0, 500, 60)
        camera.SetFocalPoint(0, 0, 0)
        camera.SetViewUp(0, 0, 1)
        self.renderer.ResetCamera()
        camera.Zoom(1.4)
        return _grab(self.window)


def save(pixels: Any, path: Path) -> None:
    from PySide6.QtGui import QImage

    rows, columns = pixels.shape[:2]
    path.parent.mkdir(parents=True, exist_ok=True)
    QImage(pixels.tobytes(), columns, rows, 3 * columns, QImage.Format.Format_RGB888).save(str(path))


def _factory(kind: str) -> Any:
    if kind not in _FACTORIES:
        if kind == "slice":
            factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
            names = ("vtkMRMLSegmentationsDisplayableManager2D",)
        else:
            factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
            names = ("vtkMRMLSegmentationsDisplayableManager3D",)
        factory.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        for name in names:
            factory.RegisterDisplayableManager(name)
        _FACTORIES[kind] = factory
    return _FACTORIES[kind]


def _window(size: tuple[int, int]) -> tuple[Any, Any]:
    window, renderer = vtk.vtkRenderWindow(), vtk.vtkRenderer()
    window.SetOffScreenRendering(1)
    window.SetMultiSamples(0)  # on software rendering more than none leaves surfaces out
    window.SetSize(*size)
    window.AddRenderer(renderer)
    interactor = vtk.vtkRenderWindowInteractor()
    interactor.SetRenderWindow(window)
    return window, renderer


def _grab(window: Any) -> Any:
    window.Render()
    grabber = vtk.vtkWindowToImageFilter()
    grabber.SetInput(window)
    grabber.ReadFrontBufferOff()
    grabber.Update()
    image = grabber.GetOutput()
    columns, rows, _one = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(rows, columns, -1)[::-1, :, :3].copy()


def application_picture(panel: Any, slices: dict[str, Any], three_d: Any, path: Path) -> None:
    """Panel at the left, the four views at the right, as Slicer's standard layout places them."""
    from PySide6.QtGui import QColor, QImage, QPainter, QPixmap

    bars = {"Red": "#f34a33", "3D": "#8787d4", "Yellow": "#edd54c", "Green": "#6eb04b"}
    pictures = {"Red": slices["Red"], "3D": three_d, "Green": slices["Green"], "Yellow": slices["Yellow"]}
    rows, columns = three_d.shape[:2]
    bar, gap = 16, 3
    whole = QPixmap(panel.width() + 2 * (columns + gap), max(panel.height(), 2 * (rows + bar + gap)))
    whole.fill(QColor("#202225"))
    painter = QPainter(whole)
    painter.drawPixmap(0, 0, panel)
    for number, (name, pixels) in enumerate(pictures.items()):
        x = panel.width() + gap + (number % 2) * (columns + gap)
        y = (number // 2) * (rows + bar + gap)
        painter.fillRect(x, y, columns, bar, QColor(bars[name]))
        painter.drawText(x + 6, y + 12, {"Red": "R", "Yellow": "Y", "Green": "G", "3D": "1"}[name])
        image = QImage(pixels.tobytes(), columns, rows, 3 * columns, QImage.Format.Format_RGB888)
        painter.drawImage(x, y + bar, image)
    painter.end()
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.save(str(path))
