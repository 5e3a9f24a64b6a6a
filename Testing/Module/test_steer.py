"""Steering by clicks: vary, constrain, regions, cancel, and where the results come from."""

from __future__ import annotations

import numpy as np
import pytest
from panel_bench import until

pytest.importorskip("slicer", reason="needs slicer-core")
pytest.importorskip("PySide6", reason="needs PySide6-Essentials")

import slicer
import vtk
from test_panel_happy_path import (
    finished_nodes,
    identity,
    mask_of,
    proposals_node,
    propose,
    row_named,
    tag,
)


@pytest.fixture
def steering(panel):
    """Five proposals, the second selected, Steer unfolded."""
    propose(panel)
    panel.click_row(row_named(panel, "Proposal 2"))
    panel.fold("steerSection")
    return panel


def wait(panel) -> None:
    until(lambda: not panel.widget.logic.engine.is_busy())


def names(panel) -> list[str]:
    return [r.text(0) for r in panel.rows()]


def world(volume, index) -> list[float]:
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return list(matrix.MultiplyPoint((*map(float, index), 1.0))[:3])


def steered(panel, volume) -> list[np.ndarray]:
    """(K, J, I) masks of the proposals made from another one, without their consensus."""
    node, segmentation = proposals_node(), proposals_node().GetSegmentation()
    ids = [
        i for i in segmentation.GetSegmentIDs() if tag(segmentation.GetSegment(i), "ProGiDiff.from.parent")
    ]
    ids = [i for i in ids if tag(segmentation.GetSegment(i), "ProGiDiff.kind") == "sampled"]
    return [mask_of(node, i, volume) for i in ids]


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * int((a & b).sum()) / (int(a.sum()) + int(b.sum()))


