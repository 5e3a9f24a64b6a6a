"""Reading medical images in the formats people have."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from progidiff.errors import VolumeError
from progidiff.paths import expanded, printable
from progidiff.volumes.check import check_affine, check_extent, check_voxels
from progidiff.volumes.conversion import affine_of, array_from_image, no_chatter, simpleitk
from progidiff.volumes.dicom import MODALITY_TAG, frames_of, is_dicom, read_largest_series, refuse_frames
from progidiff.volumes.nifti import bad_spacing, read_nifti
from progidiff.volumes.volume import Modality, Volume

_NIFTI = (".nii", ".nii.gz")
_ITK = (".nrrd", ".nhdr", ".mha", ".mhd")
_SEGMENTATION = ".seg.nrrd"
_DICOM = (".dcm", ".dicom", ".ima")
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif")
READABLE = (*_NIFTI, *_ITK, *_DICOM)
_SUPPORTED = "Use NIfTI (.nii, .nii.gz), NRRD, MHA/MHD or a folder of DICOM slices."


def read_volume(path: str | os.PathLike[str], *, allow_constant: bool = False) -> Volume:
    """Read a 3D image from a NIfTI, NRRD, MHA/MHD or DICOM file, or from a folder with a DICOM series.

    A 2D grey image in one of these formats becomes a volume of one slice, a 4D one is accepted if it
    has a single time point. Of several series in a folder the one with most slices is read, which
    `metadata["note"]` then says.

    Args:
        path: file or folder.
        allow_constant: accept an image whose voxels are all the same, as an empty label map is.

    Returns:
        Volume with the file's dtype (scaled values are float), affine in RAS mm, the modality if
        DICOM tags tell it, and where it was read from in `metadata["path"]`.

    Raises:
        VolumeError: missing, empty, truncated or unreadable file; unsupported format; colour, 4D or
            empty image; NaN/Inf or constant voxels; bad spacing; singular or sheared matrix; several
            DICOM frames in one file; a field of view of more than three metres.
    """
    path = expanded(path)
    try:
        volume = _read_folder(path) if path.is_dir() else _read_file(path)
    except OSError as error:
        raise VolumeError(
            f"“{path.name}” cannot be read: {error.strerror or error}.", "Check its permissions."
        ) from error
    except MemoryError as error:
        raise VolumeError(
            f"“{path.name}” does not fit into memory, or its header is damaged.",
            "Crop or resample it first, or copy the file again.",
        ) from error
    check_extent(volume.grid, volume.name)
    check_voxels(volume.array, volume.name, allow_constant=allow_constant)
    return replace(volume, metadata={**volume.metadata, "path": printable(path)})


def read_label(path: str | os.PathLike[str]) -> Volume:
    """Read a label map: as `read_volume`, but it may be empty, and its numbers become integers.

    Returns:
        Volume of uint8 where the labels fit, otherwise int32.

    Raises:
        VolumeError: as `read_volume`, voxels that are not whole numbers, or segments that overlap.
    """
    path = Path(path)
    if path.name.lower().endswith(_SEGMENTATION):
        _refuse_layers(path)
    volume = read_volume(path, allow_constant=True)
    whole = np.rint(volume.array)
    if volume.array.dtype.kind == "f" and np.abs(volume.array - whole).max() > 1e-3:
        raise VolumeError(
            f"“{volume.name}” is not a label map: its voxels are not whole numbers.",
            "Choose the file with the segmentation.",
        )
    fits = whole.min() >= 0 and whole.max() <= 255
    return replace(volume, array=whole.astype(np.uint8 if fits else np.int32))


def _refuse_layers(path: Path) -> None:
    """Raise VolumeError for a segmentation of 3D Slicer whose overlapping segments lie in several layers."""
    reader = simpleitk().ImageFileReader()
    reader.SetFileName(str(expanded(path)))
    try:
        with no_chatter():
            reader.ReadImageInformation()
    except RuntimeError:
        return  # whatever is wrong, reading it will say
    if reader.GetNumberOfComponents() > 1:
        raise VolumeError(
            f"The segments in “{path.name}” overlap, so that no voxel has one value.",
            "Use consensus.nii.gz, or export one segment from 3D Slicer as a label map.",
        )


def volume_name(path: Path) -> str:
    """The file's name without its extension, also a double one."""
    name = printable(path.name)
    for suffix in sorted(READABLE, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)] or name
    return name


