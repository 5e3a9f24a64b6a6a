"""What a steered proposal must keep to, voxel by voxel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from progidiff.errors import UsageError
from progidiff.prompts import Target, parse_prompt
from progidiff.proposals import Proposal, consensus_of
from progidiff.steering import NOTHING, Promises, Voxels, proposal_from_mask
from progidiff.volumes.volume import Grid

SHAPE = (9, 8, 7)
LIVER: Target = parse_prompt("liver")[0]
WHOLE = tuple(slice(0, n) for n in SHAPE)


def oriented(order: list[int], flips: tuple[int, ...], spacing: tuple[float, ...]) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, list(order)] * flips * spacing
    affine[:3, 3] = (12.0, -30.0, 400.0)
    return Grid(SHAPE, affine)


GRID = oriented([0, 1, 2], (-1, 1, 1), (1.0, 2.0, 3.0))
orientations = st.builds(
    oriented,
    st.permutations((0, 1, 2)),
    st.tuples(*[st.sampled_from((-1, 1))] * 3),
    st.tuples(*[st.floats(0.5, 6.0)] * 3),
)
seeds = st.integers(0, 2**32 - 1)


def random_mask(rng: np.random.Generator, share: float = 0.1) -> np.ndarray:
    return rng.random(SHAPE) < share


def random_proposal(rng: np.random.Generator, grid: Grid) -> Proposal:
    low = rng.integers(0, 4, 3)
    high = low + rng.integers(1, 4, 3)
    region = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    probability = rng.random(tuple(high - low)).astype(np.float32)
    base = proposal_from_mask(np.zeros(SHAPE), LIVER, grid)
    return replace(base, region=region, probability_in_region=probability)  # type: ignore[arg-type]


def full(voxels: Voxels) -> np.ndarray:
    return voxels.on(WHOLE)  # type: ignore[arg-type]


# -- the promises ----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(orientations, seeds, st.booleans(), st.booleans())
def test_every_promise_is_kept_by_proposals_and_by_their_consensus(
    grid: Grid, seed: int, with_parent: bool, with_region: bool
) -> None:
    rng = np.random.default_rng(seed)
    parent_mask = random_mask(rng, 0.3)
    fixed = random_mask(rng, 0.2) if with_parent else np.zeros(SHAPE, bool)
    region = np.zeros(SHAPE, bool)
    region[2:7, 1:6, :5] = True
    region |= not with_region
    content = parent_mask if with_parent else np.zeros(SHAPE, bool)
    frozen = fixed | ~region
    free = ~frozen
    inside = random_mask(rng) & (free | content)
    outside = random_mask(rng) & (free | ~content) & ~inside
    promises = Promises(
        Voxels.of_mask(inside),
        Voxels.of_mask(outside),
        Voxels.of_mask(fixed),
        Voxels.of_mask(region) if with_region else None,
        proposal_from_mask(parent_mask, LIVER, grid) if with_parent else None,
    )
    promises.check(grid)
    kept = [promises.keep(random_proposal(rng, grid)) for _ in range(3)]
    for proposal in [*kept, consensus_of(kept)]:
        assert proposal.mask.shape == SHAPE
        assert proposal.mask[inside].all()
        assert not proposal.mask[outside].any()
        assert np.array_equal(proposal.mask[frozen], content[frozen])


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_what_was_not_promised_is_left_to_the_model(seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = random_proposal(rng, GRID)
    inside, outside = random_mask(rng), random_mask(rng)
    outside &= ~inside
    kept = Promises(Voxels.of_mask(inside), Voxels.of_mask(outside)).keep(drawn)
    rest = ~inside & ~outside
    assert np.array_equal(kept.probability[rest], drawn.probability[rest])


def test_an_empty_drawing_still_keeps_its_promises() -> None:
    empty = proposal_from_mask(np.zeros(SHAPE), LIVER, GRID)
    mark = np.zeros(SHAPE, bool)
    mark[8, 7, 6] = True
    assert np.array_equal(Promises(inside=Voxels.of_mask(mark)).keep(empty).mask, mark)
    assert Promises(outside=Voxels.of_mask(mark)).keep(empty).is_empty


def test_a_parent_of_another_threshold_keeps_its_mask() -> None:
    rng = np.random.default_rng(1)
    parent = replace(random_proposal(rng, GRID), threshold=0.2)
    everything = Voxels.of_mask(np.ones(SHAPE))
    kept = Promises(fixed=everything, parent=parent).keep(random_proposal(rng, GRID))
    assert np.array_equal(kept.mask, parent.mask)


# -- contradictions --------------------------------------------------------------------------------


def cube(start: int, stop: int) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[start:stop, start:stop, start:stop] = True
    return mask


@pytest.mark.parametrize(
    ("promises", "fault"),
    [
        (Promises(Voxels.of_mask(cube(1, 3)), Voxels.of_mask(cube(2, 4))), "1 voxel is marked both"),
        (Promises(fixed=Voxels.of_mask(cube(1, 3))), "no mask to keep"),
        (Promises(Voxels.of_mask(cube(5, 6)), region=Voxels.of_mask(cube(0, 3))), "inside where nothing"),
        (
            Promises(
                outside=Voxels.of_mask(cube(1, 2)),
                fixed=Voxels.of_mask(cube(0, 3)),
                parent=proposal_from_mask(cube(0, 4), LIVER, GRID),
            ),
            "outside where the mask may not change",
        ),
        (Promises(Voxels((slice(0, 1), slice(0, 1), slice(6, 8)), np.ones((1, 1, 2), bool))), "beyond"),
    ],
)
def test_promises_that_cannot_be_kept_are_refused(promises: Promises, fault: str) -> None:
    with pytest.raises(UsageError, match=fault) as caught:
        promises.check(GRID)
    assert caught.value.remedy


def test_marks_outside_the_region_may_repeat_what_is_there() -> None:
    parent = proposal_from_mask(cube(0, 4), LIVER, GRID)
    inside, region = Voxels.of_mask(cube(0, 1)), Voxels.of_mask(cube(4, 6))
    promises = Promises(inside, Voxels.of_mask(cube(6, 7)), region=region, parent=parent)
    promises.check(GRID)
    assert str(promises) == "1 voxel inside, 1 voxel outside, only within 4:6 × 4:6 × 4:6"


# -- sets of voxels --------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(orientations, seeds)
def test_points_mark_the_voxels_they_lie_in(grid: Grid, seed: int) -> None:
    rng = np.random.default_rng(seed)
    index = rng.integers(0, SHAPE, (4, 3))
    points = (index + rng.uniform(-0.4, 0.4, (4, 3))) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    expected = np.zeros(SHAPE, bool)
    expected[tuple(index.T)] = True
    assert np.array_equal(full(Voxels.of_points(points, grid)), expected)


def test_a_mask_may_cover_a_part_of_the_grid() -> None:
    part = np.ones((2, 3, 1), np.uint8)
    part[0] = 0
    voxels = Voxels.of_mask(part, (slice(4, 6), slice(1, 4), slice(6, 7)))
    expected = np.zeros(SHAPE, bool)
    expected[5, 1:4, 6] = True
    assert np.array_equal(full(voxels), expected)
    assert voxels.count == 3


@settings(max_examples=40, deadline=None)
@given(orientations, seeds)
def test_a_region_of_the_patient_holds_the_voxels_whose_centres_lie_in_it(grid: Grid, seed: int) -> None:
    rng = np.random.default_rng(seed)
    places = np.stack(np.indices(SHAPE), -1) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    middle = places.reshape(-1, 3).mean(0)
    size = (np.ptp(places.reshape(-1, 3), axis=0) + 1) * rng.uniform(0.4, 1.2, 3)
    angle = rng.uniform(0, np.pi)
    axes = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    expected = np.all(np.abs((places - middle) @ axes) <= size / 2 + 1e-6, axis=-1)
    if expected.any():
        assert np.array_equal(full(Voxels.of_roi(middle, size, grid, axes)), expected)
    else:
        with pytest.raises(UsageError, match="holds no voxel"):
            Voxels.of_roi(middle, size, grid, axes)


def test_a_range_of_slices_runs_along_the_patient() -> None:
    grid = oriented([2, 0, 1], (1, -1, 1), (3.0, 1.0, 1.0))  # i runs along S
    expected = np.zeros(SHAPE, bool)
    expected[2:5] = True
    assert np.array_equal(full(Voxels.of_slices(2, 4, grid)), expected)


def test_a_box_is_cut_off_at_the_volume() -> None:
    voxels = Voxels.of_box([[-3, 2], [6, 100], [0, 7]], GRID)
    assert voxels.region == (slice(0, 2), slice(6, 8), slice(0, 7))


def test_no_marks_are_nothing() -> None:
    assert Voxels.of_points([], GRID) is NOTHING
    assert Voxels.of_mask(np.zeros(SHAPE)) is NOTHING


@pytest.mark.parametrize(
    "make",
    [
        lambda: Voxels.of_points([[9e9, 0, 0]], GRID),
        lambda: Voxels.of_points([[1, 2]], GRID),
        lambda: Voxels.of_points([["a", 2, 3]], GRID),
        lambda: Voxels.of_points([[float("nan"), 2, 3]], GRID),
        lambda: Voxels.of_box([[0, 1], [0, 1]], GRID),
        lambda: Voxels.of_box([[0, 1], [0, 1], [3, 3]], GRID),
        lambda: Voxels.of_box([[0, 1], [0, 1], [0.5, 3]], GRID),
        lambda: Voxels.of_slices(5, 4, GRID),
        lambda: Voxels.of_roi([0, 0], [1, 1, 1], GRID),
        lambda: Voxels.of_roi([0, 0, 0], [1, -1, 1], GRID),
        lambda: Voxels.of_roi([0, 0, -9e5], [1, 1, 1], GRID),
        lambda: Voxels.of_mask(np.ones((2, 2, 2)), (slice(0, 2), slice(0, 2), slice(0, 3))),
        lambda: proposal_from_mask(np.ones((2, 2, 2)), LIVER, GRID),
    ],
)
def test_what_marks_nothing_of_the_volume_is_refused(make) -> None:
    with pytest.raises(UsageError) as caught:
        make()
    assert caught.value.remedy
