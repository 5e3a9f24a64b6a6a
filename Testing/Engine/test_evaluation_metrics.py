"""Metrics against masks whose figures can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from progidiff.evaluation.metrics import compare, dice, implementation, pairwise_dice, union_box

ISOTROPIC = np.ones(3)
MASKS = arrays(bool, (5, 4, 3))


def cube(
    start: tuple[int, int, int], edge: int = 10, shape: tuple[int, int, int] = (26, 24, 22)
) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, a + edge) for a in start)] = True
    return mask


def test_shifted_cube_has_the_dice_and_hd95_of_its_shift() -> None:
    # Shifted by 3 of 10 voxels: 7 of 10 layers overlap; the two faces across the shift lie 3 voxels apart.
    found = compare(cube((9, 6, 6)), cube((6, 6, 6)), np.array([2.0, 1.0, 5.0]))
    assert found.outcome == "compared"
    assert found.dice == pytest.approx(0.7)
    assert found.hd95_mm == pytest.approx(6.0)


def test_surface_dice_counts_surfaces_within_the_tolerance() -> None:
    a, b = cube((9, 6, 6)), cube((6, 6, 6))
    assert compare(a, b, ISOTROPIC, tolerance_mm=3.0).surface_dice == pytest.approx(1.0)
    # The faces across the shift (a fifth to a third of the surface) are further apart than 1 mm.
    strict = compare(a, b, ISOTROPIC, tolerance_mm=1.0).surface_dice
    assert strict is not None and 0.5 < strict < 0.8


def test_equal_masks_are_perfect() -> None:
    found = compare(cube((4, 5, 6)), cube((4, 5, 6)), ISOTROPIC)
    assert (found.dice, found.hd95_mm, found.surface_dice) == (1.0, 0.0, 1.0)


def test_a_mask_that_touches_the_border_of_the_volume_is_measured_too() -> None:
    a = np.ones((6, 6, 6), bool)
    b = a.copy()
    b[:3] = False
    found = compare(b, a, ISOTROPIC)
    assert found.dice == pytest.approx(2 / 3)
    assert found.hd95_mm == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("prediction", "reference", "outcome", "value"),
    [
        (False, False, "correctly absent", None),
        (True, False, "false positive", 0.0),
        (False, True, "missed", 0.0),
    ],
)
def test_empty_masks_follow_the_stated_rule(
    prediction: bool, reference: bool, outcome: str, value: float | None
) -> None:
    full, empty = cube((3, 3, 3)), np.zeros((26, 24, 22), bool)
    found = compare(full if prediction else empty, full if reference else empty, ISOTROPIC)
    assert (found.outcome, found.dice, found.hd95_mm, found.surface_dice) == (outcome, value, None, value)


@given(MASKS, MASKS)
@settings(max_examples=25, deadline=None)
def test_dice_is_monais(a: np.ndarray, b: np.ndarray) -> None:
    import torch
    from monai.metrics import compute_dice

    monai = compute_dice(torch.from_numpy(a)[None, None], torch.from_numpy(b)[None, None], ignore_empty=False)
    assert dice(a, b) == pytest.approx(float(monai), abs=1e-6)


@given(MASKS, MASKS)
@settings(max_examples=50, deadline=None)
def test_dice_is_symmetric_and_between_zero_and_one(a: np.ndarray, b: np.ndarray) -> None:
    assert dice(a, b) == dice(b, a)
    assert 0.0 <= dice(a, b) <= 1.0
    assert dice(a, a) == 1.0


@given(arrays(bool, (4, 4, 4)), arrays(bool, (4, 4, 4)), st.integers(0, 5))
@settings(max_examples=10, deadline=None)
def test_room_around_the_masks_changes_nothing(a: np.ndarray, b: np.ndarray, room: int) -> None:
    around = [(room, 1), (1, room), (room, room)]
    # Without a rim of one voxel the volume's border would be the border of the masks as well.
    close, far = [np.pad(m, 1) for m in (a, b)], [np.pad(m, 1 + np.array(around)) for m in (a, b)]
    assert compare(*close, ISOTROPIC) == compare(*far, ISOTROPIC)


def test_union_box_has_the_margin_in_millimetres_and_stays_inside() -> None:
    mask = np.zeros((20, 20, 20), bool)
    mask[10, 1, 5] = True
    box = union_box([mask], np.array([1.0, 1.0, 4.0]), margin_mm=4.0)
    assert box == (slice(6, 15), slice(0, 6), slice(4, 7))
    assert union_box([np.zeros((3, 3, 3), bool)], ISOTROPIC, 1.0) is None


def test_pairwise_dice_is_the_mean_over_pairs() -> None:
    a, b = cube((6, 6, 6)), cube((9, 6, 6))
    assert pairwise_dice([a, a, b]) == pytest.approx((1.0 + 0.7 + 0.7) / 3)
    assert pairwise_dice([a]) is None


def test_the_report_can_name_the_implementation() -> None:
    import monai

    assert f"MONAI {monai.__version__}" in implementation(2.0)
    assert "2 mm" in implementation(2.0)
