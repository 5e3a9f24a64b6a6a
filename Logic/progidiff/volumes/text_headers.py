"""Writing NRRD and MetaImage: a short text header, then the compressed voxels.

Written here because SimpleITK says nothing when the disk fills up during the last few bytes. Formats:
https://teem.sourceforge.net/nrrd/format.html and https://itk.org/Wiki/MetaIO/Documentation.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable
from pathlib import Path

from progidiff.volumes.conversion import LPS_RAS, storable
from progidiff.volumes.nifti import file_bytes
from progidiff.volumes.volume import Volume

_LEVEL = 4
_NRRD_TYPES = {
    "i1": "int8",
    "u1": "uint8",
    "i2": "int16",
    "u2": "uint16",
    "i4": "int32",
    "u4": "uint32",
    "i8": "int64",
    "u8": "uint64",
    "f4": "float",
    "f8": "double",
}
_MHA_TYPES = {
    "i1": "MET_CHAR",
    "u1": "MET_UCHAR",
    "i2": "MET_SHORT",
    "u2": "MET_USHORT",
    "i4": "MET_INT",
    "u4": "MET_UINT",
    "i8": "MET_LONG_LONG",
    "u8": "MET_ULONG_LONG",
    "f4": "MET_FLOAT",
    "f8": "MET_DOUBLE",
}


def write_nrrd(volume: Volume, path: Path) -> None:
    """Write a gzip-compressed .nrrd in LPS space; not atomic, see `write_volume`.

    Raises:
        OSError: the file cannot be written.
    """
    array = storable(volume.array)
    lps = LPS_RAS @ volume.affine[:3]
    header = [
        "NRRD0004",
        f"type: {_NRRD_TYPES[array.dtype.str[1:]]}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {_words(volume.shape)}",
        f"space directions: {' '.join(_vector(lps[:, axis]) for axis in range(3))}",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(lps[:, 3])}",
    ]
    with path.open("wb") as raw:
        raw.write("\n".join(header).encode() + b"\n\n")
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=_LEVEL, mtime=0) as file:
            file.write(file_bytes(array))


def write_mha(volume: Volume, path: Path) -> None:
    """Write a zlib-compressed .mha; not atomic, see `write_volume`.

    Raises:
        OSError: the file cannot be written.
    """
    array = storable(volume.array)
    lps = LPS_RAS @ volume.affine[:3]
    directions = lps[:, :3] / volume.spacing
    voxels = zlib.compress(file_bytes(array), _LEVEL)
    header = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
        f"CompressedDataSize = {len(voxels)}",
        f"TransformMatrix = {_words(directions.T.ravel())}",
        f"Offset = {_words(lps[:, 3])}",
        "CenterOfRotation = 0 0 0",
        f"ElementSpacing = {_words(volume.spacing)}",
        f"DimSize = {_words(volume.shape)}",
        f"ElementType = {_MHA_TYPES[array.dtype.str[1:]]}",
        "ElementDataFile = LOCAL",
    ]
    path.write_bytes("\n".join(header).encode() + b"\n" + voxels)


def _words(numbers: Iterable[float]) -> str:
    return " ".join(f"{number:.17g}" for number in numbers)


def _vector(numbers: Iterable[float]) -> str:
    return f"({','.join(f'{number:.17g}' for number in numbers)})"
