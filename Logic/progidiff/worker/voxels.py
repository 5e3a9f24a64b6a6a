"""VOXELS of PROTOCOL.md: the ways in which an application says which voxels it means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from progidiff.errors import VolumeError
from progidiff.proposals.proposal import Region
from progidiff.steering.voxels import NOTHING, Voxels
from progidiff.volumes.volume import Grid
from progidiff.worker.array_store import ArrayStore
from progidiff.worker.protocol import INVALID_PARAMS, RpcError

_KINDS = {
    "array": {"array", "region", "threshold"},
    "points": {"points"},
    "box": {"box"},
    "slices": {"slices"},
    "roi": {"roi"},
}


class VoxelReader:
    """Reads voxel sets of one volume.

    Args:
        store: where their arrays lie.
        grid: the volume's grid.
    """

    def __init__(self, store: ArrayStore, grid: Grid) -> None:
        self._store = store
        self.grid = grid

    def read_all(self, given: Sequence[Any]) -> Voxels:
        """All voxels of a list of sets."""
        result = NOTHING
        for one in given:
            result = result.joined(self.read(one))
        return result

    def read(self, given: Any) -> Voxels:
        """One set.

        Raises:
            RpcError: -32602 for something that is not VOXELS.
            UsageError: voxels that are not those of the volume.
            VolumeError: the array cannot be read.
        """
        kinds = _KINDS.keys() & given.keys() if isinstance(given, dict) else set()
        if len(kinds) != 1 or given.keys() - _KINDS[next(iter(kinds))]:
            raise RpcError(INVALID_PARAMS, f"Voxels must be an object with one of: {', '.join(_KINDS)}.")
        (kind,) = kinds
        if kind == "array":
            return self._read_array(given)
        if kind == "points":
            return Voxels.of_points(given["points"], self.grid)
        if kind == "box":
            return Voxels.of_box(_pairs(given["box"], 3), self.grid)
        if kind == "slices":
            ((first, last),) = _pairs([given["slices"]], 1)
            return Voxels.of_slices(first, last, self.grid)
        return self._read_roi(given["roi"])

    def _read_array(self, given: dict) -> Voxels:
        threshold = given.get("threshold", 0.0)
        if not isinstance(given["array"], str) or isinstance(threshold, bool) or not _is_number(threshold):
            raise RpcError(INVALID_PARAMS, "array must be the name of a file, threshold a number.")
        array = self._store.read(given["array"])
        if array.dtype.kind not in "buif":
            raise VolumeError(f"An array of {array.dtype} is no mask.", "Send an array of numbers.")
        region = self._whole() if given.get("region") is None else _pairs(given["region"], 3)
        sides = [slice(start, stop) for start, stop in region]
        place: Region = (sides[0], sides[1], sides[2])
        voxels = Voxels.of_mask(array > threshold * 255.0, place)
        voxels.check_within(self.grid, "mask")
        return voxels

    def _read_roi(self, roi: Any) -> Voxels:
        if not isinstance(roi, dict) or not {"center", "size"} <= roi.keys() <= {"center", "size", "axes"}:
            raise RpcError(INVALID_PARAMS, "roi must be an object with center, size and perhaps axes.")
        return Voxels.of_roi(roi["center"], roi["size"], self.grid, roi.get("axes"))

    def _whole(self) -> list[tuple[int, int]]:
        return [(0, n) for n in self.grid.shape]


def _pairs(given: Any, count: int) -> list[tuple[int, int]]:
    """`count` pairs of whole numbers."""
    try:
        pairs = [(first, second) for first, second in given]
    except (TypeError, ValueError):
        pairs = []
    if len(pairs) != count or not all(type(n) is int for pair in pairs for n in pair):
        raise RpcError(
            INVALID_PARAMS, "A range must be two whole numbers; a box or region has three of them."
        )
    return pairs


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
