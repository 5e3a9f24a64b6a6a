"""Pictures cut out of volumes hang the right way, and the contact sheet shows what it should."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from progidiff.proposals import contact_sheet
from progidiff.proposals.distinct import distinct_proposals
from progidiff.proposals.palette import proposal_color
from progidiff.proposals.planes import Plane, cut, cut_proposal, planes_that_show, planes_through_middle
from progidiff.volumes.volume import Grid
from proposals_samples import (
    LIVER,
    SPLEEN,
    ball,
    grid_of,
    group_of,
    liver_and_spleen,
    oblique_grid,
    proposal_of,
    result_of,
)

SHAPE = (24, 20, 10)
GRID = grid_of(SHAPE)


def middle_of(grid):
    return grid.affine[:3, :3] @ ((np.array(grid.shape) - 1) / 2) + grid.affine[:3, 3]


def turned(array, grid, order, flips):
    """The same patient stored with other axis orders and directions."""
    affine = grid.affine[:, [*order, 3]].copy()
    array = array.transpose(order)
    for axis, flip in enumerate(flips):
        if flip:
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
            affine[:3, axis] *= -1
            array = np.flip(array, axis)
    return array, Grid(array.shape, affine)


def test_the_patients_right_is_left_and_the_front_is_up():
    place = np.indices(SHAPE)
    for view, axes in (("axial", (0, 1)), ("coronal", (0, 2))):
        plane = Plane(view, middle_of(GRID), 30.0)
        # In the axial grid i runs to the left of the patient, j to the back and k to the head.
        across = cut(place[axes[0]].astype(float), GRID, plane, 32, 0.0)
        down = cut(place[axes[1]].astype(float), GRID, plane, 32, 0.0)
        assert (np.diff(across, axis=1) > 0).all()
        rises = np.diff(down, axis=0)
        assert (rises > 0).all() if view == "axial" else (rises < 0).all()


def test_a_picture_does_not_depend_on_how_the_voxels_are_stored():
    array = np.random.default_rng(0).normal(size=SHAPE)
    for view in ("axial", "coronal"):
        plane = Plane(view, middle_of(GRID) + np.array([1.0, 2.0, 3.0]), 70.0)
        expected = cut(array, GRID, plane, 24, -9.0)
        assert (expected == -9.0).any()  # the picture reaches beyond the volume
        for order, flips in product(permutations(range(3)), product([False, True], repeat=3)):
            stored, grid = turned(array, GRID, order, flips)
            np.testing.assert_allclose(cut(stored, grid, plane, 24, -9.0), expected, atol=1e-5)


def test_a_millimetre_is_as_long_across_as_down():
    sphere = np.linalg.norm(
        np.einsum("ab,bijk->aijk", GRID.affine[:3, :3], np.indices(SHAPE))
        + (GRID.affine[:3, 3] - middle_of(GRID))[:, None, None, None],
        axis=0,
    )
    for view in ("axial", "coronal"):
        inside = cut(np.where(sphere < 16, 1.0, 0.0), GRID, Plane(view, middle_of(GRID), 40.0), 80, 0.0) > 0.5
        height, width = np.ptp(np.flatnonzero(inside.any(1))), np.ptp(np.flatnonzero(inside.any(0)))
        assert width == pytest.approx(64, abs=5)
        assert height == pytest.approx(64, abs=10)  # slices of 5 mm step through the coronal circle


@pytest.mark.parametrize("grid", [GRID, oblique_grid(SHAPE)], ids=["axial", "oblique"])
def test_a_proposal_is_cut_where_its_voxels_are(grid):
    probability = ball(SHAPE, (12, 9, 5), 3)
    proposal = proposal_of(probability, grid=grid)
    plane = Plane("axial", middle_of(grid), 60.0)
    np.testing.assert_allclose(
        cut_proposal(proposal, plane, 40), cut(probability, grid, plane, 40, 0.0), atol=1e-5
    )
    assert not cut_proposal(proposal_of(np.zeros(SHAPE)), plane, 8).any()


def test_planes_run_from_head_to_foot_through_slices_of_the_organ():
    proposal = proposal_of(ball(SHAPE, (12, 9, 5), 4))
    *axial, coronal = planes_that_show([proposal], axial=4)
    heights = [plane.center[2] for plane in axial]
    assert heights == sorted(heights, reverse=True)
    slices = (np.array(heights) - GRID.affine[2, 3]) / 5.0
    np.testing.assert_allclose(slices, slices.round(), atol=1e-3)
    assert all(proposal.mask[:, :, round(k)].any() for k in slices)
    assert coronal.view == "coronal"
    assert cut_proposal(proposal, coronal, 40).max() > 0.5


@pytest.mark.parametrize(
    ("view", "center", "expected"),
    [
        ("axial", [0, 0, 104.4], "S 104 mm"),
        ("axial", [0, 0, -7], "I 7 mm"),
        ("coronal", [0, 12, -7], "A 12 mm"),
        ("coronal", [0, -12, 5], "P 12 mm"),
    ],
)
def test_a_plane_says_where_it_lies(view, center, expected):
    assert Plane(view, np.array(center, float), 100.0).position == expected


def test_an_organ_in_one_slice_has_one_plane():
    probability = np.zeros((24, 20, 1), np.float32)
    probability[5:15, 5:15] = 1.0
    planes = planes_that_show([proposal_of(probability)])
    assert [plane.view for plane in planes] == ["axial"]
    assert cut_proposal(proposal_of(probability), planes[0], 40).max() == 1.0
    assert len(planes_through_middle(grid_of((24, 20, 1)))) == 1
    assert planes_that_show([proposal_of(np.zeros(SHAPE))]) == []


def test_the_sheet_shows_every_proposal_in_its_colour():
    picture = np.asarray(contact_sheet(liver_and_spleen(GRID))).astype(int)
    for rank in range(2):
        color = np.array(proposal_color(rank))
        assert (np.abs(picture - color).max(axis=2) < 12).sum() > 50
    assert picture.shape[2] == 3


def test_a_repetition_is_neither_drawn_nor_listed():
    livers = [ball(SHAPE, (x, 9, 5), 4) for x in (9, 12, 12)]
    group = group_of(LIVER, GRID, livers, "")
    shown = {each.rank for each in distinct_proposals(group)}
    assert len(shown) == 2
    picture = np.asarray(contact_sheet(result_of([group], GRID))).astype(int)
    for rank in range(3):
        pixels = (np.abs(picture - np.array(proposal_color(rank))).max(axis=2) < 12).sum()
        assert (pixels > 50) == (rank in shown)


def test_the_sheet_grows_by_a_row_for_each_organ_found_or_not():
    found = group_of(LIVER, GRID, [ball(SHAPE, (12, 9, 5), 4)], "")
    missing = group_of(SPLEEN, GRID, [], "")
    heights = [contact_sheet(result_of([found, missing][:n], GRID)).height for n in (1, 2)]
    assert heights[1] > heights[0] + 250


def test_a_sheet_of_many_proposals_and_an_odd_prompt_can_be_drawn():
    livers = [ball(SHAPE, (10 + 0.3 * n, 9, 5), 4) for n in range(12)]
    prompt = "liver $x_1$ \\frac{ <b> " + "very long " * 40
    picture = contact_sheet(result_of([group_of(LIVER, GRID, livers, prompt)], GRID, prompt))
    assert np.asarray(picture).std() > 5
