"""What `ProGiDiffSlicerTest` does in a real Slicer; needs only numpy, and the engine if it is there."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk

from ProGiDiffSlicerLib import proposals_scene
from ProGiDiffSlicerLib.errors import SegmentationError
from ProGiDiffSlicerLib.proposal import Proposal


def make_volume() -> Any:
    """A small oblique volume with a bright ball in it."""
    axes = np.indices((24, 30, 36))
    ball = ((axes - np.array([12, 15, 18])[:, None, None, None]) ** 2).sum(axis=0) < 36
    node = slicer.util.addVolumeFromArray(np.where(ball, 150, -50).astype(np.int16), name="Ball")
    matrix = vtk.vtkMatrix4x4()
    for row, values in enumerate(([-1.8, 0.3, 0, 40], [-0.3, -1.8, 0, 50], [0, 0, 4, -60])):
        for column, value in enumerate(values):
            matrix.SetElement(row, column, value)
    node.SetIJKToRASMatrix(matrix)
    node.CreateDefaultDisplayNodes()
    return node


def make_proposal(number: int, organ: str = "liver") -> Proposal:
    """A ball that grows with its number."""
    axes = np.indices((20, 20, 14))
    distance = np.sqrt(((axes - np.array([10, 10, 7])[:, None, None, None]) ** 2).sum(axis=0))
    probability = np.clip(255 * (4 + number - distance) / 2, 0, 255).astype(np.uint8)
    proposal = Proposal(
        f"test-{number}", f"{organ} {number}", organ, organ, "sampled", 0.8 + number / 100, 0.0,
        [[5, 25], [5, 25], [4, 18]], probability, provenance={"prompt": f"segment the {organ}"},
    )  # fmt: skip
    proposal.volume_ml = float(proposal.mask.sum()) * 0.013
    return proposal


def merge_accept_undo(test: Any, logic: Any) -> None:
    """Proposals into the scene, merged, accepted, taken back; the finished segment is bit-identical."""
    volume = make_volume()
    collection = logic.proposals_of(volume)
    for number in (1, 2, 3):
        collection.add(make_proposal(number))
    merged = logic.merge(collection, ["test-1", "test-2", "test-3"], "Majority")
    middle = proposals_scene.mask_in_volume(collection.node, "test-2")
    np.testing.assert_array_equal(proposals_scene.mask_in_volume(collection.node, merged.id), middle)
    accepted = logic.accept(collection, merged.id)
    target = logic.node(accepted.node_id)
    finished = slicer.util.arrayFromSegmentBinaryLabelmap(target, accepted.segment_id, volume)
    np.testing.assert_array_equal(finished.transpose(2, 1, 0) > 0, middle)
    logic.undo.undo()
    test.assertEqual(target.GetSegmentation().GetNumberOfSegments(), 0)
    logic.undo.undo()
    test.assertIsNone(collection.get(merged.id))


def segment_if_installed(test: Any, logic: Any) -> None:
    """One draft proposal through the real engine, where it is installed."""
    volume = make_volume()
    try:
        logic.segment(volume, "segment the liver", proposals=1, quality="draft")
    except SegmentationError as error:
        if error.kind not in ("MissingPackage", "InterpreterMissing"):
            raise
        test.skipTest(str(error))
    finally:
        logic.engine.stop()
    test.assertIn("liver", logic.proposals_of(volume).groups)
