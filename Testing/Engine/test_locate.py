"""From coarse probabilities to an organ's box, or to the verdict that it is not there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from progidiff.pipelines.locate import OrganBox, box_of, canonical_mm, crop_around, locate, slice_distance
from progidiff.prompts import organ_table
from progidiff.volumes.volume import Grid, axial_grid

GRID = axial_grid((60, 60, 40), (5.0, 5.0, 5.0), np.zeros(3))
LIVER, PANCREAS = organ_table().by_id("liver"), organ_table().by_id("pancreas")


def blob(
    center: tuple[int, int, int], half: tuple[int, int, int], height: float = 0.9
) -> NDArray[np.float32]:
    """A block of probability on `GRID`, given in voxels."""
    probability = np.zeros(GRID.shape, np.float32)
    probability[tuple(slice(c - h, c + h) for c, h in zip(center, half, strict=True))] = height
    return probability


def holds(box: OrganBox, where: NDArray[np.integer], grid: Grid) -> bool:
    points = canonical_mm(where @ grid.affine[:3, :3].T + grid.affine[:3, 3])
    return bool((points >= box.low).all() and (points <= box.high).all())


def test_the_box_holds_what_was_seen() -> None:
    probability = blob((30, 30, 20), (10, 8, 8))
    box = locate(probability, GRID, LIVER)
    assert box is not None and holds(box, np.argwhere(probability > 0.5), GRID)


def test_a_weak_shadow_everywhere_is_no_organ() -> None:
    assert locate(np.full(GRID.shape, 0.1, np.float32), GRID, LIVER) is None


def test_a_few_voxels_are_no_liver_but_may_be_an_adrenal_gland() -> None:
    """40 voxels of 0.125 ml, very certain: 4.5 ml."""
    probability = blob((30, 30, 20), (2, 2, 1))
    probability[28:32, 28:30, 21] = 0.9
    assert locate(probability, GRID, LIVER) is None
    assert locate(probability, GRID, PANCREAS) is None
    assert locate(probability, GRID, organ_table().by_id("left_adrenal_gland")) is not None


@pytest.mark.parametrize("organ", organ_table().organs, ids=lambda organ: organ.id)
def test_half_an_organ_at_the_end_of_the_field_of_view_is_found(organ) -> None:  # type: ignore[no-untyped-def]
    """Real organs fill a tenth of their usual box; half of that is cut off here."""
    extent = np.asarray(organ.typical_extent_mm)
    grid = axial_grid((80, 80, 60), (5.0, 5.0, 5.0), np.zeros(3))
    size = np.maximum(1, np.round(extent * 0.1 ** (1 / 3) / 5)).astype(int)
    probability = np.zeros(grid.shape, np.float32)
    probability[40 : 40 + size[0], 40 : 40 + size[1], : max(1, size[2] // 2)] = 0.9
    assert locate(probability, grid, organ) is not None


def test_a_single_slice_through_an_organ_is_enough() -> None:
    grid = axial_grid((60, 60, 1), (5.0, 5.0, 5.0), np.zeros(3))
    probability = np.zeros(grid.shape, np.float32)
    probability[25:32, 25:32] = 0.9
    assert locate(probability, grid, LIVER) is not None
    probability[25:31] = 0
    assert locate(probability, grid, LIVER) is None


def test_a_distant_weak_part_does_not_widen_the_box() -> None:
    probability = blob((20, 30, 20), (8, 8, 8)) + blob((52, 52, 36), (1, 1, 1))
    box = locate(probability, GRID, LIVER)
    assert box is not None and not holds(box, np.argwhere(blob((52, 52, 36), (1, 1, 1)) > 0), GRID)


@given(st.integers(1, 59), st.integers(1, 59), st.integers(1, 39))
def test_boxes_are_as_large_as_the_organ_may_be(i: int, j: int, k: int) -> None:
    where = np.array([[0, 0, 0], [i, j, k]])
    for organ in (LIVER, PANCREAS):
        box = box_of(where, GRID, organ)
        typical = np.asarray(organ.typical_extent_mm)
        assert (box.extent >= 0.7 * typical - 1e-6).all() and (box.extent <= 3.6 * typical + 1e-6).all()


@given(st.floats(0.3, 12.0))
def test_slices_are_three_millimetres_apart_or_as_in_the_volume(spacing: float) -> None:
    distance = slice_distance(spacing)
    assert distance / spacing == pytest.approx(round(distance / spacing))
    assert distance == pytest.approx(spacing) if spacing >= 2.0 else 2.0 <= distance <= 4.0


def test_the_crop_holds_the_box_and_stays_within_the_volume() -> None:
    volume = axial_grid((100, 100, 30), (3.0, 3.0, 4.0), np.array([5.0, -7.0, 11.0]))
    probability = blob((30, 30, 20), (10, 8, 8))
    box = locate(probability, GRID, LIVER)
    assert box is not None
    crop = crop_around(box, 64, 4.0, volume)
    corner = canonical_mm(crop.affine[:3, 3])[:2] - crop.spacing[:2] / 2
    assert (corner <= box.low[:2]).all() and (corner + 64 * crop.spacing[:2] >= box.high[:2]).all()
    steps = (crop.affine[2, 3] - volume.affine[2, 3]) / 4.0
    assert steps == pytest.approx(round(steps)) and round(steps) >= 0 and round(steps) + crop.shape[2] <= 30
