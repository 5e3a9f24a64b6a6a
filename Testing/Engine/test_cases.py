"""Readers of training cases: three layouts on tiny files, and the real folders where they exist."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from progidiff.errors import CasesError
from progidiff.prompts import organ_table
from progidiff.training.case import Case
from progidiff.training.cases import find_cases
from progidiff.volumes import Volume, write_volume

SHAPE = (4, 5, 6)
AFFINE = np.array([[-2.0, 0, 0, 10], [0, -2, 0, 20], [0, 0, 3, -5], [0, 0, 0, 1]])


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(Volume(array, affine), path)


def image_array() -> np.ndarray:
    return np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE) - np.int16(1000)  # air, as in CT


def label_array(*values: int) -> np.ndarray:
    """The i-th value fills the voxels with index i along the second axis."""
    array = np.zeros(SHAPE, np.uint8)
    for j, value in enumerate(values):
        array[:, j] = value
    return array


def nnunet(
    folder: Path, labels: dict, ending: str = ".nii.gz", suffix: str = "_0000", **description: object
) -> Path:
    for name in ("a_01", "b_02"):
        write(folder / "imagesTr" / f"{name}{suffix}{ending}", image_array())
        write(folder / "labelsTr" / f"{name}{ending}", label_array(0, 1, 2, 3))
    (folder / "dataset.json").write_text(json.dumps({"labels": labels, **description}))
    return folder


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_nnunet_new_labels(tmp_path: Path, ending: str) -> None:
    labels = {"background": 0, "liver": 1, "duodenum": 2, "kidney_left": 3}
    nnunet(tmp_path, labels, ending, file_ending=ending, channel_names={"0": "CT"})
    write(tmp_path / "imagesTr" / f"a_01_0001{ending}", image_array())  # a second channel is no second case
    cases = find_cases(tmp_path)
    assert [(case.id, case.layout, case.modality) for case in cases] == [
        ("a_01", "nnunet", "CT"),
        ("b_02", "nnunet", "CT"),
    ]
    assert cases[0].organs == {"liver", "left_kidney"}
    image, label = cases[0].load()
    assert image.modality == "CT" and label.array.dtype == np.uint8
    np.testing.assert_array_equal(label.array, label_array(0, 6, 0, 3))
    np.testing.assert_array_equal(label.affine, image.affine)


def label_counts(label: np.ndarray) -> dict[str, int]:
    """Voxels of each organ that occurs in a label map with our numbers."""
    counts = {organ.id: int(np.sum(label == organ.label)) for organ in organ_table()}
    return {organ: count for organ, count in counts.items() if count}


def test_mr_in_a_data_set_that_says_ct_of_all(tmp_path: Path) -> None:
    """As in AMOS22, whose list of modalities names CT alone."""
    nnunet(tmp_path, {"1": "liver", "2": "spleen", "3": "aorta"}, modality={"0": "CT"})
    write(tmp_path / "imagesTr" / "b_02_0000.nii.gz", image_array() + np.int16(1000))
    ct, mr = (case.load_image() for case in find_cases(tmp_path))
    assert (ct.modality, mr.modality) == ("CT", "MR")


def test_nnunet_old_labels_without_channel_number(tmp_path: Path) -> None:
    labels = {"0": "background", "1": "spleen", "2": "postcava", "3": "bladder"}
    cases = find_cases(nnunet(tmp_path, labels, suffix="", modality={"0": "MRI"}))
    assert [case.id for case in cases] == ["a_01", "b_02"]
    assert cases[0].modality == "MR"
    assert label_counts(cases[1].load_label().array) == {"spleen": 24, "inferior_vena_cava": 24}


def test_nnunet_ids_that_end_in_four_digits(tmp_path: Path) -> None:
    write(tmp_path / "imagesTr" / "amos_0004.nii.gz", image_array())
    write(tmp_path / "labelsTr" / "amos_0004.nii.gz", label_array(1))
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"1": "spleen"}}))
    assert [(case.id, case.has_label) for case in find_cases(tmp_path)] == [("amos_0004", True)]


def test_nnunet_regions_make_up_one_organ(tmp_path: Path) -> None:
    labels = {"background": 0, "right kidney": [1, 2], "cyst": 2, "aorta": 3}
    case = find_cases(nnunet(tmp_path, labels))[0]
    np.testing.assert_array_equal(case.load_label().array, label_array(0, 2, 2, 8))


def test_nnunet_image_without_label_is_a_case(tmp_path: Path) -> None:
    nnunet(tmp_path, {"liver": 1, "spleen": 2, "aorta": 3})
    (tmp_path / "labelsTr" / "b_02.nii.gz").unlink()
    assert [case.has_label for case in find_cases(tmp_path)] == [True, False]


def test_nnunet_label_without_image_is_refused(tmp_path: Path) -> None:
    nnunet(tmp_path, {"liver": 1, "spleen": 2, "aorta": 3})
    (tmp_path / "imagesTr" / "b_02_0000.nii.gz").unlink()
    with pytest.raises(CasesError, match="b_02"):
        find_cases(tmp_path)


def test_values_without_a_name_are_listed(tmp_path: Path) -> None:
    case = find_cases(nnunet(tmp_path, {"background": 0, "liver": 1, "ignore": 3}))[0]
    with pytest.raises(CasesError, match="2, 3"):
        case.load_label()


def test_names_that_are_no_organs_are_listed(tmp_path: Path) -> None:
    with pytest.raises(CasesError, match="left ventricle"):
        find_cases(nnunet(tmp_path, {"left ventricle": 1}))


def test_totalsegmentator(tmp_path: Path) -> None:
    for number, image in (("s0001", "ct"), ("s0002", "mri")):
        write(tmp_path / number / f"{image}.nii.gz", image_array())
        for name, array in (
            ("liver", label_array(0, 1)),
            ("kidney_left", label_array(0, 0, 1)),
            ("pancreas", label_array()),
            ("rib_left_1", label_array(1)),
        ):
            write(tmp_path / number / "segmentations" / f"{name}.nii.gz", array)
    cases = find_cases(tmp_path)
    assert [(case.id, case.modality) for case in cases] == [("s0001", "CT"), ("s0002", "MR")]
    assert cases[0].organs == {"liver", "left_kidney", "pancreas"}  # the empty pancreas is known to be absent
    np.testing.assert_array_equal(cases[1].load_label().array, label_array(0, 6, 3))


def test_flat_folder(tmp_path: Path) -> None:
    write(tmp_path / "mr" / "chaos_t2_1_image.nii.gz", image_array())
    write(tmp_path / "mr" / "chaos_t2_1_label.nii.gz", label_array(0, 2))
    write(tmp_path / "mr" / "chaos_9_label.nii.gz", label_array(0, 2))
    write(tmp_path / "mr" / "other_image.nii.gz", image_array())
    (tmp_path / "mr" / "chaos_labels.json").write_text(json.dumps({"1": "liver", "2": "Milz"}))
    (tmp_path / "mr" / "chaos_t2_labels.json").write_text(json.dumps({"1": "liver", "2": "right kidney"}))
    cases = {case.id: case for case in find_cases(tmp_path)}
    assert list(cases) == ["chaos_9", "chaos_t2_1", "other"]
    assert cases["chaos_t2_1"].organs == {"liver", "right_kidney"}
    assert cases["chaos_t2_1"].modality == "MR"
    assert not cases["chaos_9"].has_image and not cases["other"].has_label
    np.testing.assert_array_equal(cases["chaos_9"].load_label().array, label_array(0, 1))
    with pytest.raises(CasesError, match="no image"):
        cases["chaos_9"].load_image()
    with pytest.raises(CasesError, match="no label"):
        cases["other"].load_label()


def test_colour_table_and_labels_override(tmp_path: Path) -> None:
    write(tmp_path / "atlas_label.nii.gz", label_array(0, 52, 117, 99))
    write(tmp_path / "plain_label.nii.gz", label_array(0, 9))
    (tmp_path / "atlas_labels.ctbl").write_text(
        "# colours\n# 120 values\n52 left_kidney 220 170 120 255\n117 splenic_vein 1 1 1 255\n"
    )
    atlas, plain = find_cases(tmp_path)
    assert atlas.organs == {"left_kidney"}  # the splenic vein alone is only part of our organ
    np.testing.assert_array_equal(atlas.load_label().array, label_array(0, 3, 0))
    assert not plain.has_label
    plain = find_cases(tmp_path, labels={9: "postcava"})[1]
    np.testing.assert_array_equal(plain.load_label().array, label_array(0, 9))


def test_two_named_parts_make_the_whole() -> None:
    case = Case("a", "flat", None, Path("a"), {1: ("portal vein",), 2: ("splenic_vein",)})
    assert case.organs == {"portal_and_splenic_vein"}


def test_label_must_lie_on_the_image(tmp_path: Path) -> None:
    shifted = AFFINE.copy()
    shifted[2, 3] += 3
    write(tmp_path / "a_image.nii.gz", image_array())
    write(tmp_path / "a_label.nii.gz", label_array(1), shifted)
    write(tmp_path / "b_image.nii.gz", image_array())
    write(tmp_path / "b_label.nii.gz", label_array(1)[:, :, :5])
    for name, message in (("a", "3.0 mm apart"), ("b", "differ in size")):
        case = next(case for case in find_cases(tmp_path, labels={1: "liver"}) if case.id == name)
        with pytest.raises(CasesError, match=message):
            case.load_label()


def test_same_names_in_two_folders_stay_apart(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write(tmp_path / folder / "a_image.nii.gz", image_array())
    assert [case.id for case in find_cases(tmp_path)] == ["one/a", "two/a"]


def test_nothing_to_find(tmp_path: Path) -> None:
    with pytest.raises(CasesError, match="No cases"):
        find_cases(tmp_path)
    with pytest.raises(CasesError, match="no folder"):
        find_cases(tmp_path / "missing")
    (tmp_path / "set" / "imagesTr").mkdir(parents=True)
    with pytest.raises(CasesError, match="no dataset"):
        find_cases(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(CasesError, match="cannot be read"):
        find_cases(tmp_path)


def test_real_folders(shared_data: Path) -> None:
    cases = {case.id: case for case in find_cases(shared_data)}
    counts = {name: sum(case.startswith(name) for case in cases) for name in ("btcv", "chaos", "flare22")}
    assert counts == {"btcv": 18, "chaos": 15, "flare22": 50}
    assert len(cases["btcv_0005"].organs) == 13 and cases["btcv_0005"].modality == "CT"
    assert cases["chaos_t2_" + min(c[9:] for c in cases if c.startswith("chaos"))].organs == {
        "liver",
        "spleen",
        "right_kidney",
        "left_kidney",
    }
    assert cases["flare22_0001"].organs == set(cases["btcv_0005"].organs) - {"portal_and_splenic_vein"}
    assert len(cases["totalseg_example"].organs) == 13
    assert cases["spl_atlas"].organs == {
        *("spleen", "right_kidney", "left_kidney", "gallbladder", "liver", "aorta", "inferior_vena_cava"),
        *("pancreas", "right_adrenal_gland", "left_adrenal_gland"),
    }
    assert not cases["crlm_1004"].has_label and not cases["amos_0013"].has_label


def test_real_label_lies_on_its_image(shared_data: Path) -> None:
    case = next(case for case in find_cases(shared_data / "ct") if case.id == "totalseg_example")
    image, label = case.load()
    assert label.shape == image.shape
    found = label_counts(label.array)
    ml = {organ: count * label.voxel_ml for organ, count in found.items()}
    assert 800 < ml["liver"] < 3000 and 60 < ml["left_kidney"] < 400
    # RAS: the liver lies to the patient's right of the spleen
    x = {
        o: (np.argwhere(label.array == n).mean(0) @ label.affine[:3, :3].T)[0]
        for o, n in (("liver", 6), ("spleen", 1))
    }
    assert x["liver"] > x["spleen"]
