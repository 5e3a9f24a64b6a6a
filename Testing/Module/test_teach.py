"""Cases and learning by clicks: what is kept, how it is shown, and that nothing that happens loses a case."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from panel_bench import open_panel, until

pytest.importorskip("slicer", reason="needs slicer-core")
pytest.importorskip("PySide6", reason="needs PySide6-Essentials")

import slicer
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from test_panel_happy_path import propose, row_named
from test_steer import paint

AS_IT_COMES = "nothing (the model as it comes)"


@pytest.fixture
def library(tmp_path, monkeypatch) -> Path:
    """The folder that the user chooses when asked."""
    from slicer_host import pythonqt

    monkeypatch.setattr(pythonqt._FileDialog, "answer", str(tmp_path / "cases"))
    return tmp_path / "cases"


@pytest.fixture
def yes(monkeypatch) -> list[str]:
    """The user presses OK on every question."""
    asked: list[str] = []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, *_: asked.append(text) or True)
    return asked


@pytest.fixture
def teaching(panel, library):
    """A liver proposed and accepted, Teach unfolded."""
    propose(panel)
    panel.click_row(row_named(panel, "Proposal 2"))
    panel.fold("teachSection")
    return panel


def said(panel, name: str) -> str:
    return panel.it(name).text()


def wait(panel) -> None:
    until(lambda: not panel.widget.logic.engine.is_busy())


def add(panel) -> None:
    panel.click("addCaseButton")
    wait(panel)


def cases(panel) -> list[list[str]]:
    tree = panel.it("casesTree")
    heads = [tree.topLevelItem(i) for i in range(tree.topLevelItemCount())]
    rows = [head.child(i) for head in heads for i in range(head.childCount())]
    return [[head.text(0)] for head in heads] + [[row.text(c) for c in range(4)] for row in rows]


def adapt(panel) -> None:
    panel.click("adaptButton")
    wait(panel)
    until(lambda: panel.widget.logic.adapters.known)


def table(panel) -> list[tuple[str, ...]]:
    tree = panel.it("learntTree")
    return [tuple(tree.topLevelItem(i).text(c) for c in range(3)) for i in range(tree.topLevelItemCount())]


def on_disk(folder: Path) -> list[str]:
    """Organs of the cases, as they lie there."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("case-*"))]
    return [organ["organ"] for case in found for organ in case["organs"]]


def test_the_first_case_asks_for_the_folder_and_is_listed(teaching, library):
    assert not teaching.it("adaptButton").isEnabled()
    assert teaching.it("adaptButton").toolTip() == "Add cases first."
    teaching.type("byEdit", "Dr. Gray")
    add(teaching)
    until(lambda: cases(teaching))
    assert said(teaching, "caseStatus") == "Added: liver of Ball."
    assert said(teaching, "libraryEdit") == str(library) and on_disk(library) == ["liver"]
    assert cases(teaching) == [["Liver: 1 case"], ["Ball (CT)", "all", "2026-11-20", "Dr. Gray"]]
    assert (
        said(teaching, "casesLabel") == "Images: 1, checked organs: 1."
        and teaching.it("adaptButton").isEnabled()
    )
    add(teaching)
    assert said(teaching, "caseStatus") == "This liver of Ball was there already."


def test_only_the_checked_slices_count(teaching, library):
    teaching.choose("checkedBox", "Only some slices")
    teaching.turn("checkedFirstBox", 5)
    teaching.turn("checkedLastBox", 12)
    add(teaching)
    (path,) = library.glob("case-*")
    assert json.loads(path.read_text(encoding="utf-8"))["organs"][0]["slices"] == [[5, 13]]
    until(lambda: cases(teaching))
    assert cases(teaching)[1][1] == "5–12"


def test_a_painted_segment_is_kept_when_its_organ_is_said(teaching, volume, library):
    paint(volume, "Segment_1", (slice(8, 16), slice(8, 20), slice(8, 24)))
    teaching.pick("caseSourceButton", "Segment_1")
    assert not teaching.it("addCaseButton").isEnabled()
    teaching.choose("caseOrganBox", "spleen")
    add(teaching)
    (path,) = library.glob("case-*")
    (organ,) = json.loads(path.read_text(encoding="utf-8"))["organs"]
    assert (organ["organ"], organ["voxels"]) == ("spleen", 8 * 12 * 16)


