"""NIfTI files, read and written here rather than by SimpleITK.

SimpleITK reads a truncated NIfTI file without a word, turns NaN into zero, takes a spacing of zero for
one, and refuses or misplaces matrices that are a little off right angles. A mask that has to lie on
exactly the grid of its image cannot afford that. Layout: nifti1.h and nifti2.h, https://nifti.nimh.nih.gov.
"""

from __future__ import annotations

import gzip
import math
import sys
import zlib
from pathlib import Path
from typing import BinaryIO, Literal, cast

import numpy as np
from numpy.typing import NDArray

from progidiff.errors import VolumeError
from progidiff.volumes.conversion import storable
from progidiff.volumes.volume import Volume

Fields = dict[str, tuple[str, int]]

# Field: type and byte offset. Only what is needed; the rest of a header is zero.
_NIFTI1: Fields = {
    "sizeof_hdr": ("i4", 0),
    "dim": ("8i2", 40),
    "datatype": ("i2", 70),
    "bitpix": ("i2", 72),
    "pixdim": ("8f4", 76),
    "vox_offset": ("f4", 108),
    "scl_slope": ("f4", 112),
    "scl_inter": ("f4", 116),
    "xyzt_units": ("u1", 123),
    "qform_code": ("i2", 252),
    "sform_code": ("i2", 254),
    "quatern": ("3f4", 256),
    "qoffset": ("3f4", 268),
    "srow": ("(3,4)f4", 280),
    "magic": ("S4", 344),
}
_NIFTI2: Fields = {
    "sizeof_hdr": ("i4", 0),
    "magic": ("S4", 4),
    "datatype": ("i2", 12),
    "bitpix": ("i2", 14),
    "dim": ("8i8", 16),
    "pixdim": ("8f8", 104),
    "vox_offset": ("i8", 168),
    "scl_slope": ("f8", 176),
    "scl_inter": ("f8", 184),
    "qform_code": ("i4", 344),
    "sform_code": ("i4", 348),
    "quatern": ("3f8", 352),
    "qoffset": ("3f8", 376),
    "srow": ("(3,4)f8", 400),
    "xyzt_units": ("i4", 500),
}
_SIZES = {348: _NIFTI1, 540: _NIFTI2}
_CODES = {
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
_DTYPES = {code: name for name, code in _CODES.items()}
_COLOUR = (128, 2304)
_COMPLEX = (32, 1792, 2048)
_SCANNER_POSITION = 1
_MILLIMETRES = 2
_UNIT_MM = {1: 1000.0, 3: 0.001}
"""Metres and micrometres in mm; SimpleITK takes all other codes, also unknown, for millimetres."""
_SPACE_UNIT_BITS = 7
# Where voxels may begin at most: nifti1_io.c holds it in 32 bits.
_LARGEST_OFFSET = 2**31 - 1


def read_nifti(path: Path) -> tuple[NDArray, NDArray[np.float64]]:
    """Voxels and position of a .nii or .nii.gz file.

    Returns:
        Array with the file's dtype, or float where slope and intercept are stored, with the first three
        dimensions (further ones have a single entry), and the 4×4 affine to RAS mm.

    Raises:
        VolumeError: not NIfTI, truncated, damaged, no voxels, colour, complex, 4D, or bad spacing.
        MemoryError: the voxels do not fit into memory, if such a size is meant at all.
    """
    try:
        with _open(path) as file:
            header, byte_order = _read_header(file, path.name)
            shape, dtype = _layout(header, path.name)
            _check_spacing(header, path.name)
            offset = _voxel_offset(header, path.name)
            count = math.prod(shape)
            if count * np.dtype(dtype).itemsize > sys.maxsize:
                raise MemoryError
            array = np.empty(count, np.dtype(dtype).newbyteorder(byte_order))
            file.seek(offset)
            length = _read_into(file, array.view(np.uint8).data)
            # On to the end of the stream, where the checksum is.
            while file.read(1 << 20):
                pass
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise VolumeError(
            f"“{path.name}” is damaged: its compressed data end early or are corrupt.",
            "Copy or download the file again.",
        ) from error
    if length < array.nbytes:
        raise VolumeError(
            f"“{path.name}” is truncated: {length} of {array.nbytes} bytes of voxels are there.",
            "Copy or download the file again.",
        )
    array = array.astype(dtype, copy=False).reshape(shape, order="F")
    return _scaled(array, header), _affine(header)


def write_nifti(volume: Volume, path: Path) -> None:
    """Write a NIfTI-1 file, compressed if the name ends in .gz; not atomic, see `write_volume`.

    Both sform and qform hold the affine; the sform as it is, the qform as the nearest rotation.

    Raises:
        OSError: the file cannot be written.
    """
    array = storable(volume.array)
    # Four zero bytes after the header say that no extensions follow.
    header = _header_of(volume, array.dtype).tobytes() + bytes(4)
    with path.open("wb") as raw:
        if path.name.lower().endswith(".gz"):
            # No file name and time inside: the same volume gives the same bytes.
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=4, mtime=0) as file:
                file.write(header)
                file.write(file_bytes(array))
        else:
            raw.write(header)
            raw.write(file_bytes(array))


