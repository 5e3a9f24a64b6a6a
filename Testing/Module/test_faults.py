"""What goes wrong in a hospital, with real processes: the panel says so, stays usable, loses nothing."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from panel_bench import HERE, open_panel, scripted_launch, until

pytest.importorskip("slicer", reason="needs slicer-core")
pytest.importorskip("PySide6", reason="needs PySide6-Essentials")

import slicer
from test_panel_happy_path import finished_nodes, proposals_node, propose


def _plain(rich_text: str) -> str:
    return rich_text.replace("&#8203;", "")


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return (
        Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split()[2] != "Z"
        if Path("/proc").is_dir()
        else True
    )


def works_again(panel, behaviour) -> None:
    """The next prompt restarts the engine."""
    behaviour("")
    before = len(panel.rows())
    propose(panel, "segment the spleen")
    assert "5 proposals" in panel.status()
    assert len(panel.rows()) == before + 6


def test_worker_that_dies_before_it_is_ready(panel, behaviour):
    behaviour("die-before-hello")
    propose(panel)
    assert panel.status().startswith("The segmentation engine stopped unexpectedly (code 3).")
    works_again(panel, behaviour)


def test_worker_that_dies_between_proposals(panel, behaviour):
    behaviour("die-after-first")
    propose(panel)
    assert "stopped unexpectedly" in panel.status() and panel.status().endswith("1 proposal kept.")
    assert [r.text(0) for r in panel.rows()] == ["Proposal 1"]
    panel.click("acceptButton")
    assert finished_nodes()[0].GetSegmentation().GetNumberOfSegments() == 1
    works_again(panel, behaviour)


def test_worker_killed_by_somebody_else(panel, behaviour):
    behaviour("slow")
    panel.type("promptEdit", "liver", enter=True)
    until(panel.rows)
    os.kill(panel.widget.logic.engine.greeting["pid"], signal.SIGKILL)
    until(lambda: not panel.widget.logic.engine.is_busy())
    assert "stopped unexpectedly" in panel.status() and panel.rows()
    works_again(panel, behaviour)


def test_worker_that_dies_while_writing_an_answer(panel, behaviour):
    behaviour("die-while-writing")
    propose(panel)
    assert "stopped unexpectedly" in panel.status() and len(panel.rows()) == 1
    works_again(panel, behaviour)


def test_an_answer_that_is_no_json(panel, behaviour):
    behaviour("broken-json")
    panel.type("promptEdit", "liver", enter=True)
    until(panel.rows)
    pid = panel.widget.logic.engine.greeting["pid"]
    until(lambda: not panel.widget.logic.engine.is_busy())
    assert panel.status().startswith("The segmentation engine sent an answer that cannot be read.")
    assert len(panel.rows()) == 2
    until(lambda: not lives(pid))
    works_again(panel, behaviour)


def test_interpreter_that_does_not_exist(panel, host, module, behaviour):
    from ProGiDiffSlicerLib.worker import Launch

    panel.widget.logic.engine._launch = lambda: Launch("/no/such/python", ("-m", "progidiff.worker"))
    propose(panel)
    assert panel.status() == (
        "The Python interpreter /no/such/python could not be started. "
        "Choose another one in Advanced, or clear the field to use Slicer's own."
    )
    assert not panel.it("setupSection")._collapsed and "/no/such/python" in _plain(
        panel.it("setupLabel").text()
    )
    panel.widget.logic.engine._launch = scripted_launch
    works_again(panel, behaviour)


def test_interpreter_without_torch(panel, behaviour):
    behaviour("no-torch")
    propose(panel)
    assert "cannot use PyTorch" in panel.status() and "Open Setup and press Install" in panel.status()
    assert not panel.it("setupSection")._collapsed


def test_interpreter_without_the_engine(panel):
    from ProGiDiffSlicerLib.worker import Launch

    panel.widget.logic.engine._launch = lambda: Launch(
        sys.executable, ("-I", "-m", "progidiff_that_is_not_there"), dict(os.environ)
    )
    propose(panel)
    assert "lacks the package progidiff_that_is_not_there" in panel.status()


def test_volume_deleted_while_proposals_are_made(panel, volume, behaviour):
    behaviour("slow")
    panel.type("promptEdit", "liver", enter=True)
    until(panel.rows)
    slicer.mrmlScene.RemoveNode(volume)
    assert not panel.widget.logic.engine.is_busy()
    assert panel.status().startswith("The volume was removed while proposals were being made.")
    until(panel.widget.logic.engine._worker.is_running)
    assert not panel.it("proposeButton").isEnabled()


def test_scene_closed_while_proposals_are_made(panel, behaviour, module):
    from ProGiDiffSlicerLib import self_test

    behaviour("slow")
    panel.type("promptEdit", "liver", enter=True)
    until(panel.rows)
    slicer.mrmlScene.Clear(0)
    assert panel.status() == "The scene was closed, so the prompt was stopped."
    assert panel.rows() == [] and panel.it("promptEdit").text() == ""
    self_test.make_volume()
    works_again(panel, behaviour)


def test_proposals_node_deleted_by_hand(panel, behaviour):
    propose(panel)
    slicer.mrmlScene.RemoveNode(proposals_node())
    assert panel.rows() == []
    works_again(panel, behaviour)


def test_no_room_for_the_image(panel, behaviour):
    behaviour("disk-full")
    propose(panel)
    assert panel.status().startswith("The image could not be handed to the segmentation engine: No such file")
    assert "Free some disk space" in panel.status()


def test_full_disk(panel, monkeypatch):
    def no_space(*_arguments, **_options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sys.modules["ProGiDiffSlicerLib.array_files"].np, "save", no_space)
    propose(panel)
    assert "handed to the segmentation engine: No space left on device" in panel.status()
    monkeypatch.undo()
    propose(panel)
    assert len(panel.rows()) == 6


def test_result_file_cut_short(panel, monkeypatch):
    engine = panel.widget.logic.engine
    take = engine.take

    def cut(name: str):
        path = Path(engine.greeting["directory"]) / name
        path.write_bytes(path.read_bytes()[:40])
        return take(name)

    monkeypatch.setattr(engine, "take", cut)
    propose(panel)
    assert panel.status().startswith("A result of the segmentation engine could not be read.")
    monkeypatch.undo()
    propose(panel)
    assert len(panel.rows()) == 6


def test_worker_that_never_says_hello(panel, behaviour, monkeypatch):
    monkeypatch.setattr(sys.modules["ProGiDiffSlicerLib.engine"], "_START_SECONDS", 0.3)
    behaviour("silent")
    propose(panel)
    assert panel.status() == "The segmentation engine did not start in time. Run the self-check in Setup."
    monkeypatch.undo()
    works_again(panel, behaviour)


def test_a_silent_worker_is_ended_also_after_a_cancel(panel, behaviour, monkeypatch):
    """The second prompt waits for the same start as the cancelled one."""
    monkeypatch.setattr(sys.modules["ProGiDiffSlicerLib.engine"], "_START_SECONDS", 0.5)
    behaviour("silent")
    panel.type("promptEdit", "liver", enter=True)
    panel.click("proposeButton")
    propose(panel)
    assert panel.status().startswith("The segmentation engine did not start in time.")


def test_self_check_of_a_silent_worker_comes_to_an_end(panel, behaviour, monkeypatch):
    monkeypatch.setattr(sys.modules["ProGiDiffSlicerLib.engine"], "_START_SECONDS", 0.3)
    behaviour("silent")
    panel.fold("setupSection")
    panel.click("checkButton")
    until(lambda: panel.it("checkButton").isEnabled())
    assert "did not start in time" in panel.it("setupLabel").text()


def test_another_interpreter_does_not_end_the_prompt_that_runs(panel, behaviour):
    behaviour("slow")
    panel.turn("proposalsBox", 20)
    panel.type("promptEdit", "liver", enter=True)
    until(panel.rows)
    assert not panel.it("installButton").isEnabled() and not panel.it("removeDownloadsButton").isEnabled()
    other = scripted_launch()
    panel.widget.logic.engine._launch = lambda: type(other)(other.program, other.arguments, {"OTHER": "1"})
    panel.fold("learntSection")  # asks the engine
    until(lambda: not panel.widget.logic.engine.is_busy())
    assert panel.status().startswith("20 proposals") and len(panel.rows()) == 21
    assert panel.it("installButton").isEnabled()


def test_a_slip_in_the_panel_does_not_swallow_the_engines_answer(panel, behaviour, monkeypatch, caplog):
    run, told = panel.widget.propose.run, []
    monkeypatch.setattr(run, "_proposal", lambda proposal_id: told.append(proposal_id) or 1 / 0)
    propose(panel)
    assert len(told) == 5 and not panel.widget.logic.engine.is_busy() and len(panel.rows()) == 6
    assert "could not be shown" in caplog.text


def test_a_warning_of_something_optional_is_not_the_cause_of_death():
    from ProGiDiffSlicerLib.worker import _death

    log = "A matching Triton is not available. No module named 'triton'\nLoading the model"
    assert _death(9, log, "python").kind == "WorkerDied"
    log += "\nModuleNotFoundError: No module named 'peft'"
    assert _death(1, log, "python").message.endswith("lacks the package peft.")


def test_worker_that_does_not_hear_cancel_is_ended(panel, behaviour, monkeypatch):
    monkeypatch.setattr(sys.modules["ProGiDiffSlicerLib.engine"], "_CANCEL_SECONDS", 0.3)
    behaviour("slow+deaf")
    panel.turn("proposalsBox", 20)
    panel.type("promptEdit", "liver", enter=True)
    until(panel.rows)
    panel.click("proposeButton")
    until(lambda: not panel.widget.logic.engine.is_busy())
    assert panel.status().startswith("Cancelled.") and panel.status().endswith("kept.")
    panel.turn("proposalsBox", 5)
    works_again(panel, behaviour)


def test_cancel_before_the_worker_is_ready(panel, behaviour):
    behaviour("slow")
    panel.type("promptEdit", "liver", enter=True)
    panel.click("proposeButton")
    assert panel.status() == "Cancelled." and panel.it("proposeButton").text() == "Propose"
    propose(panel, "spleen")
    assert len(panel.rows()) == 6


def test_cancel_is_felt_within_half_a_second(panel, behaviour):
    """The worker hears it between two steps, and need not be ended."""
    behaviour("slow")
    panel.turn("proposalsBox", 20)
    panel.type("promptEdit", "liver", enter=True)
    until(panel.rows)
    pid = panel.widget.logic.engine.greeting["pid"]
    started = time.monotonic()
    panel.click("proposeButton")
    until(lambda: not panel.widget.logic.engine.is_busy())
    assert time.monotonic() - started < 0.5
    assert panel.status().startswith("Cancelled.") and len(panel.rows()) < 20
    assert panel.widget.logic.engine.greeting["pid"] == pid and lives(pid)


def test_reload_and_quit_leave_no_process_and_no_folder(host, module, volume, behaviour):
    from slicer_host.hands import Hands

    behaviour("slow")
    panel = Hands(open_panel(host, module))
    panel.type("promptEdit", "liver", enter=True)
    until(panel.rows)
    greeting = dict(panel.widget.logic.engine.greeting)
    host.close_panel(panel.widget)
    until(lambda: not lives(greeting["pid"]))
    assert not Path(greeting["directory"]).exists()
    again = open_panel(host, module)
    slicer.app.aboutToQuit()
    assert not again.logic.engine.is_busy()
    host.close_panel(again)


def test_reload_renews_the_library_too(panel, monkeypatch):
    seen: list[tuple[str, list[str]]] = []

    def library() -> dict:
        return {name: m for name, m in sys.modules.items() if name.startswith("ProGiDiffSlicerLib")}

    monkeypatch.setattr(slicer.util, "reloadScriptedModule", lambda name: seen.append((name, [*library()])))
    before = library()
    panel.widget.onReload()
    sys.modules.update(before)
    assert before and seen == [("ProGiDiffSlicer", [])]


def test_killing_a_launcher_does_not_leave_the_interpreter_running(panel, behaviour, monkeypatch, tmp_path):
    """PythonSlicer starts the interpreter as a child; so does this shell script."""
    from ProGiDiffSlicerLib.worker import Launch

    monkeypatch.setattr(sys.modules["ProGiDiffSlicerLib.worker"], "_STOP_MILLISECONDS", 200)
    launcher = tmp_path / "PythonLauncher"
    launcher.write_text(f'#!/bin/sh\n"{sys.executable}" "{HERE}/stubborn_worker.py"\nexit $?\n')
    launcher.chmod(0o755)
    panel.widget.logic.engine._launch = lambda: Launch(str(launcher), (), dict(os.environ))
    panel.type("promptEdit", "liver", enter=True)
    until(lambda: panel.widget.logic.engine.greeting)
    pid = panel.widget.logic.engine.greeting["pid"]
    assert lives(pid)
    panel.widget.logic.engine.stop()
    until(lambda: not lives(pid))