def _read_folder(path: Path) -> Volume:
    with no_chatter(), _readable_errors(path):
        image, modality, metadata = read_largest_series(path)
    return _as_volume(image, printable(path.name), modality, metadata)


def _read_file(path: Path) -> Volume:
    if not path.exists():
        raise VolumeError(f"The file “{path}” does not exist.", "Check the path.")
    if path.stat().st_size == 0:
        raise VolumeError(f"The file “{path.name}” is empty.", "Copy or export it again.")
    kind = next((suffix for suffix in READABLE if path.name.lower().endswith(suffix)), "")
    if kind in _NIFTI:
        array, affine = read_nifti(path)
        check_affine(affine, path.name)
        return Volume(array, affine, "unknown", volume_name(path), {"format": "NIfTI"})
    if kind in _ITK:
        _check_written_spacing(path)
    elif not is_dicom(path):
        what = "a 2D picture" if path.suffix.lower() in _PICTURES else "of a kind that is not supported"
        raise VolumeError(f"“{path.name}” is {what}, not a 3D scan.", _SUPPORTED)
    with no_chatter(), _readable_errors(path):
        image = simpleitk().ReadImage(str(path))
    if kind in _DICOM or kind == "":
        refuse_frames(frames_of(image), path.name)
    modality = image.GetMetaData(MODALITY_TAG).strip() if image.HasMetaDataKey(MODALITY_TAG) else ""
    return _as_volume(image, volume_name(path), modality, {"format": path.suffix.lstrip(".").lower()})


def _as_volume(image: Any, name: str, modality: str, metadata: dict[str, str]) -> Volume:
    """A SimpleITK image of any dimension as a volume, or VolumeError if it is not one grey 3D image."""
    sitk = simpleitk()
    components = image.GetNumberOfComponentsPerPixel()
    if components != 1:
        raise VolumeError(
            f"“{name}” is a colour or vector image with {components} values a voxel.",
            "Choose a grey CT or MR image.",
        )
    size = image.GetSize()
    if any(n > 1 for n in size[3:]):
        raise VolumeError(
            f"“{name}” has {len(size)} dimensions ({' × '.join(map(str, size))}).",
            "Choose or export a single 3D time point.",
        )
    while image.GetDimension() > 3:
        image = sitk.Extract(image, [*image.GetSize()[:-1], 0])
    if image.GetDimension() == 2:
        image = sitk.JoinSeries([image])
    if "complex" in image.GetPixelIDTypeAsString():
        raise VolumeError(f"The voxels of “{name}” are complex numbers.", "Choose the magnitude image.")
    affine = affine_of(image)
    check_affine(affine, name)
    known: Modality = "CT" if modality == "CT" else "MR" if modality == "MR" else "unknown"
    if modality:
        metadata["modality"] = modality
    return Volume(array_from_image(image), affine, known, name, metadata)


def _check_written_spacing(path: Path) -> None:
    """Raise VolumeError for a bad spacing in a text header, which SimpleITK would quietly turn around."""
    with path.open("rb") as file:
        lines = file.read(8192).split(b"\n")
    for line in lines:
        key, separator, value = line.decode("ascii", "replace").replace("=", ":").partition(":")
        if key.strip().lower() in ("elementdatafile", ""):
            return
        if separator and key.strip().lower() in ("elementspacing", "elementsize", "spacings"):
            try:
                steps = [float(word) for word in value.split()]
            except ValueError:
                raise bad_spacing(path.name) from None
            if any(not math.isfinite(step) or step <= 0 for step in steps):
                raise bad_spacing(path.name)


@contextmanager
def _readable_errors(path: Path) -> Iterator[None]:
    """Turn SimpleITK's exceptions into VolumeErrors that a user can act on."""
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        if "spacing" in text:
            raise bad_spacing(path.name) from error
        if "direction" in text or "orthonormal" in text:
            raise VolumeError(
                f"The position matrix of “{path.name}” is singular or sheared.",
                "Repair the header, or export the scan again from the original DICOM files.",
            ) from error
        raise VolumeError(
            f"“{path.name}” cannot be read: it is damaged, incomplete or not the kind its name says.",
            "Copy or export the file again.",
        ) from error