def file_bytes(array: NDArray) -> memoryview:
    """The voxels little-endian, i running fastest, as all our formats store them."""
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return little.ravel(order="F").view(np.uint8).data


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path)) if compressed else path.open("rb")


def _dtype(fields: Fields, size: int, byte_order: Literal["<", ">"]) -> np.dtype:
    formats = [np.dtype(form).newbyteorder(byte_order) for form, _ in fields.values()]
    offsets = [offset for _, offset in fields.values()]
    return np.dtype(
        {"names": list(fields), "formats": formats, "offsets": offsets, "itemsize": size}  # type: ignore[call-overload]
    )


def _read_header(file: BinaryIO, name: str) -> tuple[np.void, Literal["<", ">"]]:
    raw = file.read(540)
    for size, fields in _SIZES.items():
        byte_order: Literal["<", ">"] = "<" if int.from_bytes(raw[:4], "little") == size else ">"
        if len(raw) < size or np.frombuffer(raw, f"{byte_order}i4", 1)[0] != size:
            continue
        header = np.frombuffer(raw, _dtype(fields, size, byte_order), 1)[0]
        if header["magic"][:2] == b"n+":
            return header, byte_order
    raise VolumeError(
        f"“{name}” is not a readable NIfTI file.", "Copy or export the file again; it may be damaged."
    )


def _layout(header: np.void, name: str) -> tuple[tuple[int, int, int], str]:
    """Shape and dtype of the voxels, or VolumeError where they are not one grey 3D image."""
    code = int(header["datatype"])
    if code in _COLOUR:
        raise VolumeError(f"“{name}” is a colour image.", "Choose a grey CT or MR image.")
    if code in _COMPLEX:
        raise VolumeError(f"The voxels of “{name}” are complex numbers.", "Choose the magnitude image.")
    if code not in _DTYPES:
        raise VolumeError(
            f"The voxel type of “{name}” (NIfTI code {code}) is not supported.", "Convert it to float32."
        )
    sizes = [int(n) for n in header["dim"][1 : 1 + min(max(int(header["dim"][0]), 0), 7)]]
    if len(sizes) < 2 or min(sizes) < 1:
        raise VolumeError(f"“{name}” has no voxels.", "Choose a volume that is not empty.")
    if any(n > 1 for n in sizes[3:]):
        raise VolumeError(
            f"“{name}” has {len(sizes)} dimensions ({' × '.join(map(str, sizes))}).",
            "Choose or export a single 3D time point.",
        )
    i, j, k = [*sizes, 1][:3]
    return (i, j, k), _DTYPES[code]


def _check_spacing(header: np.void, name: str) -> None:
    steps = header["pixdim"][1 : 1 + min(int(header["dim"][0]), 3)]
    if not (np.isfinite(steps) & (steps > 0)).all():
        raise bad_spacing(name)


def _voxel_offset(header: np.void, name: str) -> int:
    """Where the voxels begin in the file, which NIfTI-1 stores as a float."""
    offset = float(header["vox_offset"])
    if not int(header["sizeof_hdr"]) <= offset <= _LARGEST_OFFSET:  # also refuses NaN
        raise VolumeError(
            f"The header of “{name}” is damaged: its voxels cannot begin at byte {offset:g}.",
            "Copy or export the file again.",
        )
    return int(offset)


