"""Folders of DICOM slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from progidiff.errors import VolumeError
from progidiff.volumes import read_volume

sitk = pytest.importorskip("SimpleITK")

SIZE = (6, 5)
SPACING = (0.8, 1.2)
ANGLE = 0.2
# The direction of rows and columns of a scan whose patient was turned about the long axis, in LPS.
TURNED = np.array([[np.cos(ANGLE), np.sin(ANGLE), 0], [-np.sin(ANGLE), np.cos(ANGLE), 0], [0, 0, 1]])


def write_slices(
    folder: Path, positions: list[np.ndarray], series: int = 1, modality: str = "CT", directions=TURNED
) -> np.ndarray:
    """One DICOM file for each position (LPS mm); returns the values as (I, J, K)."""
    folder.mkdir(parents=True, exist_ok=True)
    values = (
        np.random.default_rng(series).integers(-1000, 1000, (len(positions), *SIZE[::-1])).astype(np.int16)
    )
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number, (picture, position) in enumerate(zip(values, positions, strict=True)):
        image = sitk.GetImageFromArray(picture[None])
        image.SetSpacing((*SPACING, 3.0))
        tags = {
            "0008|0060": modality,
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"1.2.3.{series}.{number + 1}",
            "0008|103e": f"series {series}",
            "0020|000d": "1.2.3",
            "0020|000e": f"1.2.3.{series}",
            "0020|0013": str(number + 1),
            "0020|0032": "\\".join(f"{x:.6f}" for x in position),
            "0020|0037": "\\".join(f"{x:.9f}" for x in directions[:2].ravel()),
            "0028|1052": "0",
            "0028|1053": "1",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        # Names in the opposite order of the positions: only the headers tell how slices are stacked.
        writer.SetFileName(str(folder / f"slice_{series}_{99 - number}.dcm"))
        writer.Execute(image)
    return values.transpose(2, 1, 0)


def stack(count: int, step=(0, 0, 2.5)) -> list[np.ndarray]:
    return [np.array([10.0, -20.0, 30.0]) + n * np.array(step) for n in range(count)]


def test_a_series_becomes_a_volume_in_its_place(tmp_path):
    values = write_slices(tmp_path, stack(4))
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, values)
    assert volume.modality == "CT"
    np.testing.assert_allclose(volume.spacing, [0.8, 1.2, 2.5], atol=1e-5)
    lps = np.array([10.0, -20.0, 30.0]) + TURNED[0] * 0.8 * 2 + TURNED[1] * 1.2 * 3 + [0, 0, 2.5]
    np.testing.assert_allclose((volume.affine @ [2, 3, 1, 1])[:3], lps * [-1, -1, 1], atol=1e-4)
    assert "note" not in volume.metadata


def test_the_largest_of_several_series_is_taken_and_said(tmp_path):
    write_slices(tmp_path / "b", stack(2), series=1)
    values = write_slices(tmp_path / "a", stack(5), series=2, modality="MR")
    write_slices(tmp_path / "a", stack(3), series=3)
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, values)
    assert volume.modality == "MR"
    assert "3 series" in volume.metadata["note"]
    assert "“series 2” with 5 slices" in volume.metadata["note"]
    assert volume.metadata["series"] == "1.2.3.2"
    assert volume.metadata["description"] == "series 2"


def test_a_single_dicom_file_is_one_slice(tmp_path):
    values = write_slices(tmp_path, stack(1))
    path = next(tmp_path.iterdir())
    without_ending = path.rename(tmp_path / "IM00001")
    for where in (without_ending, tmp_path):
        volume = read_volume(where)
        np.testing.assert_array_equal(volume.array, values)
        assert volume.modality == "CT"


def test_other_modalities_are_named_but_not_claimed(tmp_path):
    write_slices(tmp_path, stack(3), modality="PT")
    volume = read_volume(tmp_path)
    assert volume.modality == "unknown"
    assert volume.metadata["modality"] == "PT"


def test_a_missing_slice_is_noticed(tmp_path):
    write_slices(tmp_path, [p for n, p in enumerate(stack(6)) if n != 2])
    with pytest.raises(VolumeError, match="missing"):
        read_volume(tmp_path)


def test_two_phases_in_one_series_are_noticed(tmp_path):
    write_slices(tmp_path, stack(3) + stack(3))
    with pytest.raises(VolumeError, match="same place"):
        read_volume(tmp_path)


def test_a_tilted_gantry_is_noticed(tmp_path):
    write_slices(tmp_path, stack(5, step=(0, 0.6, 2.5)), directions=np.eye(3))
    with pytest.raises(VolumeError, match="tilted"):
        read_volume(tmp_path)


def rewrite(path: Path, tag: bytes, text: str) -> None:
    """Another value for a tag of a file with implicit value types."""
    content = path.read_bytes()
    start = content.index(tag) + len(tag)
    size = int.from_bytes(content[start : start + 4], "little")
    value = text.encode("utf-8", "surrogateescape") + b" " * (len(text) % 2)
    path.write_bytes(content[:start] + len(value).to_bytes(4, "little") + value + content[start + 4 + size :])


POSITION, ORIENTATION = b"\x20\x00\x32\x00", b"\x20\x00\x37\x00"
DESCRIPTION = b"\x08\x00\x3e\x10"


def remove(path: Path, tag: bytes) -> None:
    """Takes a tag out of a file with implicit value types."""
    content = path.read_bytes()
    start = content.index(tag)
    size = int.from_bytes(content[start + 4 : start + 8], "little")
    path.write_bytes(content[:start] + content[start + 8 + size :])


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("tag", [POSITION, ORIENTATION])
@pytest.mark.parametrize("text", ["", "left\\right", "1\\2", "1e400\\0\\0", "nan\\0\\0\\0\\1\\0"])
def test_a_place_that_cannot_be_read_is_said(tmp_path, tag, text, slices):
    write_slices(tmp_path, stack(3))
    for path in sorted(tmp_path.iterdir(), reverse=True)[:slices]:  # the first slice has the last name
        rewrite(path, tag, text)
    with pytest.raises(VolumeError, match="cannot be read") as caught:
        read_volume(tmp_path)
    assert caught.value.remedy


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("tag", [POSITION, ORIENTATION])
def test_a_slice_that_does_not_say_where_it_lies_is_refused(tmp_path, tag, slices):
    write_slices(tmp_path, stack(3))
    for path in sorted(tmp_path.iterdir())[:slices]:
        remove(path, tag)
    with pytest.raises(VolumeError, match=r"do not say where they lie|missing|same place"):
        read_volume(tmp_path)


def write_frames(path: Path, count: int = 5) -> None:
    image = sitk.GetImageFromArray(np.arange(count * 30, dtype=np.uint16).reshape(count, 5, 6))
    sitk.WriteImage(image, str(path))


def test_several_frames_in_a_file_are_refused_alone_and_in_a_folder(tmp_path):
    write_frames(tmp_path / "enhanced.dcm")
    for where in (tmp_path / "enhanced.dcm", tmp_path):
        with pytest.raises(VolumeError, match=r"multi-frame DICOM file \(5 frames\)") as caught:
            read_volume(where)
        assert "dcm2niix" in caught.value.remedy


def test_frames_count_as_slices_when_the_largest_series_is_chosen(tmp_path):
    """A localiser of three images is not what somebody means who has an enhanced scan beside it."""
    write_frames(tmp_path / "enhanced.dcm")
    write_slices(tmp_path / "localiser", stack(3))
    with pytest.raises(VolumeError, match="multi-frame"):
        read_volume(tmp_path)


def test_a_description_in_latin_1_can_be_written_on(tmp_path):
    write_slices(tmp_path, stack(3))
    for path in tmp_path.iterdir():
        rewrite(path, DESCRIPTION, "Sp\udce4tphase")
    assert read_volume(tmp_path).metadata["description"] == "Spätphase"


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing to see")
    (tmp_path / "sub").mkdir()
    with pytest.raises(VolumeError, match="no DICOM series"):
        read_volume(tmp_path)
