"""Type, see proposals, step, compare, merge, accept, edit, undo: by clicks and keys on real MRML nodes."""

from __future__ import annotations

import numpy as np
import pytest
from panel_bench import until

pytest.importorskip("slicer", reason="needs slicer-core")
pytest.importorskip("PySide6", reason="needs PySide6-Essentials")

import slicer
import vtk
from PySide6.QtCore import Qt


def propose(panel, prompt: str = "segment the liver") -> None:
    panel.type("promptEdit", prompt, enter=True)
    until(lambda: not panel.widget.logic.engine.is_busy())


def proposals_node():
    return next(
        n for n in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if n.GetAttribute("ProGiDiff.role")
    )


def finished_nodes():
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return [n for n in nodes if not n.GetAttribute("ProGiDiff.role")]


def shown(node) -> list[str]:
    display = node.GetDisplayNode()
    return [i for i in node.GetSegmentation().GetSegmentIDs() if display.GetSegmentVisibility(i)]


def identity(row) -> str:
    return row.data(0, Qt.ItemDataRole.UserRole)


def row_named(panel, name: str):
    return next(r for r in panel.rows() if r.text(0) == name)


def mask_of(node, segment_id: str, volume) -> np.ndarray:
    return slicer.util.arrayFromSegmentBinaryLabelmap(node, segment_id, volume) > 0


def tag(segment, name: str) -> str:
    value = vtk.reference("")
    return str(value) if segment.GetTag(name, value) else ""


def test_enter_brings_proposals_into_list_and_scene(panel):
    propose(panel)
    assert panel.status() == "5 proposals in 2 s on the processor."
    assert [r.text(0) for r in panel.rows()] == [
        "Consensus", "Proposal 1", "Proposal 2", "Proposal 3", "Proposal 4", "Proposal 5",
    ]  # fmt: skip
    assert proposals_node().GetSegmentation().GetNumberOfSegments() == 6
    assert panel.titles() == ["Liver: 5 proposals, 5 really different"]
    first = row_named(panel, "Proposal 1")
    assert first.text(1) == "90 %" and first.text(2).endswith(" ml") and first.text(3).endswith(" %")
    assert all(not row.icon(0).isNull() for row in panel.rows())


def test_the_first_proposal_shows_while_the_others_are_made(panel, behaviour):
    behaviour("slow")
    panel.turn("proposalsBox", 20)
    panel.type("promptEdit", "liver", enter=True)
    until(panel.rows)
    assert panel.widget.logic.engine.is_busy()
    assert panel.it("proposeButton").text() == "Cancel"
    assert panel.rows()[0].text(1) == ""  # not scored yet, which is not 0 %
    until(lambda: "left" in panel.it("progressBar").text())
    assert panel.it("progressBar").isVisible()
    assert shown(proposals_node()) == [identity(panel.rows()[0])]
    panel.click("proposeButton")
    until(lambda: not panel.widget.logic.engine.is_busy())
    assert panel.status().startswith("Cancelled.") and "kept" in panel.status()
    assert panel.it("proposeButton").text() == "Propose"
    assert panel.rows() and not panel.it("progressBar").isVisible()


def test_the_propose_button_needs_a_volume_and_a_prompt(panel, volume):
    assert not panel.it("proposeButton").isEnabled()
    panel.type("promptEdit", "liver")
    assert panel.it("proposeButton").isEnabled()
    slicer.mrmlScene.RemoveNode(volume)
    assert not panel.it("proposeButton").isEnabled()


def test_selecting_shows_one_proposal_alone_and_jumps_to_it(panel, volume):
    propose(panel)
    red = slicer.mrmlScene.GetSingletonNode("Red", "vtkMRMLSliceNode")
    red.SetSliceOffset(-500)
    row = row_named(panel, "Proposal 3")
    panel.click_row(row)
    assert shown(proposals_node()) == [identity(row)]
    mask = mask_of(proposals_node(), identity(row), volume)
    matrix = vtk.vtkMatrix4x4()
    volume.GetRASToIJKMatrix(matrix)
    k = matrix.MultiplyPoint((0, 0, red.GetSliceOffset(), 1))[2]
    assert mask.sum(axis=(1, 2))[round(k)] == mask.sum(axis=(1, 2)).max()


