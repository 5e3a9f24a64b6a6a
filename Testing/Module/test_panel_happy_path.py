"""Type, see proposals, step, accept: by clicks and keys on real MRML nodes."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import until

pytest.importorskip("slicer", reason="needs slicer-core")
pytest.importorskip("PySide6", reason="needs PySide6-Essentials")

import slicer
from PySide6.QtCore import Qt


def propose(panel, prompt: str = "segment the liver") -> None:
    panel.type("promptEdit", prompt, enter=True)
    until(lambda: not panel.widget.logic.engine.is_busy())


def proposals_node():
    return next(n for n in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if n.GetAttribute("ProGiDiff.role"))


def test_enter_brings_proposals_into_list_and_scene(panel):
    propose(panel)
    assert panel.status() == "5 proposals in 2 s on the processor."
    assert [r.text(0) for r in panel.rows()] == [
        "Consensus", "Proposal 1", "Proposal 2", "Proposal 3", "Proposal 4", "Proposal 5",
    ]  # fmt: skip
    assert proposals_node().GetSegmentation().GetNumberOfSegments() == 6
    assert panel.titles() == ["Liver: 5 proposals, 5 really different"]
