"""The worker as a real process: the protocol, jobs, and everything that can go wrong around it."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from progidiff.worker.client import RemoteError, WorkerClient, WorkerGone

HERE = Path(__file__).parent
AFFINE = [[-2.0, 0, 0, 10], [0, -2.0, 0, 20], [0, 0, 5.0, 30], [0, 0, 0, 1]]


class Worker(WorkerClient):
    """A worker process with the fake segmenter, which remembers what it was told."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.notes: list[tuple[str, dict[str, Any]]] = []
        self.arrived = threading.Condition()
        path = os.pathsep.join([environment.pop("PATH_FIRST", ""), str(HERE)]).strip(os.pathsep)
        env = {**os.environ, "PYTHONPATH": path, "PROGIDIFF_SEGMENTER": "fake_segmenter:load", **environment}
        super().__init__((sys.executable, "-m", "progidiff.worker", *arguments), env, self.note)

    def note(self, method: str, params: dict[str, Any]) -> None:
        with self.arrived:
            self.notes.append((method, params))
            self.arrived.notify_all()

    def of(self, method: str, job_id: str | None = None) -> list[dict[str, Any]]:
        with self.arrived:
            return [p for m, p in self.notes if m == method and (job_id is None or p.get("job_id") == job_id)]

    def wait_for(self, method: str, job_id: str | None = None, count: int = 1) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.of_unlocked(method, job_id)) >= count, timeout=20)

    def of_unlocked(self, method: str, job_id: str | None) -> list[dict[str, Any]]:
        return [p for m, p in self.notes if m == method and (job_id is None or p.get("job_id") == job_id)]

    @property
    def directory(self) -> Path:
        """Its private directory, found without the slow hello."""
        self.call("ping")
        (found,) = Path(tempfile.gettempdir()).glob(f"progidiff-worker-{self.process.pid}-*")
        return found

    def put(self, array: np.ndarray) -> str:
        """Writes an array the way the protocol wants it."""
        name = f"{uuid.uuid4().hex}.npy"
        unfinished = self.directory / f"{name}.part"
        with unfinished.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        unfinished.rename(self.directory / name)
        return name

    def take(self, name: str) -> np.ndarray:
        path = self.directory / name
        array = np.load(path, allow_pickle=False)
        path.unlink()
        return array

    def open(self, volume_id: str, shape: tuple[int, int, int] = (20, 18, 12), **params: Any) -> Any:
        array = self.put(np.zeros(shape, np.int16))
        return self.call(
            "open_volume", **{"volume_id": volume_id, "array": array, "affine": AFFINE, **params}
        )

    def ready(self, model: str = "fake:", shape: tuple[int, int, int] = (20, 18, 12)) -> Worker:
        """With a model that behaves as named and the volume "ct" open."""
        self.call("load_model", model=model)
        self.open("ct", shape)
        return self

    def segment(self, job_id: str, **params: Any) -> Any:
        order = {"job_id": job_id, "volume_id": "ct", "prompt": "the liver", "proposals": 3, **params}
        return self.request("segment", **order)


@pytest.fixture(scope="module")
def shared() -> Iterator[Worker]:
    """One worker for all tests that leave it as they found it."""
    with Worker() as worker:
        yield worker


@pytest.fixture
def start() -> Iterator[Callable[..., Worker]]:
    """Starts workers that a test may kill."""
    started: list[Worker] = []

    def start_one(*arguments: str, **environment: str) -> Worker:
        started.append(Worker(*arguments, **environment))
        return started[-1]

    yield start_one
    for worker in started:
        worker.close()


def refused(worker: Worker, method: str, **params: Any) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        worker.call(method, **params)
    return caught.value


# -- who is there ----------------------------------------------------------------------------------


def test_hello_says_who_is_there(shared: Worker) -> None:
    hello = shared.call("hello")
    assert hello["protocol"] == 1
    assert hello["pid"] == shared.process.pid
    assert hello["torch"]
    assert hello["device"] in ("cpu", "cuda")
    assert isinstance(hello["models"], list)
    assert Path(hello["directory"]) == shared.directory


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_only_the_user_can_enter_the_directory(shared: Worker) -> None:
    assert stat.S_IMODE(shared.directory.stat().st_mode) == 0o700


