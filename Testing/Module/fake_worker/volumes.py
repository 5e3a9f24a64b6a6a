"""Volumes the worker knows, and arrays that come and go as files."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path

import numpy as np


class Volumes:
    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fake-worker-"))
        self.volumes: dict[str, np.ndarray] = {}
        self.voxel_ml: dict[str, float] = {}
        self.affines: dict[str, np.ndarray] = {}
        self.names: dict[str, str] = {}
        self.cancelled: set[str] = set()
        self.adapter = ""
        self.model = "embedded"

    def open_volume(self, volume_id: str, array: str, affine: list, modality: str, name: str) -> dict:
        path = self.folder / array
        self.volumes[volume_id] = np.load(path, allow_pickle=False)
        path.unlink()
        self.affines[volume_id], self.names[volume_id] = np.array(affine), name
        self.voxel_ml[volume_id] = abs(float(np.linalg.det(np.array(affine)[:3, :3]))) / 1000
        return {"volume_id": volume_id, "modality": "CT", "seconds": 0.0}

    def close_volume(self, volume_id: str) -> dict:
        self.volumes.pop(volume_id, None)
        return {}

    def joined(self, volume_id: str, given: list[dict]) -> np.ndarray:
        return np.any([self.voxels(volume_id, None), *(self.voxels(volume_id, v) for v in given)], axis=0)

    def voxels(self, volume_id: str, given: dict | None, otherwise: bool = False) -> np.ndarray:
        """(I, J, K) bool of VOXELS of the protocol."""
        shape = self.volumes[volume_id].shape
        full = np.full(shape, otherwise if given is None else False)
        if given is None:
            return full
        to_index = np.linalg.inv(self.affines[volume_id])
        if "array" in given:
            array = np.load(self.folder / given["array"], allow_pickle=False)
            (self.folder / given["array"]).unlink()
            box = tuple(slice(*r) for r in given["region"])
            full[box] = array > 255 * given.get("threshold", 0)
        elif "points" in given:
            for point in given["points"]:
                full[tuple(np.round(to_index @ [*point, 1])[:3].astype(int))] = True
        elif "slices" in given:
            full[:, :, given["slices"][0] : given["slices"][1] + 1] = True
        else:
            roi = given["roi"]
            places = self.affines[volume_id] @ np.r_[np.indices(shape).reshape(3, -1), [np.ones(full.size)]]
            local = np.array(roi["axes"]).T @ (places[:3] - np.array(roi["center"])[:, None])
            full = (np.abs(local) <= np.array(roi["size"])[:, None] / 2).all(axis=0).reshape(shape)
        return full

    def give(self, array: np.ndarray) -> str:
        name = f"{uuid.uuid4().hex}.npy"
        with (self.folder / (name + ".part")).open("wb") as file:
            np.save(file, array, allow_pickle=False)
        (self.folder / (name + ".part")).rename(self.folder / name)
        return name
