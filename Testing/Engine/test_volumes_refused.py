"""Files and volumes that are refused, each with its sentence, and writing that fails."""

from __future__ import annotations

import gzip
import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from progidiff.errors import OutputError, VolumeError
from progidiff.output_folder import check_output
from progidiff.volumes import (
    Volume,
    check_volume,
    read_volume,
    write_volume,
)
from volume_samples import ENDINGS, mha, patch, scan, written


def truncated(path: Path, share: float = 0.5) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def text_file(path: Path) -> Path:
    path.write_bytes(b"this is not an image\n" * 30)
    return path


def empty_file(path: Path) -> Path:
    path.touch()
    return path


def colour_nrrd(folder: Path) -> Path:
    import SimpleITK as sitk

    path = folder / "colour.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 3), np.uint8), isVector=True), str(path))
    return path


def broken_voxel(value: float) -> Volume:
    volume = scan("f4")
    volume.array[2, 3, 4] = value
    return volume


def by_qform(folder: Path) -> Path:
    """A NIfTI file that is placed by its quaternion alone."""
    return patch(written(folder), 254, 0, "<i2")


IDENTITY = "TransformMatrix = 1 0 0 0 1 0 0 0 1\nElementSpacing = "
BAD_FILES = {
    "missing": (lambda t: t / "nowhere.nii.gz", "does not exist"),
    "empty file": (lambda t: empty_file(t / "a.nii"), "is empty"),
    "text as nii": (lambda t: text_file(t / "a.nii"), "not a readable NIfTI"),
    "text as nii.gz": (lambda t: text_file(t / "a.nii.gz"), "not a readable NIfTI"),
    "text as nrrd": (lambda t: text_file(t / "a.nrrd"), "cannot be read"),
    "text as dcm": (lambda t: text_file(t / "a.dcm"), "not a 3D scan"),
    "word document": (lambda t: text_file(t / "a.docx"), "not supported"),
    "picture": (lambda t: text_file(t / "a.png"), "2D picture"),
    "no extension": (lambda t: text_file(t / "scan"), "not supported"),
    "truncated nii": (lambda t: truncated(written(t)), "truncated"),
    "truncated nii.gz": (lambda t: truncated(written(t, ending=".nii.gz"), 0.7), "damaged"),
    "nii.gz one byte short": (lambda t: truncated(written(t, ending=".nii.gz"), 0.999), "damaged"),
    "truncated within the header": (lambda t: truncated(written(t), 0.2), "not a readable NIfTI"),
    "truncated nrrd": (lambda t: truncated(written(t, ending=".nrrd"), 0.8), "damaged"),
    "truncated mha": (lambda t: mha(t / "a.mha", IDENTITY + "1 1 2", voxels=10), "damaged"),
    "truncated compressed mha": (lambda t: truncated(written(t, ending=".mha"), 0.9), "damaged"),
    "absurd size": (lambda t: patch(written(t), 40, [3, 32767, 32767, 32767], "<i2"), "memory|truncated"),
    "colour nii": (lambda t: patch(written(t), 70, 128, "<i2"), "colour"),
    "complex nii": (lambda t: patch(written(t), 70, 32, "<i2"), "complex"),
    "unknown voxel type": (lambda t: patch(written(t), 70, 9999, "<i2"), "9999"),
    "empty volume": (lambda t: patch(written(t), 40, [3, 5, 0, 7], "<i2"), "no voxels"),
    "colour": (colour_nrrd, "colour"),
    "vectors": (lambda t: mha(t / "a.mha", IDENTITY + "1 1 2", channels=3), "colour"),
    "4D": (lambda t: patch(written(t), 40, [4, 5, 6, 1, 7, 1, 1, 1], "<i2"), "4 dimensions"),
    "NaN": (lambda t: written(t, broken_voxel(np.nan), ".nii.gz"), "1 voxels that are NaN"),
    "infinity": (lambda t: written(t, broken_voxel(np.inf), ".nrrd"), "1 voxels that are NaN or inf"),
    "constant": (lambda t: written(t, Volume(np.full((4, 4, 4), 7), np.eye(4))), "same value 7"),
    "zero spacing nii": (lambda t: patch(written(t), 80, 0, "<f4"), "spacing"),
    "negative spacing nii": (lambda t: patch(written(t), 84, -1, "<f4"), "spacing"),
    "NaN spacing nii": (lambda t: patch(written(t), 88, np.nan, "<f4"), "spacing"),
    "zero spacing mha": (lambda t: mha(t / "a.mha", IDENTITY + "1 0 2"), "spacing"),
    "negative spacing mha": (lambda t: mha(t / "a.mha", IDENTITY + "1 -1 2"), "spacing"),
    "NaN spacing mha": (lambda t: mha(t / "a.mha", IDENTITY + "1 nan 2"), "spacing"),
    "sheared nii": (
        lambda t: patch(written(t), 280, np.eye(4)[:3] + 0.2 * np.eye(4)[[1, 3, 3]], "<f4"),
        "off right angles",
    ),
    "sheared mha": (
        lambda t: mha(t / "a.mha", "TransformMatrix = 1 0 0 0.3 1 0 0 0 1\nElementSpacing = 1 1 2"),
        "off right angles",
    ),
    "singular nii": (lambda t: patch(written(t), 280, np.ones((3, 4)), "<f4"), "singular"),
    "singular mha": (
        lambda t: mha(t / "a.mha", "TransformMatrix = 1 0 0 0 1 0 0 0 0\nElementSpacing = 1 1 2"),
        "singular",
    ),
    "NaN in the matrix": (lambda t: patch(written(t), 280, np.nan, "<f4"), "finite"),
    "voxels at NaN": (lambda t: patch(written(t), 108, np.nan, "<f4"), "begin at byte nan"),
    "voxels at infinity": (lambda t: patch(written(t), 108, np.inf, "<f4"), "begin at byte inf"),
    "voxels far away": (lambda t: patch(written(t), 108, 1e30, "<f4"), "begin at byte 1e.30"),
    "voxels before the file": (lambda t: patch(written(t), 108, -1, "<f4"), "begin at byte -1"),
    "voxels in the header": (lambda t: patch(written(t), 108, 0, "<f4"), "begin at byte 0"),
    "voxels behind the end": (lambda t: patch(written(t), 108, 1e9, "<f4"), "truncated: 0 of"),
    "NaN quaternion": (lambda t: patch(by_qform(t), 256, np.nan, "<f4"), "finite"),
    "infinite quaternion": (lambda t: patch(by_qform(t), 260, np.inf, "<f4"), "finite"),
    "NaN origin": (lambda t: patch(by_qform(t), 268, np.nan, "<f4"), "finite"),
    "folder without DICOM": (lambda t: t, "holds no DICOM series"),
}


