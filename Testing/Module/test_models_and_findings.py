"""Choosing the model that draws, and what only some models can draw."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_worker.models import MODELS
from panel_bench import ROOT, until

pytest.importorskip("slicer", reason="needs slicer-core")
pytest.importorskip("PySide6", reason="needs PySide6-Essentials")

import slicer
from slicer_host import pythonqt
from test_panel_happy_path import finished_nodes, proposals_node, propose, tag

EMBEDDED, OTHER = "progidiff-abdomen-small", "textdiffseg-abdomen-small"


@pytest.fixture
def advanced(panel):
    """The panel with Advanced open and the list of models there."""
    panel.fold("advancedSection")
    until(lambda: panel.widget.logic.models.heard_of_all)
    return panel


def offered(panel) -> list[str]:
    box = panel.it("modelBox")
    return [box.itemText(i) for i in range(box.count())]


def loaded(panel) -> str:
    return panel.widget.logic.engine.model.get("model_id", "")


def completions(panel, typed: str) -> list[str]:
    panel.type("promptEdit", typed)
    completer = panel.it("promptEdit").completer()
    completer.setCompletionPrefix(typed)
    return [completer.completionModel().index(i, 0).data() for i in range(completer.completionCount())]


def test_the_engines_models_are_offered_and_described(panel):
    assert offered(panel) == [EMBEDDED]
    assert panel.it("modelDescription").text() == "The list is complete once the engine has started."
    panel.fold("advancedSection")
    until(lambda: offered(panel) == [EMBEDDED, OTHER])
    assert panel.it("modelBox").currentText() == EMBEDDED
    assert panel.it("modelDescription").text() == MODELS[EMBEDDED][0]
    panel.choose("modelBox", OTHER)
    assert panel.it("modelDescription").text() == MODELS[OTHER][0]


@pytest.mark.parametrize("width", [360, 480, 700])
def test_the_description_takes_the_room_that_it_needs(advanced, width):
    advanced.fit(width)
    text = advanced.it("modelDescription")
    assert text.height() == text.heightForWidth(text.width())


def test_the_chosen_model_draws_from_the_next_prompt_on(advanced):
    propose(advanced)
    assert loaded(advanced) == "embedded"
    pid = advanced.widget.logic.engine.greeting["pid"]
    advanced.choose("modelBox", OTHER)
    assert loaded(advanced) == "embedded"
    propose(advanced, "spleen")
    assert loaded(advanced) == OTHER and advanced.widget.logic.engine.greeting["pid"] == pid
    segments = proposals_node().GetSegmentation()
    made_by = {tag(segments.GetSegment(i), "ProGiDiff.from.model") for i in segments.GetSegmentIDs()}
    assert made_by == {"embedded", OTHER}


def test_an_adapter_of_the_last_model_is_taken_off(advanced):
    from ProGiDiffSlicerLib import settings

    settings.set_adapter("/adapters/ours", "ours")
    advanced.choose("modelBox", OTHER)
    assert settings.adapter() == "" and "nothing" in advanced.it("adapterBox").currentText()


def test_the_model_is_saved_with_the_scene(advanced, scene, tmp_path):
    from ProGiDiffSlicerLib import settings

    advanced.choose("modelBox", OTHER)
    scene.SetRootDirectory(str(tmp_path))
    scene.SetURL(str(tmp_path / "scene.mrml"))
    assert scene.Commit()
    advanced.choose("modelBox", EMBEDDED)
    scene.Clear(0)
    assert settings.model() == "embedded"
    scene.Import()
    assert settings.model() == OTHER and advanced.it("modelBox").currentText() == OTHER


def test_a_folder_can_be_chosen(advanced, monkeypatch, tmp_path):
    folder = tmp_path / "our model"
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps({"findings": "pancreas_tumor"}))
    monkeypatch.setattr(pythonqt._FileDialog, "answer", str(folder))
    advanced.click("modelFolderButton")
    assert offered(advanced) == [EMBEDDED, OTHER, "our model"]
    assert "segment the pancreas tumor" in completions(advanced, "segment the panc")
    propose(advanced)
    assert loaded(advanced) == str(folder)


def test_a_model_that_is_not_on_this_computer(panel):
    """As when a scene comes from elsewhere, or somebody has removed it."""
    panel.widget.logic.models.choose("their-model")
    panel.fold("advancedSection")
    until(lambda: panel.it("modelBox").currentText() == "their-model (missing)")
    assert panel.it("modelDescription").text() == "This model is not on this computer. Choose another one."
    propose(panel)
    assert panel.status() == (
        "There is no model 'their-model' on this computer. Choose another model in Advanced."
    )
    panel.choose("modelBox", EMBEDDED)
    propose(panel)
    assert panel.status().startswith("5 proposals")


def test_an_engine_that_lists_no_models(panel, behaviour):
    behaviour("no-models")
    panel.fold("advancedSection")
    propose(panel)
    assert offered(panel) == [EMBEDDED] and panel.status().startswith("5 proposals")


def test_findings_are_offered_only_where_the_model_draws_them(advanced):
    assert not any("tumor" in c for c in completions(advanced, "segment the l"))
    advanced.choose("modelBox", OTHER)
    offers = completions(advanced, "segment the l")
    assert "segment the liver tumor" in offers and "segment the liver" in offers
    assert "spleen and pancreas tumor" in completions(advanced, "spleen and panc")
    assert not any("kidney tumor" in c for c in completions(advanced, "right kid")), "it cannot draw that one"
    advanced.choose("modelBox", EMBEDDED)
    assert not any("tumor" in c for c in completions(advanced, "segment the l"))


@pytest.mark.parametrize("prompt", ["segment the liver tumor", "Lebertumor", "hepatic lesions"])
def test_a_finding_asked_of_a_model_that_draws_organs_only(advanced, prompt):
    propose(advanced, prompt)
    assert advanced.status() == (
        f"{EMBEDDED} draws organs, not tumors or other findings in them. "
        f"Choose {OTHER} in Advanced, or ask for an organ."
    )
    assert advanced.rows() == []


def test_a_finding_becomes_a_segment_with_its_own_colour_name_and_codes(advanced):
    advanced.choose("modelBox", OTHER)
    propose(advanced, "segment the liver tumor")
    assert advanced.titles() == ["Liver tumor: 5 proposals, 5 really different"]
    advanced.click_row(advanced.rows()[0])
    advanced.click("acceptButton")
    (node,) = finished_nodes()
    segment = node.GetSegmentation().GetNthSegment(0)
    table = json.loads((ROOT / "Resources" / "organs.json").read_text(encoding="utf-8"))
    row = next(f for f in table["findings"] if f["id"] == "liver_tumor")
    assert segment.GetName() == "liver tumor"
    assert segment.GetColor() == pytest.approx([c / 255 for c in row["color"]])
    entry = slicer.vtkSlicerTerminologyEntry()
    said = tag(segment, slicer.vtkSegment.GetTerminologyEntryTagName())
    assert slicer.vtkSlicerTerminologiesModuleLogic.DeserializeTerminologyEntry(said, entry)
    for found, code in (
        (entry.GetCategoryObject(), row["snomed"]["category"]),
        (entry.GetTypeObject(), row["snomed"]["type"]),
        (entry.GetRegionObject(), ["SCT", "10200004", "Liver"]),
    ):
        assert [found.GetCodingSchemeDesignator(), found.GetCodeValue(), found.GetCodeMeaning()] == code


def test_a_finding_is_steered_but_not_taught(advanced, volume, tmp_path):
    advanced.choose("modelBox", OTHER)
    propose(advanced, "segment the liver tumor")
    advanced.click_row(advanced.rows()[1])
    assert advanced.it("steerOrganBox").currentText() == "liver tumor"
    logic = advanced.widget.logic
    tumor = logic.proposals_of(volume).everything()[1]
    assert len(logic.vary(volume, tumor, 0.2, proposals=2)) == 3
    with pytest.raises(Exception, match="Organs can be taught, not findings such as liver tumor"):
        logic.addCase(volume, tumor, str(tmp_path / "cases"))


def test_the_embedded_model_is_the_engines(panel):
    """Its name stands in the module too, so that it is there before the engine has started."""
    from ProGiDiffSlicerLib import models

    source = (ROOT / "Logic" / "progidiff" / "model_list.py").read_text(encoding="utf-8")
    assert f'EMBEDDED_FOLDER = "{models.EMBEDDED_NAME}"' in source
    assert (Path(ROOT) / "Resources" / "Models" / models.EMBEDDED_NAME / "model_index.json").is_file()


def test_panel_and_result_files_say_the_same_codes():
    from progidiff.prompts import organ_table
    from progidiff.proposals.segments import terminology_entry
    from ProGiDiffSlicerLib.organs import organs

    table = organ_table()
    entries = (*table.organs, *table.findings)
    assert {e.id: terminology_entry(e) for e in entries} == {i: o.terminology for i, o in organs().items()}
