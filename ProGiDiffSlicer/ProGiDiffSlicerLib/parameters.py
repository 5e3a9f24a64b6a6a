"""What is saved with the scene. Each field's name stands in the .ui as SlicerParameterName."""

from __future__ import annotations

from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import Choice, Default, WithinRange, parameterNodeWrapper

from ProGiDiffSlicerLib.job import Drawing

QUALITIES = {"Draft": "draft", "Standard": "standard", "Fine": "fine"}


@parameterNodeWrapper
class Parameters:
    volume: vtkMRMLScalarVolumeNode
    prompt: str
    proposals: Annotated[int, WithinRange(1, 20), Default(5)]
    quality: Annotated[str, Choice(["Draft", "Standard", "Fine"]), Default("Standard")]
    target: vtkMRMLSegmentationNode
    model: str  # see settings.model; "" until one is chosen. AdvancedSection shows it
    seed: Annotated[int, WithinRange(0, 999999), Default(0)]


def drawing(parameters: Parameters) -> Drawing:
    """What the engine is told of them."""
    return Drawing(parameters.proposals, QUALITIES[parameters.quality], parameters.seed)