def test_hello_says_that_torch_is_missing(start: Callable[..., Worker], tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('a library of it cannot be loaded')")
    worker = start(PATH_FIRST=str(tmp_path))
    hello = worker.call("hello")
    assert hello["torch"] == ""
    assert "a library of it" in hello["torch_problem"]
    lines = {name: (value, ok) for name, value, ok in worker.call("doctor")["lines"]}
    assert lines["torch"][1] is False
    assert "Python" in lines


def test_end_of_input_is_noticed_while_torch_is_imported(
    start: Callable[..., Worker], tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)")
    worker = start(PATH_FIRST=str(tmp_path))
    answer = worker.request("hello")
    assert worker.call("ping") == {}
    begin = time.monotonic()
    assert worker.close() == 0
    assert time.monotonic() - begin < 4
    with pytest.raises(WorkerGone):
        answer.result(1)


# -- segmenting ------------------------------------------------------------------------------------


def test_proposals_are_streamed_and_summed_up(shared: Worker) -> None:
    shared.ready()
    result = shared.segment("job", seed=7).result(20)
    (found,) = result["sets"]
    streamed = {p["proposal"]["proposal_id"]: p["proposal"] for p in shared.of("proposal", "job")}
    assert sorted(found["proposals"]) == sorted(streamed)
    assert len(streamed) == 3
    assert [row["proposal_id"] for row in found["ranking"]] == found["proposals"]
    assert np.array(found["pairwise_dice"]).shape == (3, 3)
    assert (found["organ"], found["found"], result["cancelled"]) == ("liver", True, False)
    assert {p["provenance"]["seed"] for p in streamed.values()} == {7, 8, 9}
    assert all(p["label"] == 6 and p["organ_name"] == "liver" for p in streamed.values())
    assert 0 < result["seconds"]["first_proposal"] <= result["seconds"]["total"]


def test_arrays_have_the_shape_of_their_region_and_the_announced_volume(shared: Worker) -> None:
    shared.ready()
    (found,) = shared.segment("arrays").result(20)["sets"]
    for proposal in [found["consensus"], shared.of("proposal", "arrays")[0]["proposal"]]:
        array = shared.take(proposal["probability"])
        assert array.dtype == np.uint8
        assert list(array.shape) == [stop - begin for begin, stop in proposal["region"]]
        voxels = np.count_nonzero(array > proposal["threshold"] * 255)
        assert voxels * 2.0 * 2.0 * 5.0 / 1000 == pytest.approx(proposal["volume_ml"])
    agreement = shared.take(found["agreement"]["array"])
    assert list(agreement.shape) == [b - a for a, b in found["agreement"]["region"]]
    assert agreement.max() == 255


def test_progress_rises_to_the_end_over_all_organs(shared: Worker) -> None:
    shared.ready()
    result = shared.segment("two organs", prompt="liver and spleen").result(20)
    assert [found["organ"] for found in result["sets"]] == ["liver", "spleen"]
    fractions = [p["fraction"] for p in shared.of("progress", "two organs")]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    assert len(fractions) == 2 * 3 * 4


@pytest.mark.parametrize(
    ("order", "steps"), [({"quality": "draft"}, 1), ({"quality": "fine"}, 8), ({"steps": 3}, 3)]
)
def test_quality_becomes_steps(shared: Worker, order: dict[str, Any], steps: int) -> None:
    shared.ready()
    job = f"steps {order}"
    shared.segment(job, proposals=1, **order).result(20)
    assert shared.of("proposal", job)[0]["proposal"]["provenance"]["steps"] == steps


def test_two_volumes_are_kept_apart(shared: Worker) -> None:
    shared.ready()
    shared.open("other", (10, 30, 20), modality="MR", name="second")
    shared.segment("a", volume_id="ct").result(20)
    shared.segment("b", volume_id="other").result(20)
    regions = [shared.of("proposal", job)[0]["proposal"]["region"] for job in ("a", "b")]
    assert regions == [[[1, 19], [1, 17], [1, 11]], [[1, 9], [1, 29], [1, 19]]]
    shared.call("close_volume", volume_id="other")
    assert "not open" in str(refused(shared, "segment", job_id="c", volume_id="other", prompt="liver"))
    assert shared.segment("d").result(20)["sets"]


def test_another_model_sees_the_volumes_that_are_open(shared: Worker) -> None:
    shared.ready()
    loaded = shared.call("load_model", model="fake:slow", adapter="")
    assert loaded["default_steps"] == 4
    assert shared.segment("after", proposals=1, steps=1).result(20)["sets"]


def test_a_proposal_that_was_not_streamed_is_sent_before_the_result(shared: Worker) -> None:
    shared.ready("fake:late")
    (found,) = shared.segment("late").result(20)["sets"]
    sent = [p["proposal"]["proposal_id"] for p in shared.of("proposal", "late")]
    assert sorted(sent) == sorted(found["proposals"])


# -- cancelling ------------------------------------------------------------------------------------


def test_cancel_keeps_what_there_is_and_the_next_job_runs(shared: Worker) -> None:
    shared.ready("fake:slow")
    running = shared.segment("long", proposals=50, prompt="liver and spleen")
    shared.wait_for("proposal", "long")
    begin = time.monotonic()
    assert shared.call("cancel", job_id="long") == {"cancelled": True}
    assert time.monotonic() - begin < 0.5
    result = running.result(20)
    assert time.monotonic() - begin < 2
    assert result["cancelled"] is True
    (found,) = result["sets"]
    assert found["organ"] == "liver"
    assert 1 <= len(found["proposals"]) < 50
    assert shared.segment("next", proposals=1, steps=1).result(20)["cancelled"] is False
    assert shared.call("cancel", job_id="long") == {"cancelled": False}


def test_a_waiting_job_can_be_cancelled(shared: Worker) -> None:
    shared.ready("fake:slow")
    running, waiting = shared.segment("first", proposals=50), shared.segment("second")
    shared.wait_for("progress", "first")
    assert shared.call("cancel", job_id="second") == {"cancelled": True}
    assert shared.call("cancel", job_id="first") == {"cancelled": True}
    running.result(20)
    assert waiting.result(20) == {**waiting.result(), "sets": [], "cancelled": True}


def test_the_id_of_a_running_job_cannot_be_used_again(shared: Worker) -> None:
    shared.ready("fake:slow")
    running = shared.segment("same", proposals=50)
    assert "still running" in str(refused(shared, "segment", job_id="same", volume_id="ct", prompt="liver"))
    shared.call("cancel", job_id="same")
    assert running.result(20)["cancelled"] is True


# -- wrong requests --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"this is not JSON", -32700),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "ping"', -32700),
        (b'{"jsonrpc": "2.0", "id": "\xff\xfe", "method": "ping"}', -32700),
        (b'{"jsonrpc": "2.0", "id": NaN, "method": "ping"}', -32700),
        (b"[" * 100_000, -32700),
        (b"x" * 3_000_000, -32700),
        (b"9" * 10_000, -32700),
        (b"\x00", -32700),
        (b"[]", -32600),
        (b"42", -32600),
        (b'{"id": 1, "method": "ping"}', -32600),
        (b'{"jsonrpc": "2.0", "id": {}, "method": "ping"}', -32600),
        (b'{"jsonrpc": "2.0", "id": "one", "method": 7}', -32600),
        (b'{"jsonrpc": "2.0", "id": "one", "method": "__class__"}', -32601),
        (b'{"jsonrpc": "2.0", "id": "one", "method": "cancel", "params": ["x"]}', -32602),
    ],
)
def test_nonsense_is_answered_by_the_standard_and_the_worker_lives(
    shared: Worker, line: bytes, code: int
) -> None:
    shared.call("ping")
    with shared.arrived:
        shared.notes.clear()
    shared.send_raw(line + b"\n")
    shared.wait_for("error")
    (error,) = shared.of("error")
    assert error["code"] == code
    assert error["data"]["message"]
    assert shared.call("ping") == {}


