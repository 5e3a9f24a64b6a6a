"""What a worker process refuses: wrong requests, and arrays that are none of its own."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worker_samples import AFFINE, Worker, refused

# -- wrong requests -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"this is not JSON", -32700),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "ping"', -32700),
        (b'{"jsonrpc": "2.0", "id": "\xff\xfe", "method": "ping"}', -32700),
        (b'{"jsonrpc": "2.0", "id": NaN, "method": "ping"}', -32700),
        (b'{"jsonrpc": "2.0", "id": 1e999, "method": "ping"}', -32700),
        (b'{"jsonrpc": "2.0", "id": -1e999, "method": "doctor"}', -32700),
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
    worker: Worker, line: bytes, code: int
) -> None:
    worker.call("ping")
    with worker.arrived:
        worker.notes.clear()
    worker.send_raw(line + b"\n")
    worker.wait_for("error")
    (error,) = worker.of("error")
    assert error["code"] == code
    assert error["data"]["message"]
    assert worker.call("ping") == {}


def test_empty_lines_and_notifications_are_not_answered(worker: Worker) -> None:
    with worker.arrived:
        worker.notes.clear()
    note = {"jsonrpc": "2.0", "method": "no such method"}
    worker.send_raw(b"\n  \n" + json.dumps(note).encode() + b'\n{"jsonrpc": "2.0", "method": "ping"}\n')
    worker.call("ping")
    assert worker.of("error") == []


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
def test_wrong_parameters_are_named(worker: Worker, method: str, params: dict[str, Any], word: str) -> None:
    error = refused(worker, method, **params)
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
        ({"prompt": "hepatic lesions"}, "FindingError"),
    ],
)
def test_what_a_user_can_get_wrong_comes_with_a_remedy(
    worker: Worker, params: dict[str, Any], kind: str
) -> None:
    worker.ready()
    order = {"job_id": "wrong", "volume_id": "ct", "prompt": "liver", **params}
    error = refused(worker, "segment", **order)
    assert (error.code, error.data["kind"]) == (-32000, kind)
    assert error.data["remedy"]


def test_an_unknown_model_is_a_typed_error_and_another_one_can_be_loaded(worker: Worker) -> None:
    error = refused(worker, "load_model", model="no such model")
    assert error.data["kind"] == "ModelError"
    assert worker.call("load_model", model="fake:")["model_id"] == "fake"


# -- arrays -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", ["../secret.npy", "{absolute}", "sub/secret.npy", "link.npy", ".hidden.npy", "gone.npy"]
)
def test_arrays_outside_the_directory_are_neither_read_nor_deleted(
    worker: Worker, tmp_path: Path, how: str
) -> None:
    secret = tmp_path / "secret.npy"
    np.save(secret, np.ones((2, 2, 2)))
    beside = worker.directory.parent / f"secret-{uuid.uuid4().hex}.npy"
    beside.write_bytes(secret.read_bytes())
    link = worker.directory / "link.npy"
    link.symlink_to(secret)
    name = how.format(absolute=secret).replace("../secret.npy", f"../{beside.name}")
    try:
        error = refused(worker, "open_volume", volume_id="x", array=name, affine=AFFINE)
        assert error.data["kind"] == "VolumeError"
        assert secret.exists()
        assert beside.exists()
    finally:
        beside.unlink()
        link.unlink()


@pytest.mark.parametrize("kind", ["pickle", "archive", "truncated", "boastful", "empty", "text"])
def test_a_broken_array_is_refused_and_taken_away(worker: Worker, kind: str) -> None:
    path = worker.directory / f"{kind}.npy"
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
    error = refused(worker, "open_volume", volume_id="x", array=path.name, affine=AFFINE)
    assert error.data["kind"] == "VolumeError"
    assert not path.exists()


def test_a_read_volume_leaves_no_file(worker: Worker) -> None:
    name = worker.put(np.zeros((4, 5, 6), np.float32))
    worker.call("open_volume", volume_id="small", array=name, affine=AFFINE)
    assert not (worker.directory / name).exists()
    flat = worker.put(np.zeros((4, 5)))
    assert "dimensions" in str(refused(worker, "open_volume", volume_id="flat", array=flat, affine=AFFINE))
