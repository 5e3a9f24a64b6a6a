"""A folder of DICOM slices as one volume."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from progidiff.errors import VolumeError
from progidiff.paths import printable
from progidiff.volumes.conversion import simpleitk

MODALITY_TAG = "0008|0060"
_DESCRIPTION_TAG = "0008|103e"
_POSITION_TAG = "0020|0032"
_ORIENTATION_TAG = "0020|0037"
_FRAMES_TAG = "0028|0008"
# Slices may be off their regular place by this share of the slice distance (tables move in steps).
_UNEVEN = 0.25
# Sideways drift per slice distance above which the gantry counts as tilted (0.6°).
_TILT = 0.01


def is_dicom(path: Path) -> bool:
    """Whether a file starts like DICOM: 128 free bytes, then DICM."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_largest_series(folder: Path) -> tuple[Any, str, dict[str, str]]:
    """The series with most slices below a folder.

    Returns:
        SimpleITK image, DICOM modality such as "CT" (empty if not told), and metadata that says which
        of how many series was taken.

    Raises:
        VolumeError: no DICOM series, several frames in a file, slices missing, doubled, without a place
            or sheared (gantry tilt).
    """
    sitk = simpleitk()
    series = list(_find_series(folder))
    if not series:
        raise VolumeError(
            f"The folder “{folder.name}” holds no DICOM series.",
            "Choose a folder with the .dcm files of one scan, or a NIfTI, NRRD or MHA file.",
        )
    uid, files = max(series, key=lambda item: _slice_count(item[1]))
    headers = [_header(file) for file in files]
    for file, header in zip(files, headers, strict=True):
        refuse_frames(_frames(header), printable(Path(file).name))
    _check_slices(headers, printable(folder.name))
    image = sitk.ReadImage(list(files))
    metadata = {"format": "DICOM", "series": uid}
    description = printable(headers[0].get(_DESCRIPTION_TAG, "").strip())
    if description:
        metadata["description"] = description
    if len(series) > 1:
        which = f"“{description}” with {len(files)} slices" if description else f"{len(files)} slices"
        metadata["note"] = f"The folder holds {len(series)} series; the largest, {which}, was taken."
    return image, headers[0].get(MODALITY_TAG, "").strip(), metadata


def _find_series(folder: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(series id, files sorted by position) of a folder and the folders below it."""
    reader = simpleitk().ImageSeriesReader
    for place in [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]:
        for uid in reader.GetGDCMSeriesIDs(str(place)):
            yield uid, reader.GetGDCMSeriesFileNames(str(place), uid)


def _header(file: str) -> dict[str, str]:
    reader = simpleitk().ImageFileReader()
    reader.SetFileName(file)
    reader.ReadImageInformation()
    tags = (MODALITY_TAG, _DESCRIPTION_TAG, _POSITION_TAG, _ORIENTATION_TAG, _FRAMES_TAG)
    return {tag: reader.GetMetaData(tag) for tag in tags if reader.HasMetaDataKey(tag)}


def _slice_count(files: tuple[str, ...]) -> int:
    """Of a series whose files are alike: one slice each, or several frames."""
    return len(files) * _frames(_header(files[0]))


def _frames(header: dict[str, str]) -> int:
    text = header.get(_FRAMES_TAG, "1").strip()
    return int(text) if text.isdecimal() else 1


def frames_of(image: Any) -> int:
    """How many frames the header of a DICOM image announces."""
    return _frames({_FRAMES_TAG: image.GetMetaData(_FRAMES_TAG)} if image.HasMetaDataKey(_FRAMES_TAG) else {})


def refuse_frames(frames: int, name: str) -> None:
    """Raise VolumeError for a file with several frames (enhanced CT or MR).

    Where each frame lies stands in nested sequences that SimpleITK does not show: missing, unordered or
    doubled frames would go unnoticed and give a wrong geometry.
    """
    if frames > 1:
        raise VolumeError(
            f"“{name}” is a multi-frame DICOM file ({frames} frames), whose geometry cannot be checked.",
            "Load it in 3D Slicer, or convert it to NIfTI, for instance with dcm2niix.",
        )


def _numbers(text: str, count: int, name: str) -> NDArray[np.float64]:
    """The numbers of a tag, (count,), or VolumeError where they are not that many finite numbers."""
    try:
        numbers = np.array([float(part) for part in text.split("\\")])
    except ValueError:
        numbers = np.empty(0)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise VolumeError(
            f"The DICOM series in “{name}” has a slice whose position or orientation cannot be read.",
            "Export the series again from the original archive.",
        )
    return numbers


def _check_slices(headers: list[dict[str, str]], name: str) -> None:
    """Raise VolumeError unless the slices are evenly stacked along their normal."""
    if len(headers) < 2:
        return
    if any(_POSITION_TAG not in h or _ORIENTATION_TAG not in h for h in headers):
        raise VolumeError(
            f"The DICOM series in “{name}” has slices that do not say where they lie.",
            "Export the series again from the original archive.",
        )
    orientation = _numbers(headers[0][_ORIENTATION_TAG], 6, name)
    normal = np.cross(orientation[:3], orientation[3:])
    positions = np.array([_numbers(h[_POSITION_TAG], 3, name) for h in headers])
    along = positions @ normal
    steps = np.diff(along)
    distance = float(np.median(np.abs(steps)))
    if np.diff(np.sort(along)).min() < 1e-3:
        raise VolumeError(
            f"The DICOM series in “{name}” holds several images at the same place (several phases or times).",
            "Choose a folder with a single phase.",
        )
    if (np.abs(np.abs(steps) - distance) > _UNEVEN * distance).any():
        raise VolumeError(
            f"Slices are missing from the DICOM series in “{name}”: their distances differ.",
            "Export the complete series again.",
        )
    path = positions[-1] - positions[0]
    sideways = path - (path @ normal) * normal
    if np.linalg.norm(sideways) > _TILT * np.linalg.norm(path):
        raise VolumeError(
            f"The DICOM series in “{name}” was taken with a tilted gantry: its axes are not at right angles.",
            "Load it in 3D Slicer, which corrects the tilt, and harden that correction first.",
        )