def test_empty_lines_and_notifications_are_not_answered(shared: Worker) -> None:
    with shared.arrived:
        shared.notes.clear()
    note = {"jsonrpc": "2.0", "method": "no such method"}
    shared.send_raw(b"\n  \n" + json.dumps(note).encode() + b'\n{"jsonrpc": "2.0", "method": "ping"}\n')
    shared.call("ping")
    assert shared.of("error") == []


@pytest.mark.parametrize(
    ("method", "params", "word"),
    [
        ("segment", {"volume_id": "ct", "prompt": "liver"}, "job_id"),
        ("segment", {"job_id": "j", "volume_id": "ct", "prompt": 5}, "prompt"),
        ("segment", {"job_id": "j", "volume_id": "ct", "prompt": "liver", "proposals": True}, "whole number"),
        ("segment", {"job_id": "j", "volume_id": "ct", "prompt": "liver", "steps": 1.5}, "or null"),
        ("segment", {"job_id": ["j"], "volume_id": "ct", "prompt": "liver"}, "job_id"),
        ("ping", {"loudly": True}, "loudly"),
        ("open_volume", {"volume_id": "x", "array": "a.npy", "affine": [[1, 2], [3, 4]]}, "affine"),
        ("open_volume", {"volume_id": "x", "array": "a.npy", "affine": [["a"] * 4] * 4}, "affine"),
        ("open_volume", {"volume_id": "x", "array": "a.npy", "affine": [[1], [2, 3]]}, "affine"),
    ],
)
def test_wrong_parameters_are_named(shared: Worker, method: str, params: dict[str, Any], word: str) -> None:
    error = refused(shared, method, **params)
    assert error.code == -32602
    assert word in str(error)


