"""Phantoms: right organs on the right side, plausible sizes and intensities, the same for the same seed."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from progidiff.errors import UsageError
from progidiff.prompts import organ_table
from progidiff.training.phantom import build_anatomy, make_phantom, paint_label_map
from progidiff.training.phantom_anatomy import ORGAN_LABELS
from progidiff.training.phantom_appearance import CT_TISSUES, MR_TISSUES
from progidiff.training.phantom_organs import PLACE, TISSUE
from progidiff.training.phantom_shapes import Space
from progidiff.volumes import Modality, Volume

SHAPE, SPACING = (96, 96, 30), (3.6, 3.6, 7.0)
SEEDS = range(4)


@lru_cache
def phantom(seed: int, modality: Modality = "CT") -> tuple[Volume, Volume]:
    return make_phantom(seed, modality, SHAPE, SPACING)


def middle(label: Volume, organ: str) -> np.ndarray:
    """RAS mm of an organ's middle."""
    voxel = np.argwhere(label.array == ORGAN_LABELS[organ]).mean(0)
    return label.affine[:3, :3] @ voxel + label.affine[:3, 3]


def ml(label: Volume, organ: str) -> float:
    return float((label.array == ORGAN_LABELS[organ]).sum() * label.voxel_ml)


def mean(image: Volume, label: Volume, organ: str) -> float:
    return float(image.array[label.array == ORGAN_LABELS[organ]].mean())


def test_labels_are_those_of_the_organ_table() -> None:
    assert {organ.id: organ.label for organ in organ_table()} == ORGAN_LABELS
    assert set(PLACE) == set(TISSUE) == set(ORGAN_LABELS)


def test_every_tissue_has_an_appearance_in_both_modalities() -> None:
    assert set(CT_TISSUES) == set(MR_TISSUES)
    assert set(TISSUE.values()) <= set(CT_TISSUES)


def test_grid_and_types() -> None:
    image, label = phantom(0)
    assert image.shape == label.shape == SHAPE
    assert image.array.dtype == np.float32 and label.array.dtype == np.uint8
    np.testing.assert_array_equal(image.affine, label.affine)
    np.testing.assert_allclose(image.affine[:3, :3], np.diag([-3.6, -3.6, 7.0]))
    assert image.modality == "CT" and np.isfinite(image.array).all()


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_same_seed_same_phantom(modality: Modality) -> None:
    again = make_phantom(1, modality, SHAPE, SPACING)
    for volume, other in zip(phantom(1, modality), again, strict=True):
        np.testing.assert_array_equal(volume.array, other.array)
        np.testing.assert_array_equal(volume.affine, other.affine)


def test_seeds_differ_and_modalities_share_the_anatomy() -> None:
    assert (phantom(1)[1].array != phantom(2)[1].array).mean() > 0.02
    np.testing.assert_array_equal(phantom(1, "CT")[1].array, phantom(1, "MR")[1].array)


def test_unknown_modality() -> None:
    with pytest.raises(UsageError, match="PET"):
        make_phantom(0, "PET")  # type: ignore[arg-type]


def test_nearly_all_organs_in_nearly_all_phantoms() -> None:
    present = {organ: sum(ml(phantom(seed)[1], organ) > 0.5 for seed in SEEDS) for organ in ORGAN_LABELS}
    missing = {organ for organ, count in present.items() if count < len(SEEDS)}
    assert missing <= {"gallbladder", "esophagus"} and min(present.values()) >= 2, present


def test_plausible_sizes() -> None:
    bounds = {
        "liver": (700, 2600),
        "spleen": (60, 500),
        "right_kidney": (70, 300),
        "left_kidney": (70, 300),
        "stomach": (90, 1100),
        "aorta": (25, 220),
        "inferior_vena_cava": (25, 220),
        "pancreas": (25, 140),
        "right_adrenal_gland": (1, 12),
        "left_adrenal_gland": (1, 12),
        "portal_and_splenic_vein": (5, 50),
    }
    for organ, (least, most) in bounds.items():
        median = np.median([ml(phantom(seed)[1], organ) for seed in SEEDS])
        assert least < median < most, organ