def remove_first(teaching):
    """Clicks the first case of the list, then the button that removes it."""
    tree = teaching.it("casesTree")
    place = tree.visualItemRect(tree.topLevelItem(0).child(0)).center()
    QTest.mouseClick(tree.viewport(), Qt.MouseButton.LeftButton, pos=place)
    QApplication.processEvents()
    teaching.click("removeCaseButton")


def test_a_case_is_removed_after_asking(teaching, library, yes):
    add(teaching)
    until(lambda: cases(teaching))
    assert not teaching.it("removeCaseButton").isEnabled()
    remove_first(teaching)
    until(lambda: not cases(teaching))
    assert yes[0].startswith("Delete the liver of Ball from your cases?")
    assert on_disk(library) == [] and not teaching.it("adaptButton").isEnabled()


def test_a_damaged_case_is_shown_and_removed_and_can_be_added_again(teaching, library, yes):
    add(teaching)
    until(lambda: cases(teaching))
    (path,) = library.glob("case-*")
    path.write_text("{")
    teaching.widget.cases.look()
    until(lambda: cases(teaching) and cases(teaching)[0] == ["Damaged: 1 case"])
    assert cases(teaching)[1][0] == path.name and "cannot be read" in said(teaching, "casesLabel")
    remove_first(teaching)
    until(lambda: not cases(teaching))
    assert yes == [f"Delete the damaged {path.name} with all its files? It can be added again then."]
    add(teaching)
    assert on_disk(library) == ["liver"]


def test_adapting_shows_progress_and_an_honest_before_and_after(teaching, behaviour):
    behaviour("slow")
    add(teaching)
    assert said(teaching, "caseStatus").startswith("Added")
    teaching.click("adaptButton")
    until(lambda: "loss" in said(teaching, "adaptStatus"))
    assert said(teaching, "adaptStatus").startswith("Step ")
    assert "loss on held-out slices" in said(teaching, "adaptStatus")
    assert teaching.it("adaptBar").isVisible() and "min left" in said(teaching, "adaptBar")
    assert not teaching.it("proposeButton").isEnabled() and not teaching.it("addCaseButton").isEnabled()
    assert said(teaching, "adaptButton") == "Cancel" and said(teaching, "proposeButton") == "Propose"
    wait(teaching)
    until(lambda: table(teaching))
    assert not teaching.it("learntSection")._collapsed and not teaching.it("adaptBar").isVisible()
    assert table(teaching) == [
        ("liver", "61 %", "84 %"),
        ("Synthetic patient (1)", "90 %", "89 %"),
    ]
    assert said(teaching, "verdictLabel").startswith("It got better on what it had not seen")
    assert "“Adapted 2026-11-20” is in use now." in said(teaching, "adaptStatus")
    assert teaching.it("adapterBox").currentText() == "Adapted 2026-11-20"


def test_while_it_learns_one_can_work_on_another_volume(teaching, volume, behaviour):
    from ProGiDiffSlicerLib import self_test

    behaviour("slow")
    add(teaching)
    other = self_test.make_volume()
    other.SetName("Other")
    teaching.click("adaptButton")
    until(lambda: "loss" in said(teaching, "adaptStatus"))
    teaching.it("volumeSelector").setCurrentNodeID(other.GetID())
    assert teaching.rows() == []
    teaching.choose("volumeSelector", volume.GetName())
    assert teaching.it("volumeSelector").isEnabled() and teaching.rows()
    teaching.type("promptEdit", "spleen", enter=True)
    assert said(teaching, "statusLabel").startswith("The engine is busy below")
    assert said(teaching, "adaptButton") == "Cancel" and teaching.widget.logic.engine.is_busy()


def test_what_did_not_get_better_says_so_and_is_not_used(teaching, behaviour):
    add(teaching)
    behaviour("no-better")
    adapt(teaching)
    assert said(teaching, "adaptStatus").startswith("It did not get better")
    assert teaching.it("adapterBox").currentText() == AS_IT_COMES
    teaching.click("useButton")
    until(lambda: teaching.it("adapterBox").currentText() == "Adapted 2026-11-20")
    assert said(teaching, "useButton") == "Do without it"


def test_the_next_proposals_are_made_with_it_and_say_so(teaching):
    add(teaching)
    adapt(teaching)
    propose(teaching, "spleen")
    name = Path(teaching.widget.logic.adapters.active).name
    assert f"Adapted by: {name}" in teaching.rows()[-1].toolTip(0)
    teaching.choose("adapterBox", AS_IT_COMES)
    until(lambda: said(teaching, "useButton") == "Use it")
    propose(teaching, "pancreas")
    assert "Adapted by" not in teaching.rows()[-1].toolTip(0)