@pytest.mark.parametrize("what", BAD_FILES)
def test_bad_files_are_refused_in_a_sentence(tmp_path, what, capfd):
    make, sentence = BAD_FILES[what]
    path = make(tmp_path)
    with pytest.raises(VolumeError, match=sentence) as caught:
        read_volume(path)
    assert caught.value.remedy.endswith(".")
    assert caught.value.message.endswith(".")
    assert "\n" not in str(caught.value)
    # SimpleITK's own complaints stay out of the user's terminal.
    assert capfd.readouterr() == ("", "")


def test_damage_inside_a_compressed_file_is_noticed(tmp_path):
    path = written(tmp_path, ending=".nii.gz")
    content = bytearray(gzip.decompress(path.read_bytes()))
    stored = bytearray(gzip.compress(bytes(content), compresslevel=0, mtime=0))
    stored[-50] ^= 0xFF
    path.write_bytes(stored)
    with pytest.raises(VolumeError, match="damaged"):
        read_volume(path)


@pytest.mark.parametrize(
    ("array", "affine", "sentence"),
    [
        (np.zeros((3, 3)), np.eye(4), "2 dimensions"),
        (np.zeros((0, 3, 3)), np.eye(4), "no voxels"),
        (np.zeros((3, 3, 3), complex), np.eye(4), "complex"),
        (np.zeros((3, 3, 3)), np.eye(4), "same value"),
        (np.arange(8.0).reshape(2, 2, 2), np.eye(3), "4×4"),
        (np.arange(8.0).reshape(2, 2, 2), np.diag([1, 0, 1, 1]), "spacing"),
        (np.arange(8.0).reshape(2, 2, 2), np.eye(4)[[0, 0, 2, 3]], "zero|singular"),
        (np.array([1, 2, np.inf, 3]).reshape(2, 2, 1), np.eye(4), "infinite"),
    ],
)
def test_volumes_from_elsewhere_are_checked_alike(array, affine, sentence):
    with pytest.raises(VolumeError, match=sentence):
        check_volume(Volume(array, affine))


def test_good_volumes_pass_the_check():
    volume = scan()
    assert check_volume(volume) is volume
    check_volume(Volume(np.zeros((2, 2, 2)), np.eye(4)), allow_constant=True)


@pytest.mark.parametrize("ending", [".png", ".docx", ""])
def test_unknown_output_formats_are_refused(tmp_path, ending):
    with pytest.raises(OutputError, match="extension"):
        write_volume(scan(), tmp_path / f"case{ending}")


def test_output_into_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        write_volume(scan(), tmp_path / "nowhere" / "case.nii.gz")
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        write_volume(scan(), tmp_path / "folder.nii")


def test_names_that_are_too_long_are_output_errors(tmp_path):
    long = tmp_path / ("x" * 300)
    with pytest.raises(OutputError, match="does not exist"):
        write_volume(scan(), long / "case.nii.gz")
    check_output(long)  # what it cannot know, writing says


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_output_into_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be written"):
        write_volume(scan(), tmp_path / "case.nii.gz")


@pytest.mark.skipif(importlib.util.find_spec("resource") is None, reason="needs POSIX file size limits")
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("missing", [2, 40, 1000])
def test_a_disk_that_fills_up_leaves_the_old_file_and_nothing_else(tmp_path, ending, missing):
    import resource

    noise = Volume(np.random.default_rng(0).random((12, 12, 12)), np.eye(4))
    path = written(tmp_path, noise, ending)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) - missing, hard))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            write_volume(noise, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_interrupted_write_leaves_nothing(tmp_path, ending, monkeypatch):
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        written(tmp_path, ending=ending)
    assert list(tmp_path.iterdir()) == []
