"""Saving and re-opening, odd geometries, and the scripting interface."""

from __future__ import annotations

import itertools
import sys
import unittest

import numpy as np
import pytest
from panel_bench import open_panel, scripted_launch, until

pytest.importorskip("slicer", reason="needs slicer-core")
pytest.importorskip("PySide6", reason="needs PySide6-Essentials")

import slicer
import vtk
from test_panel_happy_path import finished_nodes, proposals_node, propose


@pytest.fixture
def logic(module, scene):
    made = module.ProGiDiffSlicerLogic(sys.modules["ProGiDiffSlicerLib.engine"].Engine(scripted_launch))
    yield made
    made.engine.stop()


def test_a_saved_segmentation_lists_its_proposals_again(panel, host, module, volume, tmp_path):
    from slicer_host.hands import Hands

    propose(panel)
    before = [[r.text(c) for c in range(4)] for r in panel.rows()]
    path = tmp_path / "proposals.seg.nrrd"
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(path))
    storage.SetScene(slicer.mrmlScene)
    assert storage.WriteData(proposals_node())
    panel.click("clearButton")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    assert storage.ReadData(node)
    node.CreateDefaultDisplayNodes()
    node.SetAttribute("ProGiDiff.role", "proposals")
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    slicer.mrmlScene.InvokeEvent(slicer.mrmlScene.EndImportEvent)
    again = Hands(panel.widget)
    assert [[r.text(c) for c in range(4)] for r in again.rows()] == before
    again.click_row(again.rows()[2])
    again.click("acceptButton")
    assert finished_nodes()[0].GetSegmentation().GetNumberOfSegments() == 1


def save_with_data(scene, folder) -> None:
    """As Slicer saves a scene: each node with voxels into its own file, then the scene itself."""
    storages = {
        "vtkMRMLScalarVolumeNode": (slicer.vtkMRMLVolumeArchetypeStorageNode, "nrrd"),
        "vtkMRMLSegmentationNode": (slicer.vtkMRMLSegmentationStorageNode, "seg.nrrd"),
    }
    for kind, (storage_class, ending) in storages.items():
        for number, node in enumerate(slicer.util.getNodesByClass(kind)):
            storage = scene.AddNode(storage_class())
            storage.SetFileName(str(folder / f"{kind}-{number}.{ending}"))
            node.SetAndObserveStorageNodeID(storage.GetID())
            assert storage.WriteData(node)
    scene.SetRootDirectory(str(folder))
    scene.SetURL(str(folder / "scene.mrml"))
    assert scene.Commit()


def test_a_reopened_scene_lists_proposals_with_scores_and_keeps_what_was_accepted(
    panel, scene, volume, tmp_path
):
    propose(panel, "liver and spleen")
    panel.click_row(panel.rows()[1])
    panel.click("acceptButton")
    before = [[r.text(c) for c in range(4)] for r in panel.rows()]
    finished = slicer.util.arrayFromSegmentBinaryLabelmap(finished_nodes()[0], "liver", volume)
    save_with_data(scene, tmp_path)
    scene.Clear(0)
    assert panel.rows() == []
    scene.Import()
    assert [[r.text(c) for c in range(4)] for r in panel.rows()] == before
    assert [t.split(":")[0] for t in panel.titles()] == ["Liver", "Spleen"]
    (again,) = finished_nodes()
    reopened = panel.widget.ui.volumeSelector.currentNode()
    np.testing.assert_array_equal(
        slicer.util.arrayFromSegmentBinaryLabelmap(again, "liver", reopened), finished
    )
    assert panel.it("targetSelector")._box.currentText() == again.GetName()
    panel.click("agreementButton")
    red = scene.GetSingletonNode("Red", "vtkMRMLSliceCompositeNode")
    assert red.GetForegroundVolumeID() is not None
    for row in panel.rows()[1:3]:
        panel.tick_row(row)
    panel.click("mergeButton")
    assert "Added liver: majority 1" in panel.status()


def test_another_volume_shows_its_own_proposals_and_gets_its_own_segmentation(panel, volume):
    propose(panel)
    panel.click("acceptButton")
    (of_first,) = finished_nodes()
    first = proposals_node()
    second = slicer.util.addVolumeFromArray(slicer.util.arrayFromVolume(volume), name="Second")
    second.CreateDefaultDisplayNodes()
    panel.choose("volumeSelector", "Second")
    assert panel.rows() == [] and not first.GetDisplayNode().GetVisibility()
    assert panel.it("targetSelector")._box.currentText() == "New segmentation"
    propose(panel, "spleen")
    panel.click("acceptButton")
    assert of_first.GetSegmentation().GetNumberOfSegments() == 1
    (of_second,) = (n for n in finished_nodes() if n is not of_first)
    assert of_second.GetNodeReference(of_second.GetReferenceImageGeometryReferenceRole()) is second
    panel.choose("targetSelector", of_first.GetName())
    panel.click("acceptButton")
    assert panel.status() == (
        f"{of_first.GetName()} belongs to {volume.GetName()}, not to Second. "
        "Choose another target, or a new segmentation."
    )
    panel.choose("volumeSelector", volume.GetName())
    assert len(panel.rows()) == 6 and first.GetDisplayNode().GetVisibility()


