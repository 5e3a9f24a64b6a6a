"""What other modules, scripts and the user do to the scene while the panel is open: its list never lies."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from panel_bench import scripted_launch, until

pytest.importorskip("slicer", reason="needs slicer-core")
pytest.importorskip("PySide6", reason="needs PySide6-Essentials")

import slicer
import vtk
from PySide6.QtWidgets import QApplication
from test_panel_happy_path import finished_nodes, identity, mask_of, proposals_node, propose, row_named


def paint(node, segment_id: str, volume, voxels: int) -> None:
    """Leaves that many voxels of a segment, as the Segment Editor would."""
    array = np.zeros(volume.GetImageData().GetDimensions()[::-1], np.uint8)
    array.reshape(-1)[:voxels] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, segment_id, volume)


def backgrounds() -> set[str]:
    return {n.GetBackgroundVolumeID() for n in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")}


def test_a_proposal_removed_by_hand_leaves_the_list(panel):
    propose(panel)
    panel.click_row(row_named(panel, "Proposal 2"))
    removed = identity(row_named(panel, "Proposal 2"))
    proposals_node().GetSegmentation().RemoveSegment(removed)
    until(lambda: removed not in [identity(r) for r in panel.rows()])
    assert len(panel.rows()) == 5
    panel.click("acceptButton")
    assert panel.status().startswith("Accepted as liver")


def test_a_proposal_removed_while_others_are_made_harms_none(panel, behaviour):
    behaviour("slow")
    panel.type("promptEdit", "liver", enter=True)
    until(lambda: len(panel.rows()) > 1)
    removed = identity(panel.rows()[0])
    proposals_node().GetSegmentation().RemoveSegment(removed)
    until(lambda: not panel.widget.logic.engine.is_busy())
    assert panel.status().startswith("5 proposals") and len(panel.rows()) == 5
    assert removed not in [identity(r) for r in panel.rows()]


def test_what_a_script_proposes_joins_the_list(panel, volume, module):
    propose(panel)
    engine = sys.modules["ProGiDiffSlicerLib.engine"].Engine(scripted_launch)
    script = module.ProGiDiffSlicerLogic(engine)
    script.segment(volume, "spleen", proposals=2)
    engine.stop()
    until(lambda: len(panel.rows()) == 9)
    assert panel.titles() == ["Liver: 5 proposals, 5 really different", "Spleen"]


def test_choosing_another_volume_shows_it_behind_its_proposals(panel, volume):
    from ProGiDiffSlicerLib import self_test

    propose(panel)
    other = self_test.make_volume()
    other.SetName("Other")
    panel.it("volumeSelector").setCurrentNodeID(other.GetID())
    propose(panel)
    assert backgrounds() == {other.GetID()}
    panel.choose("volumeSelector", volume.GetName())
    assert backgrounds() == {volume.GetID()}


def test_painting_goes_on_after_another_module_was_open(panel, volume):
    propose(panel)
    panel.click("editButton")
    copy = panel.widget.edit.editor.currentSegmentID()
    panel.widget.exit()
    panel.widget.enter()
    paint(proposals_node(), copy, volume, 100)
    expected = f"{100 * np.prod(volume.GetSpacing()) / 1000:.1f} ml"
    until(lambda: next(r for r in panel.rows() if identity(r) == copy).text(2) == expected)


def test_the_last_stroke_before_leaving_counts(panel, volume):
    propose(panel)
    panel.click("editButton")
    copy = panel.widget.edit.editor.currentSegmentID()
    paint(proposals_node(), copy, volume, 100)
    panel.widget.exit()
    voxel = np.prod(volume.GetSpacing()) / 1000
    assert panel.widget.proposals.proposals.get(copy).volume_ml == pytest.approx(100 * voxel)


def test_merging_takes_what_was_painted_in_another_editor(panel, volume):
    propose(panel)
    first, second = row_named(panel, "Proposal 1"), row_named(panel, "Proposal 2")
    for row in (first, second):
        paint(proposals_node(), identity(row), volume, 50)
    for name in ("Proposal 1", "Proposal 2"):
        panel.tick_row(row_named(panel, name))
    panel.click("mergeButton")
    merged = panel.widget.proposals.current
    assert merged.kind == "merged" and int(merged.mask.sum()) == 50


def test_the_editor_lets_go_of_what_was_cleared(panel):
    propose(panel)
    panel.click("acceptButton")
    panel.click("editButton")
    assert "Mending" in panel.it("editLabel").text()
    slicer.mrmlScene.RemoveNode(proposals_node())
    assert panel.it("editLabel").text().startswith("Select a proposal and press Edit")
    assert panel.widget.edit.editor.mrmlSegmentEditorNode() is None


def test_what_was_made_by_hand_is_not_cleared_by_a_slip(panel, monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, *_: asked.append(text) and False)
    propose(panel)
    panel.click("editButton")
    before = len(panel.rows())
    panel.click("clearButton")
    assert len(panel.rows()) == before and "(edited)" in asked[0]
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *_: True)
    panel.click("clearButton")
    assert panel.rows() == []


def test_clearing_leaves_undo_of_what_was_accepted(panel):
    propose(panel)
    panel.click("acceptButton")
    panel.click("clearButton")
    panel.click("undoButton")
    assert finished_nodes()[0].GetSegmentation().GetNumberOfSegments() == 0


def test_an_organ_that_was_not_found_can_be_cleared(panel):
    propose(panel, "gallbladder")
    assert panel.titles() == ["Gallbladder: not found"]
    panel.click("clearButton")
    assert panel.titles() == []


def test_undo_after_the_volume_has_gone_keeps_the_segment(panel, volume):
    propose(panel)
    panel.click("acceptButton")
    slicer.mrmlScene.RemoveNode(volume)
    panel.click("undoButton")
    assert panel.status().startswith("The volume of liver has left the scene, so liver is kept.")
    assert finished_nodes()[0].GetSegmentation().GetNumberOfSegments() == 1


def test_nothing_else_is_steered_when_the_chosen_segment_has_gone(panel):
    propose(panel)
    panel.click("acceptButton")
    panel.fold("steerSection")
    panel.pick("steerSourceButton", "liver (Segmentation")
    segmentation = finished_nodes()[0].GetSegmentation()
    segmentation.RemoveSegment(segmentation.GetNthSegmentID(0))
    QApplication.processEvents()
    panel.click("varyButton")
    assert "is no longer there" in panel.it("steerStatus").text()
    assert not panel.widget.logic.engine.is_busy() and len(panel.rows()) == 6
    assert panel.it("steerSourceButton").text().startswith("Selected:")


def test_problems_can_be_read_in_the_dark_style(panel, host):
    from PySide6.QtGui import QColor, QPalette

    light = host.qapp.palette()
    dark = QPalette(QColor("#353535"))
    try:
        host.qapp.setPalette(dark)
        QApplication.processEvents()
        panel.widget.logic.engine._launch = lambda: type(scripted_launch())("/no/such/python", ())
        propose(panel)
        color = QColor(panel.it("statusLabel").styleSheet().removeprefix("color: ").rstrip(";"))
        assert contrast(color, dark.color(QPalette.ColorRole.Window)) > 4.5
    finally:
        host.qapp.setPalette(light)


def contrast(first, second) -> float:
    """WCAG 2.1's contrast ratio of two colours; from 4.5 on text can be read well."""

    def luminance(color) -> float:
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in color.getRgbF()[:3]]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_proposals_go_along_when_a_transform_moves_their_volume(panel, volume):
    propose(panel)
    first = identity(row_named(panel, "Proposal 1"))
    panel.click_row(row_named(panel, "Proposal 1"))
    before = mask_of(proposals_node(), first, volume)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, 50)
    transform.SetMatrixTransformToParent(matrix)
    volume.SetAndObserveTransformNodeID(transform.GetID())
    panel.click("acceptButton")
    (target,) = finished_nodes()
    (accepted,) = target.GetSegmentation().GetSegmentIDs()
    assert target.GetTransformNodeID() == transform.GetID()
    np.testing.assert_array_equal(mask_of(target, accepted, volume), before)
    propose(panel, "spleen")
    assert proposals_node().GetTransformNodeID() == transform.GetID()
