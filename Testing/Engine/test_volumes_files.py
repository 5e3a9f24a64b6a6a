"""Reading and writing: what comes back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from progidiff.errors import VolumeError
from progidiff.paths import printable
from progidiff.volumes import (
    Volume,
    check_volume,
    from_sitk,
    nifti,
    read_label,
    read_volume,
    to_sitk,
)
from progidiff.volumes.nifti import read_nifti
from volume_samples import ENDINGS, MIRRORED, OBLIQUE, SIDEWAYS, patch, scan, written


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("affine", [OBLIQUE, MIRRORED, SIDEWAYS], ids=["oblique", "mirrored", "sideways"])
def test_what_is_written_comes_back(tmp_path, ending, affine):
    volume = scan(affine=affine)
    back = read_volume(written(tmp_path, volume, ending))
    np.testing.assert_array_equal(back.array, volume.array)
    np.testing.assert_allclose(back.affine, affine, atol=1e-4)
    assert back.name == "case"


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("dtype", ["bool", "u1", "i1", "i2", ">i2", "u2", "i4", "u4", "f4", "f8", "f2"])
def test_dtypes_are_kept(tmp_path, ending, dtype):
    volume = scan()
    volume = Volume((volume.array % 2).astype(dtype), volume.affine)
    back = read_volume(written(tmp_path, volume, ending))
    expected = {"bool": "u1", "f2": "f4", ">i2": "i2"}.get(dtype, dtype)
    assert back.array.dtype == np.dtype(expected)
    np.testing.assert_array_equal(back.array, volume.array)


@pytest.mark.parametrize("shape", [(1, 6, 7), (5, 1, 7), (5, 6, 1)])
@pytest.mark.parametrize("ending", ENDINGS)
def test_single_slices_along_any_axis(tmp_path, shape, ending):
    volume = scan(shape=shape)
    back = read_volume(written(tmp_path, volume, ending))
    assert back.shape == shape
    np.testing.assert_allclose(back.affine, OBLIQUE, atol=1e-4)


def test_memory_layout_does_not_matter(tmp_path):
    c_order = scan()
    fortran = Volume(np.asfortranarray(c_order.array), c_order.affine)
    assert written(tmp_path, c_order).read_bytes() == written(tmp_path, fortran).read_bytes()


def test_the_same_volume_gives_the_same_compressed_bytes(tmp_path):
    first = written(tmp_path, ending=".nii.gz").read_bytes()
    assert written(tmp_path, ending=".nii.gz").read_bytes() == first


def test_nifti_agrees_with_simpleitk_on_where_a_voxel_is(tmp_path):
    """The header is our own work, so another reader has to find the same place, from either matrix."""
    sitk = pytest.importorskip("SimpleITK")
    for affine in (OBLIQUE, MIRRORED, SIDEWAYS):
        path = written(tmp_path, scan(affine=affine))
        expected = affine @ [4, 2, 6, 1] * [-1, -1, 1, 1]
        for sform_code in (1, 0):
            patch(path, 254, sform_code, "<i2")
            point = sitk.ReadImage(str(path)).TransformIndexToPhysicalPoint((4, 2, 6))
            np.testing.assert_allclose(point, expected[:3], atol=1e-3)


def test_simpleitk_images_and_back():
    volume = scan()
    image = to_sitk(volume)
    assert image.GetSize() == (5, 6, 7)
    np.testing.assert_allclose(image.GetSpacing(), [1.5, 2, 3])
    np.testing.assert_allclose(
        image.TransformIndexToPhysicalPoint((1, 2, 3)), (OBLIQUE @ [1, 2, 3, 1] * [-1, -1, 1, 1])[:3]
    )
    back = from_sitk(image, "copy", "CT")
    np.testing.assert_array_equal(back.array, volume.array)
    np.testing.assert_allclose(back.affine, OBLIQUE, atol=1e-12)
    assert (back.name, back.modality) == ("copy", "CT")


def in_layout(path: Path, fields: nifti.Fields, size: int, byte_order: Literal["<", ">"], **others) -> Path:
    """The NIfTI file of `scan` in another version or byte order, with other values of some fields."""
    ours = np.frombuffer(path.read_bytes(), nifti._dtype(nifti._NIFTI1, 348, "<"), 1)[0]
    theirs = np.zeros((), nifti._dtype(fields, size, byte_order))
    for name in set(fields) & set(nifti._NIFTI1):
        theirs[name] = ours[name]
    theirs["sizeof_hdr"], theirs["vox_offset"] = size, size + 4
    for name, value in others.items():
        theirs[name] = value
    voxels = scan().array.astype(f"{byte_order}i2").tobytes(order="F")
    path.write_bytes(theirs.tobytes() + bytes(4) + voxels)
    return path


def nifti_2(path: Path, **others) -> Path:
    return in_layout(path, nifti._NIFTI2, 540, "<", **others)


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize(("fields", "size"), [(nifti._NIFTI1, 348), (nifti._NIFTI2, 540)])
def test_both_nifti_versions_and_byte_orders_are_read(tmp_path, byte_order, fields, size):
    back = read_volume(in_layout(written(tmp_path), fields, size, byte_order))
    assert back.array.dtype == np.dtype("i2")
    np.testing.assert_array_equal(back.array, scan().array)
    np.testing.assert_allclose(back.affine, OBLIQUE, atol=1e-4)


@pytest.mark.parametrize("sform_code", [0, 1, 2])
@pytest.mark.parametrize("qform_code", [0, 1, 2])
def test_of_two_nifti_matrices_the_one_that_slicer_takes_counts(tmp_path, sform_code, qform_code):
    sitk = pytest.importorskip("SimpleITK")
    elsewhere = OBLIQUE[:3] + np.eye(4)[:3, [3, 3, 3, 0]] * 50
    path = patch(patch(written(tmp_path), 280, elsewhere, "<f4"), 252, [qform_code, sform_code], "<i2")
    image = sitk.ReadImage(str(path))
    point = np.array(image.TransformIndexToPhysicalPoint((1, 2, 3))) * [-1, -1, 1]
    np.testing.assert_allclose((read_volume(path).affine @ [1, 2, 3, 1])[:3], point, atol=1e-3)


@pytest.mark.parametrize("codes", [(0, 1), (1, 0), (0, 0), (2, 2)], ids=["sform", "qform", "none", "both"])
@pytest.mark.parametrize("units", [0, 1, 2, 3, 4, 8, 9, 10, 11, 7])
def test_metres_and_micrometres_are_what_simpleitk_takes_them_for(tmp_path, units, codes):
    """Units of space are the lowest three bits: 0 unknown, 1 m, 2 mm, 3 µm; 8 adds seconds."""
    sitk = pytest.importorskip("SimpleITK")
    path = patch(patch(written(tmp_path), 123, units, "u1"), 252, codes, "<i2")
    image, (_, affine) = sitk.ReadImage(str(path)), read_nifti(path)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    np.testing.assert_allclose(spacing, image.GetSpacing(), rtol=1e-5)
    point = np.array(image.TransformIndexToPhysicalPoint((4, 2, 6))) * [-1, -1, 1]
    np.testing.assert_allclose((affine @ [4, 2, 6, 1])[:3], point, rtol=1e-4, atol=1e-6)
    expected = {1: 1500.0, 3: 0.0015}.get(units & 7, 1.5)
    np.testing.assert_allclose(spacing[0], expected, rtol=1e-5)


def test_units_of_nifti_2_count_as_well(tmp_path):
    path = nifti_2(written(tmp_path), xyzt_units=1)
    np.testing.assert_allclose(read_nifti(path)[1][:3], OBLIQUE[:3] * 1000, rtol=1e-4)


def test_a_field_of_view_that_no_scanner_has_is_refused(tmp_path):
    """Millimetres in a header that says metres."""
    with pytest.raises(VolumeError, match="metres long") as caught:
        read_volume(patch(written(tmp_path), 123, 1, "u1"))
    assert "spacing" in caught.value.remedy
    with pytest.raises(VolumeError, match="metres long"):
        check_volume(Volume(np.zeros((4, 4, 4)), np.diag([1000.0, 1, 1, 1])), allow_constant=True)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not know such names")
def test_a_file_name_that_is_not_utf_8_can_be_written_on(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/L\xe9sion.nii.gz"))
    written(tmp_path).rename(path)
    volume = read_volume(path)
    assert volume.name == "Lésion"
    volume.metadata["path"].encode("utf-8")


def test_only_what_cannot_be_written_is_replaced_in_a_name():
    assert printable("/home/jürgen/Studie/L\udce9sion") == "/home/jürgen/Studie/Lésion"
    assert printable("half \ud83d, whole 😀") == "half \ufffd, whole 😀"


@pytest.mark.parametrize("name", ["~", "~nobody-of-this-name/scan.nii.gz"])
def test_the_home_folder_and_what_only_looks_like_it(tmp_path, monkeypatch, name):
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    with pytest.raises(VolumeError, match="does not exist"):
        read_volume(name)


@pytest.mark.parametrize("size", [2**20, 2**40, 2**62])
def test_absurd_sizes_that_nifti_2_can_hold_are_refused(tmp_path, size):
    path = nifti_2(written(tmp_path), dim=[3, size, size, size, 1, 1, 1, 1])
    with pytest.raises(VolumeError, match="memory"):
        read_volume(path)


def test_a_header_of_random_bytes_is_read_or_refused_in_a_sentence(tmp_path):
    good = written(tmp_path).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        content = bytearray(good)
        for start in rng.integers(40, 344, 3):
            content[start : start + 4] = rng.bytes(4)
        path = tmp_path / "random.nii"
        path.write_bytes(content)
        try:
            check_volume(read_volume(path))
        except VolumeError as error:
            assert error.message.endswith(".")


def test_scaled_nifti_gives_real_numbers(tmp_path):
    path = patch(written(tmp_path), 112, [400 / 255, -125], "<f4")
    np.testing.assert_allclose(read_volume(path).array, scan().array * (400 / 255) - 125, atol=1e-3)


@pytest.mark.parametrize("shear", [1e-4, 2e-3, 9e-3])
def test_a_matrix_slightly_off_right_angles_is_kept_to_the_digit(tmp_path, shear):
    affine = OBLIQUE.copy()
    affine[:3, 1] += shear * 2.0 / 1.5 * affine[:3, 0]
    volume = scan(affine=affine)
    back = read_volume(written(tmp_path, volume, ".nii.gz"))
    np.testing.assert_allclose(back.affine, affine, atol=1e-4)
    again = read_volume(written(tmp_path, back, ".nii.gz"))
    np.testing.assert_array_equal(again.affine, back.affine)


def test_a_single_time_point_is_a_volume(tmp_path):
    path = patch(written(tmp_path), 40, [4, 5, 6, 7, 1, 1, 1, 1], "<i2")
    np.testing.assert_array_equal(read_volume(path).array, scan().array)


def test_a_2d_grey_image_is_one_slice(tmp_path):
    path = patch(written(tmp_path, scan(shape=(5, 6, 1))), 40, [2, 5, 6, 1, 1, 1, 1, 1], "<i2")
    back = read_volume(path)
    assert back.shape == (5, 6, 1)
    np.testing.assert_allclose(back.affine, OBLIQUE, atol=1e-4)


def test_overlapping_segments_are_no_label_map(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    layers = sitk.GetImageFromArray(np.zeros((3, 4, 5, 2), np.uint8), isVector=True)
    sitk.WriteImage(layers, str(tmp_path / "proposals.seg.nrrd"))
    with pytest.raises(VolumeError, match="overlap") as caught:
        read_label(tmp_path / "proposals.seg.nrrd")
    assert "consensus.nii.gz" in caught.value.remedy


def test_labels_become_integers_and_may_be_empty(tmp_path):
    empty = Volume(np.zeros((3, 3, 3), np.float32), np.eye(4))
    assert read_label(written(tmp_path, empty)).array.dtype == np.uint8
    many = Volume(np.arange(27, dtype=np.float32).reshape(3, 3, 3) * 20, np.eye(4))
    back = read_label(written(tmp_path, many))
    assert back.array.dtype == np.int32
    np.testing.assert_array_equal(back.array, many.array)
    with pytest.raises(VolumeError, match="not a label map"):
        read_label(written(tmp_path, Volume(many.array * 0.37, many.affine)))


def test_importing_the_package_is_cheap():
    code = (
        "import sys, progidiff.volumes;"
        "heavy = {'torch', 'SimpleITK', 'scipy', 'matplotlib'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
