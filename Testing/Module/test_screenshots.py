"""Pictures of the panel and the views on a synthetic abdomen, for the README and for looking at.

They go to a temporary folder, or to the folder named in PROGIDIFF_SCREENSHOTS. The proposals are scripted,
so that the pictures do not change with the model; PROGIDIFF_REAL_ENGINE=1 takes the real engine's instead.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from panel_bench import ROOT, open_panel, scripted_launch, until

pytest.importorskip("slicer", reason="needs slicer-core")
pytest.importorskip("PySide6", reason="needs PySide6-Essentials")

import slicer

_VIEW_WIDTH, _VIEW_BAR = 470, 19


@pytest.fixture
def folder(tmp_path) -> Path:
    return Path(os.environ.get("PROGIDIFF_SCREENSHOTS", tmp_path))


@pytest.fixture
def scan(scene, module, phantom_folder, tmp_path, monkeypatch):
    from ProGiDiffSlicerLib import sample_data

    labels = sample_data.load(phantom_folder / "labels.nrrd")
    np.save(tmp_path / "labels.npy", slicer.util.arrayFromVolume(labels).transpose(2, 1, 0))
    slicer.mrmlScene.RemoveNode(labels)
    monkeypatch.setenv("FAKE_LABELS", str(tmp_path / "labels.npy"))
    node = sample_data.load(phantom_folder / "image.nrrd")
    node.SetName("Synthetic CT")
    node.GetDisplayNode().AutoWindowLevelOff()
    node.GetDisplayNode().SetWindowLevel(400, 40)
    return node


def real_launch(engine_python: str):
    from ProGiDiffSlicerLib.worker import Launch

    environment = {**os.environ, "PYTHONPATH": str(ROOT / "Logic")}
    return Launch(engine_python, ("-m", "progidiff.worker"), environment)


@pytest.fixture
def open_on_scan(host, module, scan, engine_python):
    from slicer_host.hands import Hands

    real = os.environ.get("PROGIDIFF_REAL_ENGINE") == "1"
    panel = Hands(open_panel(host, module, (lambda: real_launch(engine_python)) if real else scripted_launch))
    yield panel
    host.close_panel(panel.widget)


def views(panel):
    """Slice views that are together as high as the panel."""
    from slicer_host import views as made

    made_ones = {name: made.SliceView(name, view_size(panel)) for name in ("Red", "Yellow", "Green")}
    for view in made_ones.values():
        view.fit()
    return made_ones


def view_size(panel) -> tuple[int, int]:
    return _VIEW_WIDTH, panel.window.height() // 2 - _VIEW_BAR


def without_scroll_bar(panel) -> bool:
    area = panel.window.centralWidget()
    return area.verticalScrollBar().maximum() == 0 and area.horizontalScrollBar().maximum() == 0


def select(panel, name: str) -> None:
    panel.click_row(next(r for r in panel.rows() if r.text(0) == name))


def wait_for(panel) -> None:
    until(lambda: not panel.widget.logic.engine.is_busy(), seconds=120)


def picture_of_application(panel, slices, path: Path):
    from slicer_host import views as made

    drawn = {name: view.picture() for name, view in slices.items()}
    surfaces = made.ThreeDView(view_size(panel)).picture()
    made.application_picture(panel.window.grab(), drawn, surfaces, path)
    return drawn, surfaces


def colourful(pixels) -> float:
    """Share of pixels that are not grey."""
    return float((np.ptp(pixels.astype(int), axis=2) > 8).mean())


@pytest.mark.timeout(180)
def test_pictures_of_the_way_from_prompt_to_segment(open_on_scan, folder, host):
    panel = open_on_scan
    panel.type("promptEdit", "liver, pancreas and spleen", enter=True)
    until(panel.rows, seconds=120)
    panel.fit()
    panel.screenshot(folder / "working.png")
    assert without_scroll_bar(panel)
    wait_for(panel)
    panel.fit()
    slices = views(panel)
    select(panel, "Proposal 2")
    panel.click("surfacesButton")
    panel.window.setFocus()
    drawn, surfaces = picture_of_application(panel, slices, folder / "overview.png")
    assert all(colourful(p) > 0.01 for p in drawn.values()) and colourful(surfaces) > 0.1
    plain = drawn["Red"]

    for name in ("Proposal 1", "Proposal 4"):
        panel.tick_row(next(r for r in panel.rows() if r.text(0) == name))
    select(panel, "Proposal 2")
    drawn, _surfaces = picture_of_application(panel, slices, folder / "compare.png")
    assert (drawn["Red"] != plain).any()

    panel.click("agreementButton")
    drawn, _surfaces = picture_of_application(panel, slices, folder / "agreement.png")
    assert colourful(drawn["Red"]) > 0.02
    panel.click("agreementButton")

    panel.choose("mergeBox", "Mean probability")
    panel.click("mergeButton")
    panel.click("acceptButton")
    panel.fit()
    panel.screenshot(folder / "accepted.png")
    assert without_scroll_bar(panel)
    assert panel.status().startswith("Accepted as liver")


def test_picture_of_set_up_and_advanced(open_on_scan, folder, behaviour):
    panel = open_on_scan
    panel.fold("proposalsSection")
    panel.fold("setupSection")
    panel.fold("advancedSection")
    panel.click("checkButton")
    until(lambda: "PyTorch" in panel.it("setupLabel").text(), seconds=60)
    if panel.it("setupSection")._collapsed:
        panel.fold("setupSection")
    panel.fit()
    panel.screenshot(folder / "setup.png")
    assert without_scroll_bar(panel)
    assert "●" in panel.it("setupLabel").text()


def outline(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool: the rim of a mask."""
    inner = mask.copy()
    for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
        inner &= np.roll(mask, shift, axis)
    return mask & ~inner