def test_a_map_or_label_map_is_not_taken_for_an_image(panel, scene, volume):
    propose(panel)
    scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    scene.RemoveNode(volume)
    panel.widget.enter()
    assert panel.widget.ui.volumeSelector.currentNode() is None


def test_closing_the_scene_takes_the_agreement_map_away(panel, scene):
    propose(panel)
    panel.click("agreementButton")
    scene.Clear(0)
    assert not panel.it("agreementButton").isChecked() and "agreement" not in panel.status()


def test_a_scene_file_brings_prompt_and_settings_back(panel, scene, tmp_path):
    panel.type("promptEdit", "both kidneys")
    panel.choose("qualityBox", "Fine")
    scene.SetRootDirectory(str(tmp_path))
    scene.SetURL(str(tmp_path / "scene.mrml"))
    assert scene.Commit()
    scene.Clear(0)
    assert panel.it("promptEdit").text() == "" and panel.it("qualityBox").currentText() == "Standard"
    scene.Import()
    assert panel.it("promptEdit").text() == "both kidneys" and panel.it("qualityBox").currentText() == "Fine"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_masks_fit_volumes_of_any_axis_order(logic, order):
    flips = (-1, 1, -1)
    node = slicer.util.addVolumeFromArray(np.zeros((9, 11, 13), np.int16), name="turned")
    matrix = vtk.vtkMatrix4x4()
    for row in range(3):
        for column in range(3):
            matrix.SetElement(row, column, flips[row] * (2.0 + row) if order[row] == column else 0.1 * row)
        matrix.SetElement(row, 3, 10.0 * row)
    node.SetIJKToRASMatrix(matrix)
    node.CreateDefaultDisplayNodes()
    proposal = next(p for p in logic.segment(node, "liver", proposals=2) if p.kind == "sampled")
    segmentation = logic.proposals_of(node).node
    array = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, proposal.id, node)
    full = np.zeros((13, 11, 9), bool)
    full[tuple(slice(a, b) for a, b in proposal.region)] = proposal.mask
    np.testing.assert_array_equal(array.transpose(2, 1, 0) > 0, full)


def test_segment_blocks_and_returns_what_the_panel_would_show(logic, volume):
    proposals = logic.segment(volume, "segment the liver", proposals=3)
    assert [p.name for p in proposals] == ["liver consensus", "liver 1", "liver 2", "liver 3"]
    assert proposals[0].volume_ml > 0 and proposals[1].provenance["seed"] == 0
    accepted = logic.accept(logic.proposals_of(volume), proposals[0].id)
    assert logic.node(accepted.node_id).GetSegmentation().GetSegment(accepted.segment_id).GetName() == "liver"


def test_segment_raises_a_sentence_and_opens_no_dialog(logic, volume, behaviour):
    behaviour("error")
    with pytest.raises(Exception, match="The prompt names no organ") as raised:
        logic.segment(volume, "nothing")
    assert type(raised.value).__name__ == "SegmentationError" and raised.value.kind == "PromptError"


def test_segmenting_an_empty_volume_is_refused(logic, scene):
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "hollow")
    with pytest.raises(Exception, match="The volume hollow holds no image"):
        logic.segment(node, "liver")


def test_a_transformed_volume_carries_its_proposals_along(logic, volume):
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    volume.SetAndObserveTransformNodeID(transform.GetID())
    logic.segment(volume, "liver", proposals=2)
    assert logic.proposals_of(volume).node.GetTransformNodeID() == transform.GetID()


def test_two_panels_of_one_scene_see_the_same_proposals(panel, host, module, volume):
    """A reload makes a new widget and a new logic on the old scene."""
    from slicer_host.hands import Hands

    propose(panel)
    expected = [r.text(0) for r in panel.rows()]
    reloaded = open_panel(host, module)
    try:
        until(lambda: Hands(reloaded).rows())
        assert [r.text(0) for r in Hands(reloaded).rows()] == expected
    finally:
        reloaded.exit()
        reloaded.cleanup()


def test_the_modules_own_test_passes_here_too(panel, module, monkeypatch):
    """What Reload & Test and CTest run in a real Slicer; the engine is the scripted one."""
    engine = panel.widget.logic.engine
    monkeypatch.setattr(module.ProGiDiffSlicerLogic.__init__, "__defaults__", (engine,))
    tests = unittest.defaultTestLoader.loadTestsFromTestCase(module.ProGiDiffSlicerTest)
    outcome = unittest.TextTestRunner(verbosity=0).run(tests)
    assert outcome.testsRun == 3 and outcome.wasSuccessful() and not outcome.skipped
    module.ProGiDiffSlicerTest().runTest()


def test_the_agreement_map_is_not_offered_as_a_volume_and_belongs_to_its_volume(panel, volume):
    from ProGiDiffSlicerLib import agreement

    propose(panel)
    assert panel.it("volumeSelector").nodeCount() == 1
    assert agreement.find_map(volume, "liver") is not None and agreement.find_map(volume, "spleen") is None


