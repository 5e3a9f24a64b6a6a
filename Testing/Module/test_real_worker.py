"""The module and the engine's own worker process, with the engine tests' quick segmenter in it."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
from panel_bench import ROOT, open_panel, until

pytest.importorskip("slicer", reason="needs slicer-core")
pytest.importorskip("PySide6", reason="needs PySide6-Essentials")

import slicer
from test_panel_happy_path import finished_nodes
from test_steer import paint, steered, world

_LEARNING = 240  # seconds; importing torch three times is most of it


@pytest.fixture
def launch(engine_python, module):
    from ProGiDiffSlicerLib.worker import Launch

    paths = os.pathsep.join([str(ROOT / "Logic"), str(ROOT / "Testing" / "Engine")])
    environment = {**os.environ, "PYTHONPATH": paths, "PROGIDIFF_SEGMENTER": "fake_segmenter:load"}
    return lambda: Launch(engine_python, ("-m", "progidiff.worker"), environment)


@pytest.fixture
def engine(engine_python, module, host):
    """Opens the panel on the engine with a segmenter of the tests' own; more settings by name."""
    from ProGiDiffSlicerLib.worker import Launch
    from slicer_host.hands import Hands

    paths = os.pathsep.join(str(ROOT / place) for place in ("Logic", "Testing/Engine", "Testing/Module"))
    more: dict[str, str] = {}

    def launch():
        environment = {**os.environ, "PYTHONPATH": paths, **more}
        return Launch(engine_python, ("-m", "progidiff.worker"), environment)

    def open_on(segmenter: str):
        more["PROGIDIFF_SEGMENTER"] = segmenter
        return Hands(open_panel(host, module, launch)), more

    yield open_on
    host.close_panel(host.panel)


@pytest.fixture
def real_panel(host, module, volume, launch):
    from slicer_host.hands import Hands

    widget = open_panel(host, module, launch)
    yield Hands(widget)
    host.close_panel(widget)


def wait_for(panel, seconds: float = 90) -> None:
    until(lambda: not panel.widget.logic.engine.is_busy(), seconds)


@pytest.mark.timeout(180)
def test_from_prompt_to_segment_with_the_real_worker(real_panel):
    panel = real_panel
    from ProGiDiffSlicerLib import settings

    panel.type("promptEdit", "segment the liver and the left kidney", enter=True)
    wait_for(panel)
    assert "10 proposals" in panel.status(), panel.status()
    assert [t.split(":")[0] for t in panel.titles()] == ["Liver", "Left kidney"]
    offered = panel.widget.logic.models.known[0]
    assert offered.choice == "embedded" and offered.description.startswith("Draws proposals of")
    panel.click("acceptButton")
    (node,) = finished_nodes()
    assert node.GetSegmentation().GetNthSegment(0).GetName() == "liver"

    panel.type("promptEdit", "hello world", enter=True)
    wait_for(panel)
    assert panel.it("proposeButton").isEnabled() and not panel.status()[0].isdigit(), panel.status()

    panel.type("promptEdit", "hepatic lesions", enter=True)
    wait_for(panel)
    assert "draws organs, not tumors" in panel.status(), panel.status()

    settings.set_model("fake:patient")
    panel.type("promptEdit", "spleen", enter=True)
    until(lambda: "Spleen" in panel.titles(), seconds=60)
    panel.click("proposeButton")
    wait_for(panel)
    assert panel.status() == "Cancelled. 1 proposal kept."

    settings.set_model("fake:oom")
    panel.type("promptEdit", "spleen", enter=True)
    wait_for(panel)
    assert panel.status().startswith("5 proposals") and "on the processor." in panel.status(), panel.status()
    assert "CPU" in panel.status(), "the fall-back was not said aloud"

    found: list[dict] = []
    panel.widget.logic.engine.ask("doctor", found.append, lambda error: found.append({"error": error}))
    until(lambda: found, seconds=60)
    assert any(name == "Python" and ok for name, _value, ok in found[0]["lines"])


@pytest.mark.timeout(180)
def test_steering_with_the_real_worker(engine, volume):
    panel, _more = engine("steering_fake:load")
    panel.type("promptEdit", "liver", enter=True)
    wait_for(panel)
    panel.fold("steerSection")
    panel.click("varyButton")
    wait_for(panel)
    assert panel.it("steerStatus").text().startswith("5 proposals"), panel.it("steerStatus").text()
    assert any("Varied from: liver" in r.toolTip(0) for r in panel.rows())
    paint(volume, "scribble", (slice(2, 4), slice(3, 5), slice(5, 8)))
    panel.click("outsidePointsButton")
    (points,) = slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")
    points.AddControlPoint(world(volume, (18, 15, 12)))
    panel.pick("insideButton", "scribble")
    before = len(steered(panel, volume))
    panel.click("constrainButton")
    wait_for(panel)
    masks = steered(panel, volume)[before:]
    assert len(masks) == 5, panel.it("steerStatus").text()
    assert all(m[2:4, 3:5, 5:8].all() and not m[12, 15, 18] for m in masks)