def picture_of_before_and_after(scan, path: Path) -> None:
    """As the engine draws it: what was true in white, what the model drew in colour, two organs."""
    image = slicer.util.arrayFromVolume(scan)
    grey = np.clip((image + 160) / 400 * 255, 0, 255).astype(np.uint8)
    labels = np.load(os.environ["FAKE_LABELS"]).transpose(2, 1, 0)
    rows = []
    for label in (6, 1):
        k = int((labels == label).sum(axis=(1, 2)).argmax())
        truth, shown = labels[k] == label, []
        for shift, color in ((9, (255, 176, 0)), (2, (86, 190, 255))):
            pixels = np.repeat(grey[k][..., None], 3, axis=2)
            pixels[outline(truth)] = (255, 255, 255)
            pixels[outline(np.roll(truth, (shift, shift), (0, 1)))] = color
            shown.append(pixels)
        rows.append(np.concatenate(shown, axis=1))
    from slicer_host import views as made

    made.save(np.ascontiguousarray(np.concatenate(rows)), path)


@pytest.mark.timeout(180)
def test_picture_of_steering(open_on_scan, folder):
    panel = open_on_scan
    panel.type("promptEdit", "liver", enter=True)
    wait_for(panel)
    slices = views(panel)
    select(panel, "Proposal 3")
    panel.fold("proposalsSection")
    panel.fold("steerSection")
    panel.click("insidePointsButton")
    (points,) = slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")
    points.AddControlPoint(60, 10, 0)
    panel.widget.steer.refresh()
    panel.choose("regionBox", "Only in some slices")
    panel.turn("regionFirstBox", 12)
    panel.turn("regionLastBox", 30)
    panel.click("varyButton")
    wait_for(panel)
    panel.fold("proposalsSection")
    select(panel, "Proposal 3.2")
    panel.it("regionFirstBox").lineEdit().deselect()
    panel.it("regionLastBox").lineEdit().deselect()
    panel.fit()
    drawn = {name: view.picture() for name, view in slices.items()}
    assert all(colourful(p) > 0.01 for p in drawn.values())
    panel.screenshot(folder / "steer.png")
    assert without_scroll_bar(panel)


@pytest.mark.timeout(180)
def test_picture_of_teaching(open_on_scan, scan, folder, tmp_path, monkeypatch):
    from slicer_host import pythonqt

    panel = open_on_scan
    picture_of_before_and_after(scan, tmp_path / "before_after.png")
    monkeypatch.setenv("FAKE_PICTURE", str(tmp_path / "before_after.png"))
    folder_of_cases = tmp_path / "Abdominal studies of the department" / "My cases"
    folder_of_cases.mkdir(parents=True)
    monkeypatch.setattr(pythonqt._FileDialog, "answer", str(folder_of_cases))
    panel.type("promptEdit", "liver and spleen", enter=True)
    wait_for(panel)
    panel.fold("proposalsSection")
    panel.fold("teachSection")
    panel.type("byEdit", "Dr. Gray")
    for row in (panel.rows()[0], panel.rows()[6]):
        panel.it("proposalsTree").setCurrentItem(row)
        panel.click("addCaseButton")
        wait_for(panel)
    panel.click("adaptButton")
    wait_for(panel)
    until(lambda: panel.it("learntTree").topLevelItemCount() == 3)
    panel.fit()
    panel.screenshot(folder / "teach.png")
    assert without_scroll_bar(panel)
    assert panel.it("pictureLabel").pixmap().width() > 200


def test_nothing_on_the_panel_is_cut_off(open_on_scan):
    """Every button and label has the room its text needs, in a narrow panel too."""
    from PySide6.QtWidgets import QLabel, QPushButton, QToolButton

    panel = open_on_scan
    panel.type("promptEdit", "liver and gallbladder", enter=True)
    wait_for(panel)
    for section in ("steerSection", "teachSection", "learntSection", "setupSection", "advancedSection"):
        panel.fold(section)
    panel.choose("regionBox", "Only in some slices")
    panel.choose("checkedBox", "Only some slices")
    for width in (300, 360, 480, 700):
        panel.window.resize(width, 2600)
        panel.reveal(panel.it("promptEdit"))
        for kind in (QPushButton, QToolButton, QLabel):
            for widget in panel.window.findChildren(kind):
                if widget.isVisible() and widget.objectName() and widget.text():
                    needed = widget.minimumSizeHint()
                    assert widget.width() >= min(needed.width(), 340) - 1, (width, widget.objectName())
                    assert widget.height() >= needed.height() - 1, (width, widget.objectName())
        area = panel.window.centralWidget()
        assert area.horizontalScrollBar().maximum() == 0, f"the panel does not fit into {width} pixels"