@pytest.mark.parametrize(
    ("params", "kind"),
    [
        ({"proposals": 0}, "UsageError"),
        ({"proposals": -3}, "UsageError"),
        ({"proposals": 10**6}, "UsageError"),
        ({"steps": 0}, "UsageError"),
        ({"quality": "superb"}, "UsageError"),
        ({"prompt": ""}, "PromptError"),
        ({"prompt": "segment the carburettor"}, "PromptError"),
    ],
)
def test_what_a_user_can_get_wrong_comes_with_a_remedy(
    shared: Worker, params: dict[str, Any], kind: str
) -> None:
    shared.ready()
    order = {"job_id": "wrong", "volume_id": "ct", "prompt": "liver", **params}
    error = refused(shared, "segment", **order)
    assert (error.code, error.data["kind"]) == (-32000, kind)
    assert error.data["remedy"]


def test_an_unknown_model_is_a_typed_error_and_another_one_can_be_loaded(shared: Worker) -> None:
    error = refused(shared, "load_model", model="no such model")
    assert error.data["kind"] == "ModelError"
    assert shared.call("load_model", model="fake:")["model_id"] == "fake"


# -- arrays ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", ["../secret.npy", "{absolute}", "sub/secret.npy", "link.npy", ".hidden.npy", "gone.npy"]
)
def test_arrays_outside_the_directory_are_neither_read_nor_deleted(
    shared: Worker, tmp_path: Path, how: str
) -> None:
    secret = tmp_path / "secret.npy"
    np.save(secret, np.ones((2, 2, 2)))
    beside = shared.directory.parent / f"secret-{uuid.uuid4().hex}.npy"
    beside.write_bytes(secret.read_bytes())
    link = shared.directory / "link.npy"
    link.symlink_to(secret)
    name = how.format(absolute=secret).replace("../secret.npy", f"../{beside.name}")
    try:
        error = refused(shared, "open_volume", volume_id="x", array=name, affine=AFFINE)
        assert error.data["kind"] == "VolumeError"
        assert secret.exists()
        assert beside.exists()
    finally:
        beside.unlink()
        link.unlink()


@pytest.mark.parametrize("kind", ["pickle", "archive", "truncated", "boastful", "empty", "text"])
def test_a_broken_array_is_refused_and_taken_away(shared: Worker, kind: str) -> None:
    path = shared.directory / f"{kind}.npy"
    if kind == "pickle":
        np.save(path, np.array([{"a": 1}]), allow_pickle=True)
    elif kind == "archive":
        np.savez(path.open("wb"), a=np.zeros(3))
    elif kind == "text":
        path.write_text("not an array")
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        np.save(path, np.zeros((10, 10, 10)))
        data = path.read_bytes()
        boast = data.replace(b"(10, 10, 10)", b"(9999999999, 10, 10)")
        path.write_bytes(data[:500] if kind == "truncated" else boast)
    error = refused(shared, "open_volume", volume_id="x", array=path.name, affine=AFFINE)
    assert error.data["kind"] == "VolumeError"
    assert not path.exists()


def test_a_read_volume_leaves_no_file(shared: Worker) -> None:
    name = shared.put(np.zeros((4, 5, 6), np.float32))
    shared.call("open_volume", volume_id="small", array=name, affine=AFFINE)
    assert not (shared.directory / name).exists()
    flat = shared.put(np.zeros((4, 5)))
    assert "dimensions" in str(refused(shared, "open_volume", volume_id="flat", array=flat, affine=AFFINE))


