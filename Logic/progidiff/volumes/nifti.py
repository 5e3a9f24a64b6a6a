"""The NIfTI header: what SimpleITK overlooks when reading, and files with exactly our matrix.

SimpleITK reads a truncated NIfTI file without a word, replaces a spacing of zero by one, and rounds
matrices that are a little off right angles. The header is therefore looked at here, and NIfTI files
are written here. Byte offsets: nifti1.h and nifti2.h, https://nifti.nimh.nih.gov.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

import numpy as np
from numpy.typing import NDArray

from progidiff.errors import VolumeError
from progidiff.volumes.conversion import storable
from progidiff.volumes.volume import Volume

_NIFTI1 = {
    "sizeof_hdr": ("i4", 0),
    "dim": ("8i2", 40),
    "datatype": ("i2", 70),
    "bitpix": ("i2", 72),
    "pixdim": ("8f4", 76),
    "vox_offset": ("f4", 108),
    "scl_slope": ("f4", 112),
    "xyzt_units": ("u1", 123),
    "qform_code": ("i2", 252),
    "sform_code": ("i2", 254),
    "quatern": ("3f4", 256),
    "qoffset": ("3f4", 268),
    "srow": ("(3,4)f4", 280),
    "magic": ("S4", 344),
}
_NIFTI2 = {
    "sizeof_hdr": ("i4", 0),
    "bitpix": ("i2", 14),
    "dim": ("8i8", 16),
    "pixdim": ("8f8", 104),
    "vox_offset": ("i8", 168),
    "sform_code": ("i4", 348),
    "srow": ("(3,4)f8", 400),
}
_HEADER_BYTES = {348: _NIFTI1, 540: _NIFTI2}
_DATATYPES = {
    "u1": 2,
    "i2": 4,
    "i4": 8,
    "f4": 16,
    "f8": 64,
    "i1": 256,
    "u2": 512,
    "u4": 768,
    "i8": 1024,
    "u8": 1280,
}
_SCANNER_POSITION = 1
_MILLIMETRES = 2


@dataclass(frozen=True)
class NiftiHeader:
    """What reading needs to know.

    Attributes:
        shape: as stored, any number of dimensions.
        pixdim: spacing of the first three dimensions.
        sform: 4×4 voxel → RAS mm, None when the file has none.
        data_end: bytes the uncompressed file must have.
    """

    shape: tuple[int, ...]
    pixdim: tuple[float, ...]
    sform: NDArray[np.float64] | None
    data_end: int


def _dtype(fields: dict[str, tuple[str, int]], size: int, byte_order: Literal["<", ">"]) -> np.dtype:
    formats = [np.dtype(form).newbyteorder(byte_order) for form, _ in fields.values()]
    offsets = [offset for _, offset in fields.values()]
    return np.dtype(
        {"names": list(fields), "formats": formats, "offsets": offsets, "itemsize": size}  # type: ignore[call-overload]
    )


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path)) if compressed else path.open("rb")


def read_header(path: Path) -> NiftiHeader:
    """The header of a .nii or .nii.gz file.

    Raises:
        VolumeError: not a NIfTI file, or truncated within the header.
    """
    broken = VolumeError(
        f"“{path.name}” is not a readable NIfTI file.", "Copy or export the file again; it may be damaged."
    )
    try:
        with _open(path) as file:
            raw = file.read(540)
    except (OSError, EOFError, zlib.error) as error:
        raise broken from error
    for size, fields in _HEADER_BYTES.items():
        if len(raw) < size:
            continue
        if int.from_bytes(raw[:4], "little") == size:
            return _header_from(np.frombuffer(raw, _dtype(fields, size, "<"), 1)[0])
        if int.from_bytes(raw[:4], "big") == size:
            return _header_from(np.frombuffer(raw, _dtype(fields, size, ">"), 1)[0])
    raise broken


def _header_from(record: np.void) -> NiftiHeader:
    shape = tuple(int(n) for n in record["dim"][1 : 1 + min(max(int(record["dim"][0]), 0), 7)])
    sform = None
    if record["sform_code"] > 0:
        sform = np.vstack([record["srow"].astype(np.float64), [0, 0, 0, 1]])
    data_bytes = int(np.prod(shape, dtype=object)) * int(record["bitpix"]) // 8 if shape else 0
    pixdim = tuple(float(v) for v in record["pixdim"][1:4])
    return NiftiHeader(shape, pixdim, sform, int(record["vox_offset"]) + data_bytes)


def check_complete(path: Path, header: NiftiHeader) -> None:
    """Read the file once to its end.

    Raises:
        VolumeError: the file is shorter than its header says, or its compressed stream is damaged.
    """
    try:
        with _open(path) as file:
            length = 0
            while chunk := file.read(1 << 20):
                length += len(chunk)
    except (OSError, EOFError, zlib.error) as error:
        raise VolumeError(
            f"“{path.name}” is damaged: its compressed data end early or are corrupt.",
            "Copy or download the file again.",
        ) from error
    if length < header.data_end:
        raise VolumeError(
            f"“{path.name}” is truncated: {length} of {header.data_end} bytes are there.",
            "Copy or download the file again.",
        )


def write_nifti(volume: Volume, path: Path) -> None:
    """Write a NIfTI-1 file, compressed if the name ends in .gz; not atomic, see `write_volume`.

    Both sform and qform hold the affine; the sform exactly (as float32), the qform as the nearest rotation.

    Raises:
        OSError: the file cannot be written.
    """
    array = storable(volume.array)
    header = _header_of(volume, array.dtype)
    # Three little-endian zero bytes and one after the header say that no extensions follow.
    content = header.tobytes() + bytes(4)
    stored = array.astype(array.dtype.newbyteorder("<"), copy=False)
    with path.open("wb") as raw:
        if path.name.endswith(".gz"):
            # No file name and time inside: the same volume gives the same bytes.
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=4, mtime=0) as file:
                file.write(content)
                file.write(stored.tobytes(order="F"))
        else:
            raw.write(content)
            raw.write(stored.tobytes(order="F"))


def _header_of(volume: Volume, dtype: np.dtype) -> np.ndarray:
    header = np.zeros((), _dtype(_NIFTI1, 348, "<"))
    affine = volume.affine
    axes = affine[:3, :3] / volume.spacing
    # A mirrored grid is a rotation times a flip of the third axis, which pixdim[0] carries.
    flip = -1.0 if np.linalg.det(axes) < 0 else 1.0
    header["sizeof_hdr"] = 348
    header["dim"] = [3, *volume.shape, 1, 1, 1, 1]
    header["datatype"] = _DATATYPES[dtype.str[1:]]
    header["bitpix"] = dtype.itemsize * 8
    header["pixdim"] = [flip, *volume.spacing, 1, 1, 1, 1]
    header["vox_offset"] = 352
    header["scl_slope"] = 1
    header["xyzt_units"] = _MILLIMETRES
    header["qform_code"] = header["sform_code"] = _SCANNER_POSITION
    header["quatern"] = _quaternion(axes @ np.diag([1, 1, flip]))
    header["qoffset"] = affine[:3, 3]
    header["srow"] = affine[:3]
    header["magic"] = b"n+1"
    return header


def _quaternion(rotation: NDArray) -> NDArray:
    """(b, c, d) of the unit quaternion with a ≥ 0 nearest to a rotation matrix."""
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(rotation).as_quat()
    return np.array([x, y, z]) * (-1.0 if w < 0 else 1.0)