def test_accepting_into_the_proposals_is_refused(panel):
    propose(panel)
    panel.choose("targetSelector", proposals_node().GetName())
    panel.click("acceptButton")
    assert "holds proposals and cannot hold finished segments" in panel.status()
    assert finished_nodes() == []


def test_loading_something_while_proposals_are_made_loses_none(panel, behaviour):
    behaviour("slow")
    panel.type("promptEdit", "liver", enter=True)
    until(panel.rows)
    slicer.mrmlScene.InvokeEvent(slicer.mrmlScene.EndImportEvent)
    until(lambda: not panel.widget.logic.engine.is_busy())
    assert len(panel.rows()) == 6


def test_a_folder_of_patients_one_scene_after_the_other(logic, module):
    """Node ids are used again after a scene was closed; nothing of the last patient may be left."""
    from ProGiDiffSlicerLib import self_test

    pids = set()
    for _patient in range(3):
        slicer.mrmlScene.Clear(0)
        volume = self_test.make_volume()
        proposals = logic.segment(volume, "liver and spleen", proposals=2)
        assert [p.name for p in proposals if p.kind == "consensus"] == ["liver consensus", "spleen consensus"]
        collection, target = logic.proposals_of(volume), None
        for consensus in (p for p in proposals if p.kind == "consensus"):
            target = logic.node(logic.accept(collection, consensus.id, target).node_id)
        assert target.GetSegmentation().GetNumberOfSegments() == 2
        pids.add(logic.engine.greeting["pid"])
    assert len(pids) == 1, "the engine was to stay warm"


def test_a_segment_on_a_finer_grid_is_read_on_the_grid_of_its_volume(logic, volume):
    """The Segment Editor lets people oversample."""
    from ProGiDiffSlicerLib import proposals_scene

    proposal = logic.segment(volume, "liver", proposals=2)[1]
    node = logic.proposals_of(volume).node
    before = proposals_scene.mask_in_volume(node, proposal.id)
    fine = slicer.vtkOrientedImageData()
    coarse = slicer.vtkOrientedImageData()
    node.GetBinaryLabelmapRepresentation(proposal.id, coarse)
    fine.DeepCopy(coarse)
    fine.SetSpacing(*[s / 2 for s in coarse.GetSpacing()])
    extent = coarse.GetExtent()
    fine.SetExtent(*[2 * e + (i % 2) for i, e in enumerate(extent)])
    fine.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    resample = slicer.vtkOrientedImageDataResample
    assert resample.ResampleOrientedImageToReferenceOrientedImage(coarse, fine, fine, False)
    segment = node.GetSegmentation().GetSegment(proposal.id)
    segment.RemoveAllRepresentations()
    segment.AddRepresentation("Binary labelmap", fine)
    after = proposals_scene.mask_in_volume(node, proposal.id)
    assert after.shape == before.shape and (after != before).mean() < 0.02 and after.any()


def test_steering_by_script(logic, volume):
    liver = logic.segment(volume, "segment the liver", proposals=2)[1]
    near = logic.vary(volume, liver, 0.2, proposals=3, region=(8, 9))
    assert [p.name for p in near if p.kind == "sampled"] == ["liver 1.1", "liver 1.2", "liver 1.3"]
    assert near[1].provenance["strength"] == 0.2 and near[1].provenance["parent"] == "liver 1"
    points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "in")
    with pytest.raises(Exception, match="in has no points yet"):
        logic.constrain(volume, liver, inside=[points])
    points.AddControlPoint(*volume_point(volume, (1, 2, 3)))
    kept = logic.constrain(volume, liver, inside=[points], proposals=2)
    (i0, _), (j0, _), (k0, _) = kept[1].region
    assert kept[1].mask[1 - i0, 2 - j0, 3 - k0]
    with pytest.raises(Exception, match="It is not known which organ"):
        logic.vary(volume, (segmentation_of(volume), "anything"))


def volume_point(volume, index):
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return matrix.MultiplyPoint((*map(float, index), 1.0))[:3]


def segmentation_of(volume):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    node.GetSegmentation().AddEmptySegment("anything", "something")
    return node


def test_teaching_by_script(logic, volume, tmp_path):
    liver = logic.segment(volume, "segment the liver", proposals=2)[1]
    with pytest.raises(Exception, match="There are no cases to learn from"):
        logic.adapt(str(tmp_path / "cases"))
    kept = logic.addCase(volume, liver, str(tmp_path / "cases"), slices=(3, 9), by="me")
    assert kept["outcome"] == "added" and kept["case"]["organs"][0]["slices"] == [[3, 10]]
    heard: list[str] = []
    done = logic.adapt(
        str(tmp_path / "cases"), "ours", onProgress=lambda _stage, p: heard.append(p.get("text"))
    )
    assert done["activated"] and done["adapter"]["name"] == "ours"
    assert {"Learning what they look like", "Learning to draw them"} <= set(heard)
    assert logic.adapters.active == done["adapter"]["path"]
    again = logic.segment(volume, "segment the liver", proposals=2)
    assert again[1].provenance["adapter"] == done["adapter"]["adapter_id"]
