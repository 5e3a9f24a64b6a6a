"""A worker process with the fake segmenter, to talk to."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from progidiff.worker.client import RemoteError, WorkerClient

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


def refused(worker: Worker, method: str, **params: Any) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        worker.call(method, **params)
    return caught.value