def bad_spacing(name: str) -> VolumeError:
    """The error for a spacing that no grid can have."""
    return VolumeError(
        f"The voxel spacing of “{name}” is zero, negative or not a number.",
        "Repair the spacing in the header, or export the scan again from the original DICOM files.",
    )


def _read_into(file: BinaryIO, buffer: memoryview) -> int:
    """Fill the buffer as far as the file reaches; returns the number of bytes."""
    done = 0
    while done < len(buffer):
        chunk = file.read(min(1 << 22, len(buffer) - done))
        if not chunk:
            break
        buffer[done : done + len(chunk)] = chunk
        done += len(chunk)
    return done


def _scaled(array: NDArray, header: np.void) -> NDArray:
    """Stored numbers × slope + intercept, where the header has any (slope 0 means none)."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if not math.isfinite(slope) or not math.isfinite(intercept) or slope == 0 or (slope, intercept) == (1, 0):
        return array
    real = array.astype(np.result_type(array.dtype, np.float32))
    real *= slope
    real += intercept
    return real


def _affine(header: np.void) -> NDArray[np.float64]:
    """4×4 to RAS mm: matrix and unit by the rules of SimpleITK, so that Slicer shows the same place."""
    affine = _stored_affine(header)
    affine[:3] *= _UNIT_MM.get(int(header["xyzt_units"]) & _SPACE_UNIT_BITS, 1.0)
    return affine


def _stored_affine(header: np.void) -> NDArray[np.float64]:
    """The sform or the qform, in the unit of the header."""
    affine = np.eye(4)
    if header["sform_code"] == _SCANNER_POSITION or (header["sform_code"] > 0 and header["qform_code"] <= 0):
        affine[:3] = header["srow"]
        return affine
    spacing = np.abs(header["pixdim"][1:4].astype(np.float64))
    spacing[spacing == 0] = 1.0
    if header["qform_code"] <= 0:
        affine[:3, :3] = np.diag(spacing * [-1, -1, 1])
        return affine
    flip = -1.0 if header["pixdim"][0] < 0 else 1.0
    affine[:3, :3] = _rotation(header["quatern"].astype(np.float64)) * spacing * [1, 1, flip]
    affine[:3, 3] = header["qoffset"]
    return affine


def _rotation(quaternion: NDArray) -> NDArray:
    """Rotation matrix of the unit quaternion whose last parts are (b, c, d); NaN if they are not finite."""
    from scipy.spatial.transform import Rotation

    length = float(np.linalg.norm(quaternion))
    if not math.isfinite(length):
        return np.full((3, 3), np.nan)
    real = math.sqrt(max(0.0, 1.0 - length**2))
    return Rotation.from_quat([*quaternion, real]).as_matrix()


def _quaternion(rotation: NDArray) -> NDArray:
    """(b, c, d) of the unit quaternion with a ≥ 0 nearest to a rotation matrix."""
    from scipy.spatial.transform import Rotation

    b, c, d, a = Rotation.from_matrix(rotation).as_quat()
    return np.array([b, c, d]) * (-1.0 if a < 0 else 1.0)


def _header_of(volume: Volume, dtype: np.dtype) -> np.ndarray:
    header = np.zeros((), _dtype(_NIFTI1, 348, "<"))
    axes = volume.affine[:3, :3] / volume.spacing
    # A mirrored grid is a rotation times a flip of the third axis, which pixdim[0] carries.
    flip = -1.0 if np.linalg.det(axes) < 0 else 1.0
    header["sizeof_hdr"] = 348
    header["dim"] = [3, *volume.shape, 1, 1, 1, 1]
    header["datatype"] = _CODES[dtype.str[1:]]
    header["bitpix"] = dtype.itemsize * 8
    header["pixdim"] = [flip, *volume.spacing, 1, 1, 1, 1]
    header["vox_offset"] = 352
    header["scl_slope"] = 1
    header["xyzt_units"] = _MILLIMETRES
    header["qform_code"] = header["sform_code"] = _SCANNER_POSITION
    header["quatern"] = _quaternion(axes @ np.diag([1, 1, flip]))
    header["qoffset"] = volume.affine[:3, 3]
    header["srow"] = volume.affine[:3]
    header["magic"] = b"n+1"
    return header
