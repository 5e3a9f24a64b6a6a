"""The worker as a process: who is there, what it prints, and how it ends."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from progidiff.model_list import EMBEDDED_FOLDER
from progidiff.worker.client import WorkerGone
from progidiff.worker.jobs import Jobs
from worker_samples import Worker

# -- who is there -------------------------------------------------------------------------------------


def test_hello_says_who_is_there(worker: Worker) -> None:
    hello = worker.call("hello")
    assert hello["protocol"] == 1
    assert hello["pid"] == worker.process.pid
    assert hello["torch"]
    assert hello["device"] in ("cpu", "cuda")
    assert Path(hello["directory"]) == worker.directory


def test_hello_lists_the_models_and_what_they_draw(
    start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    for name, index in (("of-findings", '{"findings": "liver_tumor pancreas_tumor"}'), ("broken", "{")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model_index.json").write_text(index)
    models = start_worker(PROGIDIFF_MODELS=str(tmp_path)).call("hello")["models"]
    drawn = {model["id"]: model["findings"] for model in models}
    assert drawn["of-findings"] == ["liver_tumor", "pancreas_tumor"]
    assert drawn["broken"] == []
    (embedded,) = (model for model in models if model["embedded"])
    assert embedded["id"] == EMBEDDED_FOLDER
    assert embedded["description"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_only_the_user_can_enter_the_directory(worker: Worker) -> None:
    assert stat.S_IMODE(worker.directory.stat().st_mode) == 0o700


def test_hello_says_that_torch_is_missing(start_worker: Callable[..., Worker], tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('a library of it cannot be loaded')")
    worker = start_worker(PATH_FIRST=str(tmp_path))
    hello = worker.call("hello")
    assert hello["torch"] == ""
    assert "a library of it" in hello["torch_problem"]
    lines = {name: (value, ok) for name, value, ok in worker.call("doctor")["lines"]}
    assert lines["torch"][1] is False
    assert "Python" in lines


def test_end_of_input_is_noticed_while_torch_is_imported(
    start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)")
    worker = start_worker(PATH_FIRST=str(tmp_path))
    answer = worker.request("hello")
    assert worker.call("ping") == {}
    begin = time.monotonic()
    assert worker.close() == 0
    assert time.monotonic() - begin < 4
    with pytest.raises(WorkerGone):
        answer.result(1)


# -- what libraries print -----------------------------------------------------------------------------


def test_what_libraries_print_goes_to_the_log(start_worker: Callable[..., Worker]) -> None:
    worker = start_worker("--model", "fake:noisy").ready("fake:noisy")
    assert worker.segment("noisy").result(20)["sets"]
    assert worker.call("ping") == {}
    worker.close()
    assert "a library prints" in worker.log
    assert "C code prints" in worker.log
    assert "a child reads ''" in worker.log  # and takes no request away
    assert "hub offline: 1" in worker.log


# -- the end ------------------------------------------------------------------------------------------


def test_a_killed_worker_is_reported_and_its_directory_removed_by_the_next(
    start_worker: Callable[..., Worker],
) -> None:
    worker = start_worker().ready("fake:slow")
    running = worker.segment("killed", proposals=50)
    worker.wait_for("proposal", "killed")
    directory = worker.directory
    worker.process.kill()
    with pytest.raises(WorkerGone, match="code"):
        running.result(10)
    with pytest.raises(WorkerGone):
        worker.call("ping")
    assert len(worker.of("proposal", "killed")) >= 1
    assert directory.exists()
    start_worker().call("ping")
    assert not directory.exists()


@pytest.mark.parametrize("how", ["closed stdin", "shutdown", "SIGTERM", "SIGINT"])
@pytest.mark.parametrize("busy", [True, False])
def test_it_leaves_quickly_and_cleans_up(start_worker: Callable[..., Worker], how: str, busy: bool) -> None:
    worker = start_worker().ready("fake:slow")
    if busy:
        worker.segment("busy", proposals=50)
        worker.wait_for("proposal", "busy")
    directory = worker.directory
    begin = time.monotonic()
    if how == "shutdown":
        assert worker.call("shutdown") == {}
    elif how.startswith("SIG"):
        worker.process.send_signal(getattr(signal, how))
    else:
        assert worker.process.stdin is not None
        worker.process.stdin.close()
    assert worker.process.wait(10) == 0
    assert time.monotonic() - begin < 4
    assert not directory.exists()


def test_a_signal_may_cancel_all_while_a_job_is_being_cancelled() -> None:
    jobs = Jobs()
    jobs.add("one")

    def interrupted() -> None:
        with jobs._lock:
            jobs.cancel_all()

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert jobs.is_cancelled("one")


def test_it_leaves_when_nobody_reads_its_answers() -> None:
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "progidiff.worker"], stdin=subprocess.PIPE, stdout=write_end
    )
    os.close(read_end)
    os.close(write_end)
    assert process.stdin is not None
    process.stdin.write(b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n')
    process.stdin.flush()
    assert process.wait(10) == 0
    process.stdin.close()