def test_arrow_keys_and_letters_step_through_the_list(panel):
    propose(panel)
    panel.click_row(panel.rows()[0])
    panel.press(Qt.Key.Key_Down, "proposalsTree")
    assert shown(proposals_node()) == [identity(panel.rows()[1])]
    panel.press(Qt.Key.Key_N)
    panel.press(Qt.Key.Key_N)
    assert shown(proposals_node()) == [identity(panel.rows()[3])]
    panel.press(Qt.Key.Key_P)
    assert shown(proposals_node()) == [identity(panel.rows()[2])]
    panel.click("previousButton")
    panel.click("nextButton")
    assert shown(proposals_node()) == [identity(panel.rows()[2])]
    panel.press(Qt.Key.Key_Space, "proposalsTree")
    assert panel.rows()[2].checkState(0) == Qt.CheckState.Checked


def test_after_enter_the_keys_belong_to_the_list(panel, behaviour):
    """The prompt is disabled meanwhile; left alone, the focus would go to Cancel, which Space presses."""
    behaviour("slow")
    panel.type("promptEdit", "liver", enter=True)
    until(panel.rows)
    assert panel.window.focusWidget() is panel.it("proposalsTree")
    panel.press(Qt.Key.Key_Space, "proposalsTree")
    assert panel.widget.logic.engine.is_busy() and len(panel.widget.proposals.list.ticked()) == 1
    until(lambda: not panel.widget.logic.engine.is_busy())
    panel.press(Qt.Key.Key_N, "proposalsTree")
    assert panel.widget.proposals.current.name == panel.widget.proposals.proposals.everything()[2].name


def test_letters_typed_into_the_prompt_stay_letters(panel):
    propose(panel)
    before = shown(proposals_node())
    panel.type("promptEdit", "pancreas and spleen")
    assert panel.it("promptEdit").text() == "pancreas and spleen"
    assert shown(proposals_node()) == before


def test_ticked_proposals_show_as_contours_beside_the_selected_one(panel):
    propose(panel)
    panel.click_row(row_named(panel, "Proposal 1"))
    for name in ("Proposal 2", "Proposal 3"):
        panel.tick_row(row_named(panel, name))
    node, display = proposals_node(), proposals_node().GetDisplayNode()
    visible = set(shown(node))
    assert visible == {identity(row_named(panel, f"Proposal {i}")) for i in (1, 2, 3)}
    selected = identity(panel.it("proposalsTree").currentItem())
    assert [i for i in visible if display.GetSegmentVisibility2DFill(i)] == [selected]


def test_agreement_colours_the_slices_with_a_range_that_shows_something(panel, volume):
    propose(panel)
    panel.click("agreementButton")
    red = slicer.mrmlScene.GetSingletonNode("Red", "vtkMRMLSliceCompositeNode")
    overlay = slicer.mrmlScene.GetNodeByID(red.GetForegroundVolumeID())
    values = slicer.util.arrayFromVolume(overlay)
    display = overlay.GetDisplayNode()
    assert values.shape == slicer.util.arrayFromVolume(volume).shape
    assert values.min() == -1 and 0.99 < values.max() <= 1
    low, high = display.GetWindowLevelMin(), display.GetWindowLevelMax()
    assert 0 <= low < high <= 1.01 and ((values > low) & (values < high)).any()
    assert red.GetForegroundOpacity() > 0.3
    panel.press(Qt.Key.Key_A)
    assert red.GetForegroundVolumeID() is None and red.GetForegroundOpacity() == 0