# -- pollution and failures of the model -----------------------------------------------------------


def test_what_libraries_print_goes_to_the_log(start: Callable[..., Worker]) -> None:
    worker = start("--model", "fake:noisy").ready("fake:noisy")
    assert worker.segment("noisy").result(20)["sets"]
    assert worker.call("ping") == {}
    worker.close()
    assert "a library prints" in worker.log
    assert "C code prints" in worker.log
    assert "a child reads ''" in worker.log  # and takes no request away
    assert "hub offline: 1" in worker.log


@pytest.mark.parametrize(("model", "word"), [("fake:bug", "a bug"), ("fake:exit", "a library gives up")])
def test_an_unforeseen_exception_is_reported_with_its_traceback(
    shared: Worker, model: str, word: str
) -> None:
    shared.ready(model)
    error = refused(shared, "segment", job_id="bug", volume_id="ct", prompt="liver")
    assert (error.code, error.data["kind"]) == (-32603, "InternalError")
    assert word in str(error)
    assert "_misbehave" in error.data["traceback"]
    assert shared.of("proposal", "bug")
    assert shared.ready().segment("bug", proposals=1).result(20)["sets"]


def test_without_memory_anywhere_the_error_says_so(shared: Worker) -> None:
    shared.ready("fake:no_memory")
    error = refused(shared, "segment", job_id="memory", volume_id="ct", prompt="liver")
    assert (error.code, error.data["kind"]) == (-32000, "DeviceError")
    assert "memory" in str(error)
    assert shared.call("ping") == {}


@pytest.mark.parametrize(
    ("model", "device", "said"),
    [
        ("fake:oom,small_batches", "cuda:0", ["smaller batches"]),
        ("fake:oom", "cpu", ["CPU"]),
    ],
)
def test_a_full_gpu_means_smaller_batches_then_the_cpu(
    shared: Worker, model: str, device: str, said: list[str]
) -> None:
    shared.ready(model)
    job = f"full {model}"
    (found,) = shared.segment(job).result(20)["sets"]
    messages = shared.of("message", job)
    assert [word in message["text"] for word, message in zip(said, messages, strict=True)] == [True]
    assert messages[0]["level"] == "warning"
    final = {p["proposal"]["proposal_id"]: p["proposal"] for p in shared.of("proposal", job)}
    assert sorted(final) == sorted(found["proposals"])  # the repeated ones replaced the first ones
    assert {p["provenance"]["device"] for p in final.values()} == {device}
    assert shared.call("load_model", model=model)["device"] == device


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sets another process's limit")
def test_a_full_disk_is_a_typed_error(start: Callable[..., Worker]) -> None:
    import resource

    worker = start().ready(shape=(60, 60, 60))
    _, hard = resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE)  # type: ignore[attr-defined]
    resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, (10_000, hard))  # type: ignore[attr-defined]
    error = refused(worker, "segment", job_id="full", volume_id="ct", prompt="liver")
    assert error.data["kind"] == "OutputError"
    assert "space" in error.data["remedy"]
    assert list(worker.directory.iterdir()) == []
    resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, (hard, hard))  # type: ignore[attr-defined]
    assert worker.segment("again").result(20)["sets"]


# -- the end ---------------------------------------------------------------------------------------


def test_a_killed_worker_is_reported_and_its_directory_removed_by_the_next(
    start: Callable[..., Worker],
) -> None:
    worker = start().ready("fake:slow")
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
    start().call("ping")
    assert not directory.exists()


@pytest.mark.parametrize("how", ["closed stdin", "shutdown", "SIGTERM", "SIGINT"])
@pytest.mark.parametrize("busy", [True, False])
def test_it_leaves_quickly_and_cleans_up(start: Callable[..., Worker], how: str, busy: bool) -> None:
    worker = start().ready("fake:slow")
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


def test_it_leaves_when_nobody_reads_its_answers(start: Callable[..., Worker]) -> None:
    read_end, write_end = os.pipe()
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    import subprocess

    process = subprocess.Popen(
        [sys.executable, "-m", "progidiff.worker"], stdin=subprocess.PIPE, stdout=write_end, env=env
    )
    os.close(read_end)
    os.close(write_end)
    assert process.stdin is not None
    process.stdin.write(b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n')
    process.stdin.flush()
    assert process.wait(10) == 0
    process.stdin.close()
