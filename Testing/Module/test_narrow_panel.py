"""The panel at 300 pixels: nothing makes it scroll sideways, and names can be read."""

from __future__ import annotations

import pytest
from panel_bench import until

pytest.importorskip("slicer", reason="needs slicer-core")
pytest.importorskip("PySide6", reason="needs PySide6-Essentials")

import slicer
from PySide6.QtCore import QRect
from PySide6.QtGui import QFontMetrics
from PySide6.QtWidgets import QApplication, QStyle, QStyleOptionViewItem
from test_panel_happy_path import propose, row_named
from test_teach import add, library  # noqa: F401, library is a fixture

WIDTH, WIDE = 300, 480
LONG = "CT_Thorax_Abdomen_portal_venous_1.25mm_B30f of a patient with a name that does not end"
PATH = r"C:\Users\Someone\AppData\Local\slicer.org\A_folder_with_a_long_name\python.exe"
SECTIONS = ("steerSection", "editSection", "teachSection", "learntSection", "setupSection", "advancedSection")


@pytest.fixture
def volume(scene, module):
    from ProGiDiffSlicerLib import self_test

    node = self_test.make_volume()
    node.SetName(LONG)
    return node


@pytest.fixture
def crowded(panel, volume, library, tmp_path, monkeypatch):  # noqa: F811
    """All sections unfolded, and everything that has a name has a long one."""
    from slicer_host import pythonqt

    for section in SECTIONS:
        panel.fold(section)
    propose(panel, "liver and gallbladder")
    panel.click_row(row_named(panel, "Proposal 2"))
    points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", LONG)
    points.AddControlPoint(1, 2, 3)
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", LONG)
    panel.pick("insideButton", LONG)
    panel.click("varyButton")
    wait(panel)
    panel.click("acceptButton")
    teach(panel)
    monkeypatch.setattr(pythonqt._FileDialog, "answer", str(tmp_path / LONG))
    panel.click("modelFolderButton")
    return panel


def teach(panel) -> None:
    """A case by somebody with a long name, and what was learnt from it."""
    panel.pick("caseSourceButton", "liver (Segmentation")
    panel.type("byEdit", LONG)
    panel.choose("checkedBox", "Only some slices")
    add(panel)
    panel.click("adaptButton")
    wait(panel)
    until(lambda: panel.widget.logic.adapters.known)
    panel.type("learntNameEdit", LONG, enter=True)
    until(lambda: LONG in panel.it("adapterBox").currentText())


def wait(panel) -> None:
    until(lambda: not panel.widget.logic.engine.is_busy())


def narrow(panel) -> None:
    """With the vertical scroll bar that Slicer's panel nearly always has."""
    panel.window.resize(WIDTH, 900)
    QApplication.processEvents()
    assert panel.window.centralWidget().verticalScrollBar().isVisible()


def room_for_a_name(tree) -> int:
    """Pixels beside the tick box and the picture of a row."""
    option, features = QStyleOptionViewItem(), QStyleOptionViewItem.ViewItemFeature
    option.initFrom(tree)
    option.rect = QRect(0, 0, tree.columnWidth(0) - tree.indentation(), tree.iconSize().height())
    option.decorationSize = tree.iconSize()
    option.features = features.HasCheckIndicator | features.HasDecoration | features.HasDisplay
    text = QStyle.SubElement.SE_ItemViewItemText
    margin = tree.style().pixelMetric(QStyle.PixelMetric.PM_FocusFrameHMargin, option, tree) + 1
    return tree.style().subElementRect(text, option, tree).width() - 2 * margin


def problem_of(panel, path: str) -> None:
    from ProGiDiffSlicerLib.errors import SegmentationError

    error = SegmentationError(f"The Python interpreter {path} cannot use PyTorch.", "Open Setup.")
    panel.widget.propose.say(error)
    panel.widget.setup_section.show_problem(error)


@pytest.mark.parametrize("region", ["Anywhere", "Only in a box", "Only in some slices"])
def test_nothing_makes_the_panel_wider_than_300_pixels(crowded, region):
    crowded.choose("regionBox", region)
    if region == "Only in a box":
        crowded.pick("roiButton", LONG)
    problem_of(crowded, PATH)
    narrow(crowded)
    too_wide = {
        name: hint
        for name in ("askSection", "proposalsSection", *SECTIONS)
        if (hint := crowded.it(name).minimumSizeHint().width()) > WIDTH - 24  # margins and scroll bar
    }
    assert too_wide == {}
    assert crowded.window.centralWidget().horizontalScrollBar().maximum() == 0


def test_all_of_a_long_name_stands_in_a_tool_tip(crowded):
    for name in ("adapterBox", "insideButton", "modelBox", "libraryEdit"):
        shown = crowded.it(name)
        text = shown.currentText() if hasattr(shown, "currentText") else shown.text()
        assert text.strip().removesuffix(" (missing)") in shown.toolTip(), name


def test_names_of_proposals_can_be_read(crowded):
    narrow(crowded)
    names = [row.text(0) for row in crowded.rows()]
    assert {"Proposal 2.1", "Consensus (liver 2 varied)"} < {*names}
    words = [word for name in names for word in name.split()]
    tree = crowded.it("proposalsTree")
    assert max(map(QFontMetrics(tree.font()).horizontalAdvance, words)) <= room_for_a_name(tree)


def test_a_column_gives_way_in_a_narrow_panel_and_comes_back(crowded):
    row = row_named(crowded, "Proposal 1")
    for width in (WIDTH, WIDE, WIDTH):
        crowded.window.resize(width, 900)
        for name, column in (("proposalsTree", 3), ("casesTree", 2)):
            tree = crowded.it(name)
            until(lambda t=tree, c=column, w=width: t.isColumnHidden(c) == (w == WIDTH))
    assert f"Overlap with the consensus: {row.text(3)}" in row.toolTip(0)


def test_lines_end_within_long_names_but_not_within_words(crowded):
    problem_of(crowded, PATH)
    shown = crowded.it("statusLabel").text()
    assert "\u200b" in shown
    assert crowded.status() == f"The Python interpreter {PATH} cannot use PyTorch. Open Setup."
    assert all(len(piece) <= 24 for word in shown.split() for piece in word.split("\u200b"))
    assert all("\u200b" not in word for word in shown.split() if len(word) < 25)