@pytest.mark.parametrize("way", ["Union", "Intersection", "Majority", "Mean probability", "STAPLE"])
def test_merging_adds_a_proposal_and_keeps_the_others(panel, volume, way):
    if way == "STAPLE":
        pytest.importorskip("SimpleITK", reason="Slicer brings SimpleITK; here it is not installed")
    propose(panel)
    ticked = [row_named(panel, f"Proposal {i}") for i in (1, 2, 3)]
    ids = [identity(r) for r in ticked]
    for row in ticked:
        panel.tick_row(row)
    panel.choose("mergeBox", way)
    panel.click("mergeButton")
    node = proposals_node()
    merged = next(i for i in node.GetSegmentation().GetSegmentIDs() if i.startswith("merged"))
    votes = np.stack([mask_of(node, i, volume) for i in ids]).sum(axis=0)
    result = mask_of(node, merged, volume)
    if way == "STAPLE":
        assert result.any() and (result <= (votes > 0)).all() and (result >= (votes == 3)).all()
    elif way == "Mean probability":
        assert (result >= (votes == 3)).all() and (result <= (votes > 0)).all()
    else:
        np.testing.assert_array_equal(result, votes >= {"Union": 1, "Majority": 2, "Intersection": 3}[way])
    assert len(panel.rows()) == 7 and identity(panel.it("proposalsTree").currentItem()) == merged
    panel.click("undoButton")
    assert node.GetSegmentation().GetSegment(merged) is None and len(panel.rows()) == 6


def test_the_threshold_of_a_mean_moves_its_border_at_once(panel, volume):
    propose(panel)
    assert not panel.it("thresholdSlider").isEnabled()
    for i in (1, 2):
        panel.tick_row(row_named(panel, f"Proposal {i}"))
    panel.choose("mergeBox", "Mean probability")
    panel.click("mergeButton")
    node, merged = proposals_node(), identity(panel.it("proposalsTree").currentItem())
    sizes = []
    for text in ("0.30", "0.50", "0.80"):
        box = panel.it("thresholdSlider")._box
        box.lineEdit().selectAll()
        panel.hands_type(box, text)
        sizes.append(int(mask_of(node, merged, volume).sum()))
    assert sizes[0] > sizes[1] > sizes[2] > 0
    assert tag(node.GetSegmentation().GetSegment(merged), "ProGiDiff.threshold") == "0.8000"


def test_proposals_of_different_organs_are_not_merged(panel):
    propose(panel, "liver and spleen")
    rows = panel.rows()
    panel.tick_row(rows[1])
    panel.tick_row(rows[-1])
    panel.click("mergeButton")
    assert panel.status() == "Only proposals of one organ can be merged. Tick proposals of the same organ."
    assert len(panel.rows()) == len(rows)