@pytest.mark.parametrize("seed", SEEDS)
def test_organs_lie_where_they_belong(seed: int) -> None:
    label = phantom(seed)[1]
    at = {organ: middle(label, organ) for organ in ORGAN_LABELS if ml(label, organ) > 1}
    x, y, z = ({organ: point[axis] for organ, point in at.items()} for axis in range(3))
    assert x["liver"] > x["pancreas"] > x["spleen"]
    assert x["right_kidney"] > x["inferior_vena_cava"] > x["aorta"] > x["left_kidney"]
    assert x["aorta"] > x["stomach"]
    assert y["stomach"] > y["pancreas"] > y["left_kidney"]
    assert y["liver"] > y["right_kidney"]
    for side in ("right", "left"):
        if f"{side}_adrenal_gland" in at:
            assert z[f"{side}_adrenal_gland"] > z[f"{side}_kidney"]


@pytest.mark.parametrize("seed", SEEDS)
def test_hounsfield_units(seed: int) -> None:
    image, label = phantom(seed)
    assert image.array.max() > 300, "there is bone"
    assert np.percentile(image.array[:, 0, :], 50) < -900, "in front of the patient there is air"
    assert 0 < mean(image, label, "liver") < 170
    assert 20 < mean(image, label, "spleen") < 180
    fat = (image.array > -140) & (image.array < -60)
    assert fat.mean() > 0.05
    assert (image.array[:, 30:66, -1] < -700).mean() > 0.1, "there is lung at the top"


def test_magnetic_resonance_is_positive_with_varied_contrast() -> None:
    ratios = []
    for seed in (1, 2):
        image, label = phantom(seed, "MR")
        assert image.array.min() >= 0
        ratios.append(mean(image, label, "spleen") / mean(image, label, "liver"))
    assert max(ratios) > 1.3 * min(ratios)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_painted_label_map(modality: Modality) -> None:
    label = phantom(0)[1]
    image = paint_label_map(label, 5, modality)
    np.testing.assert_array_equal(image.affine, label.affine)
    assert image.shape == label.shape and image.array.dtype == np.float32
    np.testing.assert_array_equal(image.array, paint_label_map(label, 5, modality).array)
    if modality == "CT":
        assert 0 < mean(image, label, "liver") < 170 and 0 < mean(image, label, "left_kidney") < 250
        assert np.median(image.array[:, 0, :]) < -900
    assert np.abs(image.array - paint_label_map(label, 6, modality).array).mean() > 1


def test_painted_label_map_in_another_orientation() -> None:
    """Axes swapped and flipped: the same patient, so the same body around the organs."""
    label = phantom(0)[1]
    flip = np.eye(4)
    flip[1, 1], flip[1, 3] = -1, SHAPE[1] - 1
    swap = np.eye(4)[[2, 0, 1, 3]]
    turned = Volume(np.ascontiguousarray(label.array[:, ::-1].transpose(1, 2, 0)), label.affine @ flip @ swap)
    np.testing.assert_allclose((turned.affine @ [0, 0, 0, 1]), label.affine @ [0, SHAPE[1] - 1, 0, 1])
    image = paint_label_map(turned, 5)
    liver = image.array[turned.array == ORGAN_LABELS["liver"]]
    assert 0 < liver.mean() < 170
    assert np.median(image.array[-1]) < -900, "the flipped second axis now ends in front of the patient"
    assert (image.array > 250).any(), "the spine is there"


def test_organs_not_annotated_are_invented() -> None:
    space = Space(
        np.random.default_rng(0),
        SHAPE,
        matrix=np.diag([3.6, 3.6, 7.0]),
        start=-np.array([3.6, 3.6, 7.0]) * SHAPE / 2 + [0, -22, 45],
    )
    with_kidneys = build_anatomy(space, np.random.default_rng(0))
    without = build_anatomy(space, np.random.default_rng(0), absent={"right_kidney", "left_kidney"})
    assert "renal_cortex" in {layer.tissue for layer in with_kidneys.layers}
    assert "renal_cortex" not in {layer.tissue for layer in without.layers}


def test_single_slice_and_empty_label_map() -> None:
    empty = Volume(np.zeros((40, 40, 1), np.uint8), np.diag([-8.0, -8, 5, 1]))
    assert np.isfinite(paint_label_map(empty, 0).array).all()
    image, label = make_phantom(0, "MR", (64, 64, 1), (5, 5, 5))
    assert image.shape == label.shape == (64, 64, 1) and np.isfinite(image.array).all()