def paint(volume, name: str, place: tuple[slice, slice, slice]):
    """A segment as the Segment Editor would leave it; `place` in (K, J, I)."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Scribbles")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segment_id = node.GetSegmentation().AddEmptySegment(name, name)
    painted = np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8)
    painted[place] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(painted, node, segment_id, volume)
    return node, segment_id


def test_vary_makes_proposals_near_the_selected_one(steering, volume):
    parent = mask_of(proposals_node(), identity(row_named(steering, "Proposal 2")), volume)
    assert steering.it("steerSourceButton").text().strip() == "Selected: liver 2"
    assert steering.it("steerOrganBox").currentText() == "liver"
    near = {}
    for strength in (10, 90):
        before = len(steered(steering, volume))
        steering.click_row(row_named(steering, "Proposal 2"))
        steering.slide("strengthSlider", strength)
        steering.click("varyButton")
        wait(steering)
        near[strength] = np.mean([dice(parent, m) for m in steered(steering, volume)[before:]])
    assert near[10] > near[90], "the slider did not reach the worker"
    assert "Proposal 2.1" in names(steering) and "Consensus (liver 2 varied)" in names(steering)
    assert steering.it("steerStatus").text().startswith("5 proposals in 2 s")


def test_a_steered_proposal_says_where_it_comes_from(steering):
    steering.slide("strengthSlider", 30)
    steering.click("varyButton")
    wait(steering)
    row = row_named(steering, "Proposal 2.1")
    segment = proposals_node().GetSegmentation().GetSegment(identity(row))
    assert tag(segment, "ProGiDiff.from.parent") == "liver 2"
    assert tag(segment, "ProGiDiff.from.strength") == "0.3"
    assert tag(segment, "ProGiDiff.from.method") == "varied"
    assert "Varied from: liver 2" in row.toolTip(0) and "Change: 30 %" in row.toolTip(0)
    assert row_named(steering, "Consensus (liver 2 varied)") is not None
    steering.click_row(row)
    steering.click("acceptButton")
    finished = finished_nodes()[0].GetSegmentation().GetNthSegment(0)
    assert tag(finished, "ProGiDiff.from.parent") == "liver 2"


def test_points_and_scribbles_are_kept_to_exactly(steering, volume):
    steering.click("insidePointsButton")
    steering.click("outsidePointsButton")
    inside, outside = slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")
    interaction = slicer.app.applicationLogic().GetInteractionNode()
    assert interaction.GetCurrentInteractionMode() == interaction.Place
    inside.AddControlPoint(world(volume, (1, 2, 3)))
    outside.AddControlPoint(world(volume, (13, 13, 12)))
    paint(volume, "scribble", (slice(0, 2), slice(0, 3), slice(4, 6)))
    steering.pick("insideButton", "scribble")
    assert steering.it("insideButton").text().startswith("Inside, 1 point, scribble")
    steering.click("constrainButton")
    assert interaction.GetCurrentInteractionMode() == interaction.ViewTransform
    wait(steering)
    masks = steered(steering, volume)
    assert len(masks) == 5
    for mask in masks:
        assert mask[3, 2, 1] and mask[0:2, 0:3, 4:6].all() and not mask[12, 13, 13]
    row = row_named(steering, "Proposal 2.1")
    assert "Kept to: 13 voxels inside, 1 voxels outside" in row.toolTip(0)


def test_a_finished_part_and_a_box_keep_the_rest(steering, volume):
    parent = mask_of(proposals_node(), identity(row_named(steering, "Proposal 2")), volume)
    paint(volume, "good part", (slice(None), slice(0, 14), slice(None)))
    steering.pick("finishedButton", "good part")
    steering.choose("regionBox", "Only in a box")
    assert steering.it("newRoiButton").isVisible() and not steering.it("regionFirstBox").isVisible()
    steering.click("newRoiButton")
    (box,) = slicer.util.getNodesByClass("vtkMRMLMarkupsROINode")
    center, size = [0.0] * 3, [0.0] * 3
    box.GetCenterWorld(center)
    box.GetSizeWorld(size)
    box.SetSizeWorld(size[0], size[1], size[2] / 2)
    steering.click("constrainButton")
    wait(steering)
    for mask in steered(steering, volume):
        np.testing.assert_array_equal(mask[:, 0:14], parent[:, 0:14])
        changed = np.argwhere(mask != parent)
        assert len(changed), "nothing changed at all"
        heights = [world(volume, index[::-1])[2] for index in changed]
        assert np.abs(np.array(heights) - center[2]).max() <= size[2] / 4 + 1e-6


def test_only_the_chosen_slices_change_and_the_views_go_there(steering, volume):
    parent = mask_of(proposals_node(), identity(row_named(steering, "Proposal 2")), volume)
    steering.choose("regionBox", "Only in some slices")
    steering.turn("regionFirstBox", 8)
    steering.turn("regionLastBox", 9)
    red = slicer.mrmlScene.GetSingletonNode("Red", "vtkMRMLSliceNode")
    assert red.GetSliceOffset() == pytest.approx(world(volume, (17.5, 14.5, 9))[2], abs=0.01)
    steering.click("varyButton")
    wait(steering)
    for mask in steered(steering, volume):
        rest = [k for k in range(len(mask)) if k not in (8, 9)]
        np.testing.assert_array_equal(mask[rest], parent[rest])
        assert (mask != parent).any()


def test_any_segment_can_be_varied_when_its_organ_is_said(steering, volume):
    paint(volume, "Segment_1", (slice(8, 16), slice(8, 20), slice(8, 24)))
    steering.pick("steerSourceButton", "Segment_1")
    assert not steering.it("varyButton").isEnabled()
    steering.choose("steerOrganBox", "spleen")
    steering.click("varyButton")
    wait(steering)
    assert len(steered(steering, volume)) == 5 and "Segment_1.1" in names(steering)
    assert [t.split(":")[0] for t in steering.titles()] == ["Liver", "Spleen"]


def test_a_fresh_draft_needs_marks_and_cannot_be_varied(steering, volume):
    steering.pick("steerSourceButton", "A fresh draft")
    assert not steering.it("varyButton").isEnabled()
    steering.click("constrainButton")
    assert steering.it("steerStatus").text().startswith("Nothing is marked yet.")
    paint(volume, "scribble", (slice(4, 6), slice(4, 6), slice(4, 6)))
    steering.pick("finishedButton", "scribble")
    steering.click("constrainButton")
    assert steering.it("steerStatus").text().startswith("A fresh draft has no finished part.")
    steering.pick("finishedButton", "Nothing")
    steering.pick("insideButton", "scribble")
    steering.click("constrainButton")
    wait(steering)
    assert any("Constrained from: a fresh draft" in r.toolTip(0) for r in steering.rows())


def test_cancel_keeps_what_has_arrived_and_propose_waits_meanwhile(steering, behaviour):
    steering.widget.logic.engine.stop()
    behaviour("slow")
    before = len(steering.rows())
    steering.click("varyButton")
    until(lambda: len(steering.rows()) > before)
    assert steering.it("varyButton").text() == "Cancel" and steering.it("steerBar").isVisible()
    assert not steering.it("constrainButton").isEnabled() and not steering.it("proposeButton").isEnabled()
    steering.click("varyButton")
    wait(steering)
    assert steering.it("steerStatus").text().startswith("Cancelled.")
    assert steering.it("varyButton").text() == "Vary" and steering.it("proposeButton").isEnabled()
    assert not steering.it("steerBar").isVisible()


def test_a_worker_killed_while_steering_leaves_what_had_arrived(steering, behaviour):
    steering.widget.logic.engine.stop()
    behaviour("die-after-first")
    before = len(steering.rows())
    steering.click("varyButton")
    wait(steering)
    assert "stopped unexpectedly" in steering.it("steerStatus").text()
    assert len(steering.rows()) == before + 1
    behaviour("")
    steering.click("varyButton")
    wait(steering)
    assert steering.it("steerStatus").text().startswith("5 proposals")


def test_a_scene_closed_while_steering(steering, behaviour):
    from slicer_host import pythonqt

    steering.widget.logic.engine.stop()
    behaviour("slow")
    before = len(steering.rows())
    steering.click("varyButton")
    until(lambda: len(steering.rows()) > before)
    slicer.mrmlScene.Clear(0)
    assert steering.it("steerStatus").text() == "The scene was closed, so the prompt was stopped."
    assert steering.rows() == [] and not steering.it("varyButton").isEnabled()
    assert not pythonqt.callback_errors


def test_a_mark_that_was_deleted_is_forgotten(steering, volume):
    node, _segment = paint(volume, "scribble", (slice(4, 6), slice(4, 6), slice(4, 6)))
    steering.pick("insideButton", "scribble")
    slicer.mrmlScene.RemoveNode(node)
    assert steering.it("insideButton").text().strip() == "Nothing"


def test_a_segment_on_another_grid_or_under_a_transform_marks_the_right_voxels(steering, volume):
    from ProGiDiffSlicerLib import voxels

    node, segment_id = paint(volume, "scribble", (slice(4, 6), slice(5, 8), slice(6, 10)))
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(2, 3, 8.0)  # two slices up
    transform.SetMatrixTransformToParent(matrix)
    node.SetAndObserveTransformNodeID(transform.GetID())
    assert voxels.of_segment(node, segment_id, volume)["region"] == [[6, 10], [5, 8], [6, 8]]