def test_accept_makes_a_finished_segment_ready_for_dicom(panel, volume):
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Patient")
    study = hierarchy.CreateStudyItem(patient, "Study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(volume), study)
    propose(panel)
    row = row_named(panel, "Proposal 2")
    panel.click_row(row)
    panel.click("acceptButton")
    (node,) = finished_nodes()
    (segment_id,) = node.GetSegmentation().GetSegmentIDs()
    segment = node.GetSegmentation().GetSegment(segment_id)
    np.testing.assert_array_equal(
        mask_of(node, segment_id, volume), mask_of(proposals_node(), identity(row), volume)
    )
    assert segment.GetName() == "liver"
    assert segment.GetColor() == pytest.approx((221 / 255, 130 / 255, 101 / 255))
    assert "SCT^10200004^Liver" in tag(segment, slicer.vtkSegment.GetTerminologyEntryTagName())
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    assert logic.GetSegmentStatus(segment) == logic.Completed
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is volume
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study
    assert tag(segment, "ProGiDiff.from.prompt") == "segment the liver"
    assert tag(segment, "ProGiDiff.from.model_hash") == "f" * 64
    assert panel.it("targetSelector")._box.currentText() == node.GetName()


def test_a_finished_segment_is_never_changed_by_what_comes_later(panel, volume):
    propose(panel)
    panel.click_row(row_named(panel, "Proposal 1"))
    panel.click("acceptButton")
    (node,) = finished_nodes()
    (first,) = node.GetSegmentation().GetSegmentIDs()
    before = mask_of(node, first, volume)
    propose(panel, "liver please")
    panel.click_row(panel.rows()[-1])
    panel.click("acceptButton")
    names = [node.GetSegmentation().GetSegment(i).GetName() for i in node.GetSegmentation().GetSegmentIDs()]
    assert names == ["liver", "liver 2"] and finished_nodes() == [node]
    np.testing.assert_array_equal(mask_of(node, first, volume), before)


def test_undo_takes_an_accept_back_but_not_somebodys_work(panel, volume):
    propose(panel)
    for _twice in range(2):
        panel.click("acceptButton")
    (node,) = finished_nodes()
    panel.click("undoButton")
    (left,) = node.GetSegmentation().GetSegmentIDs()
    painted = mask_of(node, left, volume)
    painted[0, 0, 0] = True
    slicer.util.updateSegmentBinaryLabelmapFromArray(painted.astype(np.uint8), node, left, volume)
    panel.click("undoButton")
    assert "was changed after it was accepted, so it is kept" in panel.status()
    assert node.GetSegmentation().GetSegment(left) is not None
    assert not panel.it("undoButton").isEnabled()


def test_editing_happens_on_a_copy_and_harms_no_other_segment(panel, volume):
    propose(panel)
    original = identity(row_named(panel, "Proposal 1"))
    panel.click_row(row_named(panel, "Proposal 1"))
    before = mask_of(proposals_node(), original, volume)
    panel.click("editButton")
    editor = panel.widget.edit.editor
    editor_node = editor.mrmlSegmentEditorNode()
    copy = editor.currentSegmentID()
    assert copy != original and editor_node.GetSegmentationNode() is proposals_node()
    assert editor_node.GetOverwriteMode() == slicer.vtkMRMLSegmentEditorNode.OverwriteNone
    assert editor_node.GetSourceVolumeNode() is volume
    old_volume = next(r for r in panel.rows() if identity(r) == copy).text(2)
    brush = slicer.vtkOrientedImageData()
    brush.DeepCopy(proposals_node().GetBinaryLabelmapInternalRepresentation(copy))
    brush.GetPointData().GetScalars().Fill(1)
    slicer.vtkSlicerSegmentationsModuleLogic.SetBinaryLabelmapToSegment(brush, proposals_node(), copy)
    until(lambda: next(r for r in panel.rows() if identity(r) == copy).text(2) != old_volume)
    np.testing.assert_array_equal(mask_of(proposals_node(), original, volume), before)
    assert mask_of(proposals_node(), copy, volume).sum() > before.sum()


def test_accepting_can_go_on_in_the_segment_editor(panel):
    propose(panel)
    panel.tick_box("openEditorBox")
    panel.click("acceptButton")
    (node,) = finished_nodes()
    assert panel.widget.edit.editor.mrmlSegmentEditorNode().GetSegmentationNode() is node


def test_several_organs_make_groups_and_a_missing_one_a_sentence(panel):
    propose(panel, "liver, spleen and gallbladder")
    assert [t.split(":")[0] for t in panel.titles()] == ["Liver", "Spleen", "Gallbladder"]
    assert "The gallbladder is not in the image." in panel.status()
    tree = panel.it("proposalsTree")
    assert tree.topLevelItem(2).text(0) == "Gallbladder: not found"
    assert tree.topLevelItem(2).child(0).text(0) == "The gallbladder is not in the image."


def test_an_organ_that_was_drawn_without_a_voxel_is_not_found(panel, behaviour):
    behaviour("drawn-empty")
    propose(panel, "liver")
    tree = panel.it("proposalsTree")
    assert panel.titles() == ["Liver: not found"]
    assert tree.topLevelItem(0).childCount() == 1
    assert tree.topLevelItem(0).child(0).text(0) == "No liver was found in the field of view."
    assert proposals_node().GetSegmentation().GetNumberOfSegments() == 0


def test_a_prompt_without_an_organ_is_answered_by_a_sentence(panel, behaviour):
    behaviour("error")
    propose(panel, "hello")
    assert panel.status() == "The prompt names no organ. Try: segment the liver."
    assert panel.it("proposeButton").isEnabled()


def test_the_second_prompt_on_a_volume_does_not_send_it_again(panel):
    propose(panel)
    sent: list[str] = []
    worker = panel.widget.logic.engine._worker
    request = worker.request
    worker.request = lambda method, *rest: (sent.append(method), request(method, *rest))
    propose(panel, "spleen")
    assert sent == ["segment"]


def test_a_changed_volume_is_sent_again(panel, volume):
    propose(panel)
    slicer.util.arrayFromVolume(volume)[:] += 1
    slicer.util.arrayFromVolumeModified(volume)
    sent: list[str] = []
    worker = panel.widget.logic.engine._worker
    request = worker.request
    worker.request = lambda method, *rest: (sent.append(method), request(method, *rest))
    propose(panel, "spleen")
    assert sent == ["open_volume", "segment"]


def test_the_engine_starts_while_one_types(panel):
    panel.type("promptEdit", "l")
    until(lambda: panel.widget.logic.engine.greeting)
    assert not panel.widget.logic.engine.is_busy() and panel.status() == ""


def test_the_agreement_map_puts_back_what_lay_over_the_slices(panel, volume):
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "PET")
    red = slicer.mrmlScene.GetSingletonNode("Red", "vtkMRMLSliceCompositeNode")
    red.SetForegroundVolumeID(other.GetID())
    red.SetForegroundOpacity(0.3)
    propose(panel)
    panel.click("agreementButton")
    panel.click("nextButton")
    assert red.GetForegroundVolumeID() != other.GetID()
    panel.click("agreementButton")
    assert red.GetForegroundVolumeID() == other.GetID() and red.GetForegroundOpacity() == 0.3


