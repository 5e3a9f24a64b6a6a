"""Small volumes and files of them, good and tampered with, for the tests of reading and writing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from progidiff.volumes import Volume, write_volume

ENDINGS = [".nii.gz", ".nii", ".nrrd", ".mha"]
ANGLE = 0.3
OBLIQUE = np.array(
    [
        [-1.5 * np.cos(ANGLE), 2.0 * np.sin(ANGLE), 0, 40.5],
        [-1.5 * np.sin(ANGLE), -2.0 * np.cos(ANGLE), 0, -12.25],
        [0, 0, 3.0, 700.125],
        [0, 0, 0, 1],
    ]
)
MIRRORED = OBLIQUE @ np.diag([1, 1, -1, 1])
SIDEWAYS = np.array([[0, 0, 2.5, 1], [-0.7, 0, 0, 2], [0, 0.9, 0, 3], [0, 0, 0, 1.0]])


def scan(dtype="i2", shape=(5, 6, 7), affine=OBLIQUE) -> Volume:
    array = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    return Volume(array, affine)


def written(tmp_path: Path, volume: Volume | None = None, ending=".nii") -> Path:
    return write_volume(volume or scan(), tmp_path / f"case{ending}")


def patch(path: Path, offset: int, value, dtype) -> Path:
    """Overwrite a field of a binary header."""
    content = bytearray(path.read_bytes())
    field = np.asarray(value, dtype).tobytes()
    content[offset : offset + len(field)] = field
    path.write_bytes(content)
    return path


def mha(path: Path, geometry: str, voxels: int = 24, channels: int = 1) -> Path:
    """A hand-written MetaImage of 4 × 3 × 2 voxels."""
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        f"{geometry}\nDimSize = 4 3 2\nElementNumberOfChannels = {channels}\n"
        "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    path.write_bytes(header.encode() + np.arange(voxels * channels, dtype="<i2").tobytes())
    return path
