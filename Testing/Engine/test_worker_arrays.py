"""The private directory for arrays, and how probabilities and parameters travel."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from progidiff.errors import OutputError, VolumeError
from progidiff.worker import array_store
from progidiff.worker.array_store import ArrayStore, remove_stale_directories
from progidiff.worker.protocol import Request, RpcError
from progidiff.worker.registry import Method, check_params
from progidiff.worker.wire import to_bytes

GONE = 2**22 + 1
"""Above the largest process id that Linux gives out."""


@pytest.fixture
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty system temporary folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def store(temp: Path) -> Iterator[ArrayStore]:
    store = ArrayStore()
    yield store
    store.close()


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_comes_back_as_it_was(store: ArrayStore, order: Any) -> None:
    array = np.asarray(np.arange(60, dtype=np.int16).reshape(3, 4, 5), order=order)
    name = store.write(array)
    assert sorted(path.name for path in store.directory.iterdir()) == [name]
    back = store.read(name)
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype
    assert list(store.directory.iterdir()) == []
    with pytest.raises(VolumeError):
        store.read(name)


def test_an_empty_region_can_be_written(store: ArrayStore) -> None:
    assert np.load(store.directory / store.write(np.zeros((0, 0, 0), np.uint8))).shape == (0, 0, 0)


def test_a_full_disk_leaves_no_half_file(store: ArrayStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def half_written(file: Any, array: Any, allow_pickle: bool) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", half_written)
    with pytest.raises(OutputError, match="No space left"):
        store.write(np.zeros(3))
    assert list(store.directory.iterdir()) == []


def test_an_object_array_is_never_pickled(store: ArrayStore) -> None:
    with pytest.raises(ValueError, match="pickle"):
        store.write(np.array([{}], dtype=object))
    assert list(store.directory.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_only_own_directories_of_ended_workers_are_removed(temp: Path) -> None:
    elsewhere = temp / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious.npy").touch()
    stale = temp / f"progidiff-worker-{GONE}-abc"
    stale.mkdir()
    (stale / "left.npy").touch()
    kept = [
        temp / f"progidiff-worker-{os.getpid()}-abc",
        temp / f"progidiff-worker-{GONE}",
        temp / f"progidiff-worker-x{GONE}-abc",
        temp / f"my-progidiff-worker-{GONE}-abc",
    ]
    for folder in kept:
        folder.mkdir()
    link, file = temp / f"progidiff-worker-{GONE}-link", temp / f"progidiff-worker-{GONE}-file"
    link.symlink_to(elsewhere)
    file.touch()
    remove_stale_directories()
    assert not stale.exists()
    assert all(path.exists() for path in [*kept, link, file, elsewhere / "precious.npy"])


@pytest.mark.skipif(sys.platform == "win32", reason="no user ids on Windows")
def test_directories_of_other_users_are_left_alone(temp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = temp / f"progidiff-worker-{GONE}-abc"
    stale.mkdir()
    monkeypatch.setattr(array_store.os, "getuid", lambda: stale.stat().st_uid + 1)
    remove_stale_directories()
    assert stale.exists()


@given(st.lists(st.floats(0, 1, width=32), min_size=1), st.floats(0, 1))
def test_bytes_hold_exactly_the_same_mask(probabilities: list[float], threshold: float) -> None:
    probability = np.array(probabilities, np.float32)
    sent = to_bytes(probability, threshold)
    reachable = probability > threshold if threshold * 255 < 255 else np.zeros(len(probability), bool)
    np.testing.assert_array_equal(sent > threshold * 255, reachable)
    assert np.abs(sent / 255 - probability).max() <= 1 / 255 + 1e-6


def test_bytes_without_a_threshold_are_rounded() -> None:
    assert to_bytes(np.array([0, 0.5, 1, 1 / 255], np.float32)).tolist() == [0, 128, 255, 1]


def test_a_signature_is_the_schema() -> None:
    def method(session: Any, *, job_id: str, strength: float = 0.5, rows: list | None = None) -> dict:
        return {}

    entry = Method(method, at_once=False)
    assert entry.is_job
    given_params = {"job_id": "a", "strength": 1, "rows": None}
    assert check_params(entry, Request("m", given_params)) == given_params
    for wrong in ({"strength": 1}, {"job_id": "a", "strength": "1"}, {"job_id": "a", "rows": 3}):
        with pytest.raises(RpcError):
            check_params(entry, Request("m", dict(wrong)))
