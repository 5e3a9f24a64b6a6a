"""Images to try the module on: two made here, and Slicer's public abdominal CT under its own name."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import slicer

from ProGiDiffSlicerLib.errors import SegmentationError
from ProGiDiffSlicerLib.launching import default_launch
from ProGiDiffSlicerLib.locations import resource

CATEGORY = "ProGiDiffSlicer"
PUBLIC_CT = "CTAAbdomenPanoramix"  # registered by Slicer's Sample Data module itself
_PHANTOMS = {"ProGiDiffSyntheticCT": "CT", "ProGiDiffSyntheticMR": "MR"}
_MAKE_SECONDS = 120
_SCRIPT = """
import sys
from progidiff.training.phantom import make_phantom
from progidiff.volumes import write_volume
image, _label = make_phantom(seed=7, modality=sys.argv[1])
write_volume(image, sys.argv[2])
"""


def register() -> None:
    """Adds the synthetic CT and MR to the Sample Data module; they are made here when asked for."""
    import SampleData

    for name, modality in _PHANTOMS.items():
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category=CATEGORY,
            sampleName=name,
            thumbnailFileName=resource(f"Icons/Sample{modality}.png"),
            uris="",
            fileNames="",
            nodeNames=f"Synthetic {modality}",
            customDownloader=lambda source, modality=modality: make(modality),
        )


def make(modality: str) -> Any:
    """A synthetic abdomen as a volume node; `modality` is "CT" or "MR".

    Raises:
        SegmentationError: the engine cannot run.
    """
    launch = default_launch()
    with tempfile.TemporaryDirectory(prefix="ProGiDiffSlicer-") as folder:
        path = Path(folder) / f"Synthetic {modality}.nrrd"
        made = subprocess.run(
            [launch.program, "-c", _SCRIPT, modality, str(path)],
            env=launch.environment,
            capture_output=True,
            text=True,
            timeout=_MAKE_SECONDS,
            check=False,
        )
        if made.returncode:
            raise SegmentationError(
                "The synthetic image could not be made.", "Run the self-check in Setup.", details=made.stderr
            )
        return load(path)


def load(path: Path) -> Any:
    """Reads an image file into a volume node, with or without the application's IO manager."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", path.stem)
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
    storage.SetFileName(str(path))
    read = storage.ReadData(node)
    slicer.mrmlScene.RemoveNode(storage)  # the temporary file is about to go
    if not read:
        slicer.mrmlScene.RemoveNode(node)
        raise SegmentationError(f"{path.name} could not be read.")
    node.CreateDefaultDisplayNodes()
    return node
