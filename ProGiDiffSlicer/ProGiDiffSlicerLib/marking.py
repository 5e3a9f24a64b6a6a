"""Making marks in the scene: point lists to click into the views, a box around a mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer

INSIDE_COLOR, OUTSIDE_COLOR = (0.2, 0.75, 0.3), (0.9, 0.25, 0.2)


def new_points(name: str, color: tuple[float, float, float]) -> Any:
    """An empty point list."""
    node = slicer.mrmlScene.AddNewNodeByClass(
        "vtkMRMLMarkupsFiducialNode", slicer.mrmlScene.GenerateUniqueName(name)
    )
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    if display is not None:
        display.SetSelectedColor(*color)
        display.SetPointLabelsVisibility(False)
    return node


def start_placing(node: Any) -> None:
    """Each click into a view adds a point, until Esc or a right click."""
    logic = slicer.app.applicationLogic()
    selection, interaction = logic.GetSelectionNode(), logic.GetInteractionNode()
    selection.SetReferenceActivePlaceNodeClassName(node.GetClassName())
    selection.SetActivePlaceNodeID(node.GetID())
    interaction.SetPlaceModePersistence(1)
    interaction.SetCurrentInteractionMode(interaction.Place)


def stop_placing() -> None:
    interaction = slicer.app.applicationLogic().GetInteractionNode()
    if interaction is not None:
        interaction.SetCurrentInteractionMode(interaction.ViewTransform)


def new_box(name: str, center: np.ndarray, size: np.ndarray) -> Any:
    """A box whose handles can be dragged in the views; centre and size in RAS mm."""
    node = slicer.mrmlScene.AddNewNodeByClass(
        "vtkMRMLMarkupsROINode", slicer.mrmlScene.GenerateUniqueName(name)
    )
    node.CreateDefaultDisplayNodes()
    node.SetCenterWorld([float(c) for c in center])
    node.SetSizeWorld([float(s) for s in size])
    display = node.GetDisplayNode()
    if display is not None:
        display.SetFillOpacity(0.1)
    return node