@pytest.fixture
def mr(scene):
    """A noisy image with a bright ball, coarse enough to learn from in seconds; and the ball."""
    places = np.indices((12, 24, 24)) - np.array([5.5, 11.5, 11.5]).reshape(3, 1, 1, 1)
    ball = (places**2 / np.array([4, 8, 8]).reshape(3, 1, 1, 1) ** 2).sum(axis=0) < 1
    noise = np.random.default_rng(0).normal(60, 10, ball.shape)
    node = slicer.util.addVolumeFromArray((100 * ball + noise).astype(np.float32), name="MR of the ball")
    node.SetSpacing(10.0, 10.0, 8.0)
    node.CreateDefaultDisplayNodes()
    return node, ball


def cases_on_disk(library) -> dict[str, list[str]]:
    """By folder, the organs whose image and mask are complete."""
    found = {}
    for path in library.glob("case-*/case.json"):
        organs = [
            f"{c['organ']}-{c['version']}.nrrd"
            for c in json.loads(path.read_text(encoding="utf-8"))["organs"]
        ]
        assert (path.parent / "image.nrrd").stat().st_size > 1000
        found[path.parent.name] = [name for name in organs if (path.parent / name).is_file()]
    return found


@pytest.mark.timeout(900)
def test_killed_and_out_of_room_while_learning_the_real_engine_loses_no_case(
    engine, mr, tmp_path, monkeypatch
):
    """A case kept, a worker killed while it learns, a disk that is full, a closed scene; then it learns."""
    from slicer_host import pythonqt

    volume, ball = mr
    panel, more = engine("tiny_model:load")
    library = tmp_path / "cases"
    monkeypatch.setattr(pythonqt._FileDialog, "answer", str(library))
    paint(volume, "liver", ball.nonzero())
    panel.fold("teachSection")
    panel.pick("caseSourceButton", "liver")
    panel.click("addCaseButton")
    wait_for(panel, _LEARNING)
    assert panel.it("caseStatus").text() == "Added: liver of MR of the ball."
    kept = cases_on_disk(library)
    assert list(kept.values()) == [["liver-1.nrrd"]]

    panel.click("adaptButton")
    until(lambda: "Learning" in panel.it("adaptBar").text(), seconds=_LEARNING)
    os.kill(panel.widget.logic.engine.greeting["pid"], signal.SIGKILL)
    wait_for(panel, _LEARNING)
    assert "stopped unexpectedly" in panel.it("adaptStatus").text() and cases_on_disk(library) == kept

    more["TINY_DISK"] = "600"
    panel.click("adaptButton")
    until(lambda: not panel.widget.logic.engine.is_busy(), seconds=_LEARNING)
    status = panel.it("adaptStatus").text()
    assert "File too large" in status and status.endswith("All cases are kept."), status
    assert cases_on_disk(library) == kept

    del more["TINY_DISK"]
    assert panel.it("adaptButton").text() == "Continue to adapt"
    panel.click("adaptButton")
    until(lambda: "Learning" in panel.it("adaptBar").text(), seconds=_LEARNING)
    slicer.mrmlScene.Clear(0)
    until(lambda: not panel.widget.logic.engine.is_busy(), seconds=_LEARNING)
    until(lambda: panel.it("learntTree").topLevelItemCount() > 1, _LEARNING)
    assert cases_on_disk(library) == kept and panel.it("adaptButton").text() == "Adapt to my cases"
    (adapter,) = panel.widget.logic.adapters.known
    assert panel.it("verdictLabel").text().startswith(adapter["verdict"])
    in_use = panel.widget.logic.adapters.active == adapter["path"]
    assert in_use == adapter["improved"], "only what got better is used by itself"


@pytest.mark.timeout(120)
def test_synthetic_sample_data_are_made_on_this_computer(engine_python, scene, module):
    from ProGiDiffSlicerLib import sample_data, settings

    settings.set_interpreter(engine_python)
    node = sample_data.make("MR")
    assert node.GetName() == "Synthetic MR"
    assert slicer.util.arrayFromVolume(node).std() > 10
    assert node.GetStorageNode() is None, "it must not remember a temporary file"
