"""Asked again with the same seed, the same proposals come: they are not listed twice, and nothing is lost."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from panel_bench import scripted_launch, until

pytest.importorskip("slicer", reason="needs slicer-core")
pytest.importorskip("PySide6", reason="needs PySide6-Essentials")

import slicer
from test_panel_happy_path import identity, mask_of, proposals_node, propose, row_named
from test_scene_and_scripts import save_with_data

MADE = "5 proposals in 2 s on the processor."
AGAIN = f"{MADE} Already in the list; change the seed in Advanced for others."


def listed(panel) -> list[list[str]]:
    """Ids and texts of all rows."""
    return [[identity(row), *(row.text(column) for column in range(4))] for row in panel.rows()]


def names(panel) -> list[str]:
    return [row.text(0) for row in panel.rows()]


def paint(node, segment_id: str, volume) -> np.ndarray:
    """One voxel more, as the Segment Editor would add it; (K, J, I) bool of all of them."""
    mask = mask_of(node, segment_id, volume)
    mask[0, 0, 0] = True
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, segment_id, volume)
    return mask


def agreement(volume) -> np.ndarray:
    from ProGiDiffSlicerLib import agreement

    return slicer.util.arrayFromVolume(agreement.find_map(volume, "liver")).copy()


def test_the_same_again_is_not_listed_twice_and_the_panel_says_so(panel, volume):
    propose(panel)
    assert panel.status() == MADE
    before, titles, agreed = listed(panel), panel.titles(), agreement(volume)
    propose(panel)
    assert panel.status() == AGAIN
    assert listed(panel) == before and panel.titles() == titles
    assert proposals_node().GetSegmentation().GetNumberOfSegments() == 6
    np.testing.assert_array_equal(agreement(volume), agreed)


def test_another_seed_gives_others(panel):
    propose(panel)
    panel.fold("advancedSection")
    panel.turn("seedBox", 5)
    propose(panel)
    assert panel.status() == MADE
    assert len(panel.rows()) == 12 and panel.titles() == ["Liver: 10 proposals"]


def test_more_of_the_same_adds_what_is_new(panel):
    propose(panel)
    panel.turn("proposalsBox", 8)
    propose(panel)
    assert panel.status() == "8 proposals in 2 s on the processor. Already in the list: 5."
    wanted = ["Consensus", "Consensus 2", *(f"Proposal {n}" for n in range(1, 9))]
    assert sorted(names(panel)) == wanted and panel.titles() == ["Liver: 8 proposals"]


def test_an_organ_that_is_asked_for_in_other_words(panel):
    propose(panel)
    before = listed(panel)
    propose(panel, "liver and spleen")
    assert panel.status() == "10 proposals in 2 s on the processor. Already in the list: 5."
    assert listed(panel)[:6] == before and len(panel.rows()) == 12


def test_a_painted_proposal_stays_and_the_original_comes_back(panel, volume):
    propose(panel)
    painted = identity(row_named(panel, "Proposal 2"))
    mask = paint(proposals_node(), painted, volume)
    propose(panel)
    assert panel.status() == f"{MADE} Already in the list: 4."
    np.testing.assert_array_equal(mask_of(proposals_node(), painted, volume), mask)
    back = mask_of(proposals_node(), identity(row_named(panel, "Proposal 6")), volume)
    assert mask.sum() == back.sum() + 1


def test_what_was_edited_or_merged_stays(panel, volume):
    propose(panel)
    panel.click_row(row_named(panel, "Proposal 1"))
    panel.click("editButton")
    edited = identity(panel.it("proposalsTree").currentItem())
    for number in (2, 3):
        panel.tick_row(row_named(panel, f"Proposal {number}"))
    panel.click("mergeButton")
    before = listed(panel)
    mask = mask_of(proposals_node(), edited, volume)
    propose(panel)
    assert panel.status() == AGAIN and listed(panel) == before
    np.testing.assert_array_equal(mask_of(proposals_node(), edited, volume), mask)


def test_a_removed_proposal_comes_back(panel):
    propose(panel)
    proposals_node().GetSegmentation().RemoveSegment(identity(row_named(panel, "Proposal 3")))
    until(lambda: len(panel.rows()) == 5)
    propose(panel)
    assert panel.status() == f"{MADE} Already in the list: 4." and "Proposal 3" in names(panel)


def test_a_reopened_scene_knows_its_proposals(panel, scene, tmp_path):
    propose(panel)
    before = listed(panel)
    save_with_data(scene, tmp_path)
    scene.Clear(0)
    scene.Import()
    propose(panel)
    assert panel.status() == AGAIN and listed(panel) == before


def test_varying_again_in_the_same_way(panel):
    propose(panel)
    panel.fold("steerSection")
    for strength in (50, 50, 20):
        panel.click_row(row_named(panel, "Proposal 2"))
        panel.slide("strengthSlider", strength)
        panel.click("varyButton")
        until(lambda: not panel.widget.logic.engine.is_busy())
        if strength == 50:
            assert len(panel.rows()) == 12
    assert len(panel.rows()) == 18 and panel.it("steerStatus").text() == MADE


def test_the_same_again_cancelled_changes_nothing(panel, behaviour):
    propose(panel)
    panel.widget.logic.engine.stop()
    before = listed(panel)
    behaviour("slow")
    panel.type("promptEdit", "segment the liver", enter=True)
    until(lambda: "2 of 5" in panel.it("progressBar").text())
    panel.click("proposeButton")
    until(lambda: not panel.widget.logic.engine.is_busy())
    assert panel.status() == "Cancelled." and listed(panel) == before


def test_a_script_gets_the_same_proposals_again(module, volume):
    logic = module.ProGiDiffSlicerLogic(sys.modules["ProGiDiffSlicerLib.engine"].Engine(scripted_launch))
    first = logic.segment(volume, "segment the liver", proposals=3)
    again = logic.segment(volume, "segment the liver", proposals=3)
    assert [p.id for p in again] == [p.id for p in first] and again[0].kind == "consensus"
    other = logic.segment(volume, "segment the liver", proposals=3, seed=3)
    assert not {p.id for p in other} & {p.id for p in first} and other[0].kind == "consensus"
    logic.engine.stop()


@pytest.mark.parametrize(
    "name", ["model_hash", "adapter", "seed", "steps", "method", "parent", "strength", "constraints"]
)
def test_what_tells_proposals_apart_that_look_the_same(module, volume, name):
    from ProGiDiffSlicerLib import self_test

    one, other = self_test.make_proposal(1), self_test.make_proposal(1)
    assert one.is_drawn_like(other)
    other.provenance[name] = "another"
    assert not one.is_drawn_like(other)