def test_the_active_adapter_is_shown_before_the_engine_runs(teaching, host, module):
    from slicer_host.hands import Hands

    add(teaching)
    adapt(teaching)
    again = Hands(open_panel(host, module))
    assert not again.widget.logic.engine.greeting
    assert again.it("adapterBox").currentText() == "Adapted 2026-11-20"
    propose(again, "spleen")
    assert "Adapted by" in again.rows()[-1].toolTip(0)
    again.widget.logic.engine.stop()


def test_an_adapter_that_has_gone_is_said_and_can_be_done_without(teaching):
    add(teaching)
    adapt(teaching)
    teaching.widget.logic.engine.stop()
    Path(teaching.widget.logic.adapters.active).unlink()
    propose(teaching, "spleen")
    assert "is not an adapter" in teaching.status() and "“nothing” beside Adapted to" in teaching.status()
    teaching.choose("adapterBox", AS_IT_COMES)
    propose(teaching, "spleen")
    assert teaching.status().startswith("5 proposals")


def test_rename_export_delete_import(teaching, yes, tmp_path, monkeypatch):
    from slicer_host import pythonqt

    add(teaching)
    adapt(teaching)
    teaching.type("learntNameEdit", "Scanner 3", enter=True)
    until(lambda: teaching.it("adapterBox").currentText() == "Scanner 3")
    assert teaching.it("learntBox").currentText() == "Scanner 3 (in use)"
    monkeypatch.setattr(pythonqt._FileDialog, "answer", str(tmp_path / "out.zip"))
    teaching.click("exportButton")
    until((tmp_path / "out.zip").is_file)
    until(lambda: said(teaching, "learntStatus").startswith("Saved as"))
    teaching.click("deleteButton")
    until(lambda: teaching.it("learntBox").count() == 0)
    assert yes == ["Delete “Scanner 3”? The cases it learnt from stay."]
    assert teaching.it("adapterBox").currentText() == AS_IT_COMES and cases(teaching)
    assert said(teaching, "verdictLabel").startswith("Nothing yet")
    teaching.click("importButton")
    until(lambda: teaching.it("learntBox").currentText() == "Scanner 3")
    assert said(teaching, "learntStatus") == "Took in “Scanner 3”. Press Use it to work with it."
    other = json.loads((tmp_path / "out.zip").read_text(encoding="utf-8"))
    (tmp_path / "out.zip").write_text(json.dumps({**other, "base_hash": "0" * 64}))
    teaching.click("importButton")
    until(lambda: "belongs to another model" in said(teaching, "learntStatus"))


def test_what_was_learnt_is_compared_side_by_side(teaching, behaviour, tmp_path):
    from PySide6.QtWidgets import QLabel, QPushButton, QTreeWidget

    add(teaching)
    adapt(teaching)
    teaching.type("learntNameEdit", "Scanner 3", enter=True)
    until(lambda: teaching.it("learntBox").currentText() == "Scanner 3 (in use)")
    assert not teaching.it("compareButton").isEnabled()  # one alone
    behaviour("no-better")
    teaching.widget.logic.engine.stop()
    teaching.click("adaptButton")
    wait(teaching)
    until(lambda: len(teaching.widget.logic.adapters.known) == 2)
    teaching.click("compareButton")
    until(lambda: teaching.window.findChild(QTreeWidget, "compareTree"))
    tree = teaching.window.findChild(QTreeWidget, "compareTree")
    until(tree.isVisible)
    shown = [[tree.topLevelItem(i).text(c) for c in range(3)] for i in range(tree.topLevelItemCount())]
    names = [tree.headerItem().text(c) for c in (1, 2)]
    assert names == ["Adapted 2026-11-20", "Scanner 3"]
    assert shown == [
        ["Base model", "fake", "fake"],
        ["Cases it learnt from", "0", "0"],
        ["Measured on", "case-1", "case-1"],
        ["liver", "61 → 60 %", "61 → 84 %"],
        ["Mean", "61 → 60 %", "61 → 84 %"],
        ["Synthetic patient", "90 → 89 %", "90 → 89 %"],
    ]
    assert tree.topLevelItem(2).toolTip(1) == "Leave one case out."
    notes = teaching.window.findChild(QLabel, "compareNotes")
    assert notes.text() == "Their Dice can be compared."
    path = Path(teaching.widget.logic.adapters.known[0]["path"])
    other = json.loads(path.read_text(encoding="utf-8"))
    other["measured"]["held_out"] = ["case-2"]
    path.write_text(json.dumps(other), encoding="utf-8")
    teaching.click("compareButton")
    until(lambda: notes.text() == "Their Dice cannot be compared directly.")
    dialog = tree.window()
    dialog.grab().save(str(Path(os.environ.get("PROGIDIFF_SCREENSHOTS", tmp_path)) / "compare_learnt.png"))
    QTest.mouseClick(dialog.findChild(QPushButton), Qt.MouseButton.LeftButton)
    assert not dialog.isVisible()