def test_history_offers_earlier_prompts(panel):
    propose(panel, "segment the spleen")
    propose(panel, "liver")
    button = panel.it("historyButton")
    button.menu().aboutToShow.emit()
    actions = button.menu().actions()
    assert [a.text() for a in actions] == ["liver", "segment the spleen"]
    actions[1].trigger()
    assert panel.it("promptEdit").text() == "segment the spleen"


def test_completion_goes_on_after_an_and(panel):
    panel.type("promptEdit", "liver and pan")
    completer = panel.it("promptEdit").completer()
    completer.setCompletionPrefix("liver and pan")
    offers = [completer.completionModel().index(i, 0).data() for i in range(completer.completionCount())]
    assert "liver and pancreas" in offers


def test_clear_removes_proposals_and_leaves_finished_segments(panel):
    propose(panel)
    panel.click("acceptButton")
    panel.click("clearButton")
    assert panel.rows() == [] and panel.titles() == []
    (node,) = finished_nodes()
    assert node.GetSegmentation().GetNumberOfSegments() == 1
    assert slicer.util.getNodesByClass("vtkMRMLSegmentationNode") == [node]


def test_surfaces_appear_in_3d_for_what_is_shown(panel):
    propose(panel)
    panel.click("surfacesButton")
    segment = proposals_node().GetSegmentation().GetSegment(identity(panel.rows()[1]))
    surface = segment.GetRepresentation("Closed surface")
    assert surface is not None and surface.GetNumberOfPoints() > 100
    assert proposals_node().GetDisplayNode().GetVisibility3D()
