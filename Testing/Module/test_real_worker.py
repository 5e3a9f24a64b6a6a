"""The module and the engine's own worker process, with the engine tests' quick segmenter in it."""

from __future__ import annotations

import os

import pytest
from panel_bench import ROOT, open_panel, until

pytest.importorskip("slicer", reason="needs slicer-core")
pytest.importorskip("PySide6", reason="needs PySide6-Essentials")

import slicer
from test_panel_happy_path import finished_nodes


@pytest.fixture
def launch(engine_python, module):
    from ProGiDiffSlicerLib.worker import Launch

    paths = os.pathsep.join([str(ROOT / "Logic"), str(ROOT / "Testing" / "Engine")])
    environment = {**os.environ, "PYTHONPATH": paths, "PROGIDIFF_SEGMENTER": "fake_segmenter:load"}
    return lambda: Launch(engine_python, ("-m", "progidiff.worker"), environment)


@pytest.fixture
def real_panel(host, module, volume, launch):
    from slicer_host.hands import Hands

    widget = open_panel(host, module, launch)
    yield Hands(widget)
    host.close_panel(widget)


def wait_for(panel) -> None:
    until(lambda: not panel.widget.logic.engine.is_busy(), seconds=90)


@pytest.mark.timeout(180)
def test_from_prompt_to_segment_with_the_real_worker(real_panel):
    panel = real_panel
    from ProGiDiffSlicerLib import settings

    panel.type("promptEdit", "segment the liver and the left kidney", enter=True)
    wait_for(panel)
    assert "10 proposals" in panel.status(), panel.status()
    assert [t.split(":")[0] for t in panel.titles()] == ["Liver", "Left kidney"]
    panel.click("acceptButton")
    (node,) = finished_nodes()
    assert node.GetSegmentation().GetNthSegment(0).GetName() == "liver"

    panel.type("promptEdit", "hello world", enter=True)
    wait_for(panel)
    assert panel.it("proposeButton").isEnabled() and not panel.status()[0].isdigit(), panel.status()

    settings.set_model("fake:slow")
    panel.type("promptEdit", "spleen", enter=True)
    until(lambda: "Spleen" in panel.titles(), seconds=60)
    panel.click("proposeButton")
    wait_for(panel)
    assert panel.status().startswith("Cancelled.")

    settings.set_model("fake:oom")
    panel.type("promptEdit", "spleen", enter=True)
    wait_for(panel)
    assert panel.status().startswith("5 proposals") and "on the processor." in panel.status(), panel.status()
    assert "CPU" in panel.status(), "the fall-back was not said aloud"

    found: list[dict] = []
    panel.widget.logic.engine.ask("doctor", found.append, lambda error: found.append({"error": error}))
    until(lambda: found, seconds=60)
    assert any(name == "Python" and ok for name, _value, ok in found[0]["lines"])


@pytest.mark.timeout(120)
def test_synthetic_sample_data_are_made_on_this_computer(engine_python, scene, module):
    from ProGiDiffSlicerLib import sample_data, settings

    settings.set_interpreter(engine_python)
    node = sample_data.make("MR")
    assert node.GetName() == "Synthetic MR"
    assert slicer.util.arrayFromVolume(node).std() > 10
    assert node.GetStorageNode() is None, "it must not remember a temporary file"