def test_cancel_and_continue(teaching, behaviour):
    behaviour("slow")
    add(teaching)
    teaching.click("adaptButton")
    until(lambda: "Step 3" in said(teaching, "adaptStatus"))
    teaching.click("adaptButton")
    wait(teaching)
    assert said(teaching, "adaptStatus") == "Cancelled. It can go on from there; all cases are kept."
    assert said(teaching, "adaptButton") == "Continue to adapt"
    behaviour("")
    adapt(teaching)
    assert teaching.widget.logic.adapters.known[0]["resumed"] >= 3
    assert said(teaching, "adaptButton") == "Adapt to my cases"


# -- nothing loses a case ------------------------------------------------------------------------------


def test_a_scene_closed_in_the_middle_of_training_does_not_stop_it(teaching, behaviour, library):
    behaviour("slow")
    add(teaching)
    teaching.click("adaptButton")
    until(lambda: "Step 3" in said(teaching, "adaptStatus"))
    slicer.mrmlScene.Clear(0)
    assert teaching.widget.logic.engine.is_busy() and said(teaching, "adaptButton") == "Cancel"
    wait(teaching)
    until(lambda: table(teaching))
    assert on_disk(library) == ["liver"] and "is in use now" in said(teaching, "adaptStatus")


def test_a_scene_closed_while_a_case_is_being_saved_keeps_it(teaching, library):
    teaching.widget.logic.engine.stop()
    teaching.click("addCaseButton")
    slicer.mrmlScene.Clear(0)
    wait(teaching)
    assert on_disk(library) == ["liver"] and said(teaching, "caseStatus") == "Added: liver of Ball."


def test_a_worker_killed_in_the_middle_of_training_loses_no_case(teaching, behaviour, library):
    behaviour("slow")
    add(teaching)
    teaching.click("adaptButton")
    until(lambda: "Step 3" in said(teaching, "adaptStatus"))
    os.kill(teaching.widget.logic.engine.greeting["pid"], signal.SIGKILL)
    wait(teaching)
    assert "stopped unexpectedly" in said(teaching, "adaptStatus")
    assert "All cases are kept" in said(teaching, "adaptStatus") and on_disk(library) == ["liver"]
    assert said(teaching, "adaptButton") == "Continue to adapt"
    behaviour("")
    adapt(teaching)
    assert teaching.widget.logic.adapters.known[0]["resumed"] >= 3


def test_a_disk_that_is_full_in_the_middle_of_training_loses_no_case(teaching, behaviour, library):
    add(teaching)
    behaviour("training-disk-full")
    teaching.click("adaptButton")
    wait(teaching)
    status = said(teaching, "adaptStatus")
    assert "No space left on device" in status and status.endswith("All cases are kept.")
    assert on_disk(library) == ["liver"] and said(teaching, "adaptButton") == "Continue to adapt"
    behaviour("")
    adapt(teaching)
    assert teaching.widget.logic.adapters.known[0]["resumed"] == 10


def test_a_worker_killed_while_saving_says_that_the_case_was_not_saved(teaching, behaviour, library):
    behaviour("die-saving")
    add(teaching)
    assert said(teaching, "caseStatus").startswith("The case was not saved.")
    assert "press Add to cases again" in said(teaching, "caseStatus") and on_disk(library) == []
    behaviour("")
    add(teaching)
    assert on_disk(library) == ["liver"]


def test_leaving_slicer_in_the_middle_of_training_lets_it_continue_next_time(
    teaching, behaviour, library, host, module
):
    from slicer_host.hands import Hands

    behaviour("slow")
    add(teaching)
    teaching.click("adaptButton")
    until(lambda: "Step 3" in said(teaching, "adaptStatus"))
    slicer.app.aboutToQuit()
    behaviour("")
    again = Hands(open_panel(host, module))
    again.fold("teachSection")
    until(lambda: cases(again))
    assert said(again, "adaptButton") == "Continue to adapt" and on_disk(library) == ["liver"]
    adapt(again)
    assert again.widget.logic.adapters.known[0]["resumed"] >= 3
    again.widget.logic.engine.stop()
