"""Grids and resampling: whatever the orientation, things stay where they are in the patient."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from progidiff.errors import UsageError
from progidiff.volumes import Grid, Volume, axial_grid, covering_axial_grid, crop_grid, resample

ORIENTATIONS = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1.0, -1.0), repeat=3)
]
SHAPE = (18, 14, 10)
SPACING = (1.5, 2.0, 3.0)
BLOB_RADIUS = 8.0


def oriented_affine(order: tuple[int, ...], signs: tuple[float, ...], spacing=SPACING, origin=(12, -34, 56)):
    """Affine whose voxel axis `a` runs along patient axis `order[a]`, backwards for a negative sign."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis in range(3):
        affine[order[axis], axis] = signs[axis] * spacing[axis]
    affine[:3, 3] = origin
    return affine


def rotation(angles: tuple[float, float, float]) -> NDArray:
    """4×4 rotation about the x, y and z axes by radians."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [n for n in range(3) if n != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    full = np.eye(4)
    full[:3, :3] = matrix
    return full


def positions(grid: Grid | Volume) -> NDArray:
    """(I, J, K, 3) RAS mm of every voxel centre."""
    indices = np.stack(np.indices(grid.shape), -1)
    return indices @ grid.affine[:3, :3].T + grid.affine[:3, 3]


def fov_center(shape, affine) -> NDArray:
    return affine[:3, :3] @ ((np.asarray(shape) - 1) / 2) + affine[:3, 3]


def blob(shape, affine, center) -> Volume:
    """A ball with a soft edge, 1 inside, in a volume of zeros."""
    distance = np.linalg.norm(positions(Grid(shape, affine)) - center, axis=-1)
    return Volume(np.clip((BLOB_RADIUS - distance) / 3 + 0.5, 0, 1).astype(np.float32), affine)


def centroid(volume: Volume) -> NDArray:
    weights = volume.array / volume.array.sum()
    return (positions(volume) * weights[..., None]).sum(axis=(0, 1, 2))


def dice(a: NDArray, b: NDArray) -> float:
    return 2 * np.sum(a & b) / (a.sum() + b.sum())


def assert_blob_comes_back(volume: Volume) -> None:
    canonical = resample(volume, covering_axial_grid(volume, 1.0), fill=0)
    back = resample(canonical, volume.grid, fill=0, antialias=False)
    assert back.shape == volume.shape
    np.testing.assert_array_equal(back.affine, volume.affine)
    fraction = 0.1 * volume.spacing.min()
    np.testing.assert_allclose(centroid(canonical), centroid(volume), atol=fraction)
    np.testing.assert_allclose(centroid(back), centroid(volume), atol=fraction)
    assert dice(back.array > 0.5, volume.array > 0.5) > 0.9


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_blob_stays_in_place_for_every_orientation(order, signs):
    affine = oriented_affine(order, signs)
    volume = blob(SHAPE, affine, fov_center(SHAPE, affine) + np.array([1.0, 0.7, -1.2]))
    assert_blob_comes_back(volume)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    angles=st.tuples(*[st.floats(-np.pi, np.pi)] * 3),
    spacing=st.tuples(*[st.floats(0.9, 3.0)] * 3),
    flip=st.booleans(),
)
def test_blob_stays_in_place_for_oblique_volumes(angles, spacing, flip):
    affine = rotation(angles) @ oriented_affine((0, 1, 2), (-1.0 if flip else 1.0, 1.0, 1.0), spacing)
    shape = tuple(int(28 / step) for step in spacing)
    assert_blob_comes_back(blob(shape, affine, fov_center(shape, affine)))


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_reordering_alone_changes_no_voxel(order, signs):
    affine = oriented_affine(order, signs)
    labels = np.random.default_rng(0).integers(0, 200, SHAPE, dtype=np.uint8)
    volume = Volume(labels, affine)
    canonical_spacing = np.abs(affine[:3, :3]).max(axis=1)
    grid = covering_axial_grid(volume, canonical_spacing)
    assert sorted(grid.shape) == sorted(SHAPE)
    for interpolation in (0, 1):
        canonical = resample(volume, grid, order=interpolation)
        back = resample(canonical, volume.grid, order=interpolation)
        np.testing.assert_allclose(back.array, labels, atol=1e-3)


def test_canonical_orientation_is_left_posterior_superior():
    affine = oriented_affine((0, 1, 2), (1.0, 1.0, 1.0), (1, 1, 1))
    values = np.arange(8 * 7 * 6, dtype=np.int16).reshape(8, 7, 6)
    canonical = resample(Volume(values, affine), covering_axial_grid(Grid((8, 7, 6), affine), 1.0), order=0)
    np.testing.assert_array_equal(canonical.array, values[::-1, ::-1, :])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    angles=st.tuples(*[st.floats(-0.8, 0.8)] * 3),
    coarse=st.floats(0.7, 9.0),
    offset=st.tuples(*[st.floats(-0.5, 0.5)] * 3),
    shape=st.sampled_from([SHAPE, (1, 12, 9), (9, 1, 12), (12, 9, 1), (1, 1, 1)]),
)
def test_a_mask_of_ones_survives_there_and_back(angles, coarse, offset, shape):
    affine = rotation(angles) @ oriented_affine((1, 0, 2), (1.0, -1.0, 1.0))
    ones = Volume(np.ones(shape, np.uint8), affine)
    cover = covering_axial_grid(ones, coarse)
    # A crop need not be centred on the field of view, and may reach far beyond it.
    larger = tuple(n + 3 for n in cover.shape)
    shifted = axial_grid(
        larger, (coarse,) * 3, fov_center(cover.shape, cover.affine) + np.multiply(offset, coarse)
    )
    for grid in (cover, shifted):
        back = resample(resample(ones, grid, fill=0), ones.grid, fill=0, antialias=False)
        assert back.shape == shape
        assert back.array.min() > 0.99


@pytest.mark.parametrize("axis", range(3))
def test_a_single_slice_keeps_its_place_and_values(axis):
    shape = tuple(1 if a == axis else 12 for a in range(3))
    affine = oriented_affine((0, 1, 2), (-1.0, -1.0, 1.0), tuple(5.0 if a == axis else 1.5 for a in range(3)))
    picture = np.random.default_rng(1).integers(0, 4, shape, dtype=np.uint8)
    volume = Volume(picture, affine)
    fine = resample(volume, covering_axial_grid(volume, (1.5, 1.5, 1.5)), order=0)
    assert fine.shape[axis] == 4
    np.testing.assert_array_equal(resample(fine, volume.grid, order=0).array, picture)


@pytest.mark.parametrize("spacing", [0.8, 1.0, 2.0, 3.5, 6.0])
@pytest.mark.parametrize("layout", ["C", "F"])
def test_a_ramp_keeps_its_slope_at_any_coarseness(spacing, layout):
    """A voxel's value is its own position, so any shift by averaging or interpolation would show."""
    affine = rotation((0.05, -0.1, 0.2)) @ oriented_affine((2, 0, 1), (1.0, -1.0, 1.0), (0.9, 1.1, 1.0))
    shape = (38, 40, 37)
    ramp = positions(Grid(shape, affine)) @ [1.0, 2.0, -3.0]
    volume = Volume(np.asarray(ramp, np.float32, order=layout), affine)
    center = fov_center(shape, affine)
    inside = axial_grid((3, 3, 3), (spacing,) * 3, center)
    expected = positions(inside) @ [1.0, 2.0, -3.0]
    np.testing.assert_allclose(resample(volume, inside).array, expected, atol=0.02)


def test_without_antialiasing_a_result_returns_to_thick_slices_unmixed():
    """Slices of 5 mm, interpolated to 1 mm and back: each gets its own value again."""
    slices = np.arange(6, dtype=np.float32) ** 2
    thick = Volume(np.broadcast_to(slices, (4, 4, 6)), np.diag([1.0, 1.0, 5.0, 1.0]))
    fine = resample(thick, covering_axial_grid(thick, 1.0))
    np.testing.assert_allclose(resample(fine, thick.grid, antialias=False).array, thick.array, atol=1e-4)
    assert np.abs(resample(fine, thick.grid).array - thick.array).max() > 0.3


def test_coarse_sampling_averages_instead_of_picking_voxels():
    checkerboard = (np.indices((24, 24, 24)).sum(axis=0) % 2).astype(np.uint8)
    volume = Volume(checkerboard, np.eye(4))
    coarse = resample(volume, covering_axial_grid(volume, 4.0))
    np.testing.assert_allclose(coarse.array, 0.5, atol=1e-6)


def test_blocks_that_do_not_divide_the_volume_lose_no_edge():
    array = np.zeros((10, 10, 10), np.float32)
    array[9] = 1
    volume = Volume(array, np.eye(4))
    coarse = resample(volume, covering_axial_grid(volume, 4.0))
    np.testing.assert_allclose(coarse.array[0], 0.5, atol=0.5)
    assert coarse.array[0].min() > 0.1


def test_outside_is_filled_and_nothing_leaks_into_it():
    volume = Volume(np.full((4, 5, 6), 7, np.int16), np.diag([1.0, 2.0, 3.0, 1.0]))
    volume.array[0, 0, 0] = -1000
    larger = crop_grid(volume, [(-3, 7), (-3, 8), (-3, 9)])
    inner = (slice(3, 7), slice(3, 8), slice(3, 9))
    for order, fill, expected in [(1, None, -1000), (0, None, -1000), (1, 0, 0), (0, 3, 3)]:
        moved = resample(volume, larger, order=order, fill=fill)
        np.testing.assert_array_equal(moved.array[inner], volume.array)
        outside = np.ones(moved.shape, bool)
        outside[inner] = False
        assert (moved.array[outside] == expected).all()


def test_a_grid_may_be_described_by_numpy_integers():
    volume = Volume(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.eye(4, dtype=int))
    moved = resample(volume, Grid(tuple(np.array([2, 3, 2])), np.eye(4, dtype=int)), order=0)
    np.testing.assert_array_equal(moved.array, volume.array[:, :, :2])


def test_a_grid_elsewhere_is_all_fill():
    volume = Volume(np.ones((4, 4, 4), np.float32), np.eye(4))
    far = axial_grid((5, 5, 5), (1, 1, 1), np.array([500.0, 0, 0]))
    assert (resample(volume, far, fill=-3).array == -3).all()


@pytest.mark.parametrize("dtype", [bool, "u1", "i1", "u2", ">i2", "i4", "i8", "f4", "f8", "f2"])
def test_nearest_keeps_the_dtype_and_linear_gives_float32(dtype):
    array = (np.arange(60).reshape(3, 4, 5) % 2).astype(dtype)
    volume = Volume(array, np.eye(4), "CT", "name", {"format": "x"})
    grid = crop_grid(volume, [(1, 3), (0, 4), (2, 5)])
    nearest = resample(volume, grid, order=0)
    assert nearest.array.dtype == array.dtype
    np.testing.assert_array_equal(nearest.array, array[1:3, 0:4, 2:5])
    assert resample(volume, grid).array.dtype == np.float32
    assert (nearest.modality, nearest.name, nearest.metadata) == ("CT", "name", {"format": "x"})


def test_an_unknown_order_is_refused():
    volume = Volume(np.ones((2, 2, 2)), np.eye(4))
    with pytest.raises(UsageError, match="order 3"):
        resample(volume, volume.grid, order=3)


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_covering_grid_is_exact_for_aligned_volumes(order, signs):
    affine = rotation((1e-9, -2e-9, 1e-9)) @ oriented_affine(order, signs, (2.0, 2.0, 2.0))
    grid = covering_axial_grid(Grid((8, 10, 12), affine), 2.0)
    sizes = dict(zip(order, (8, 10, 12), strict=True))
    assert grid.shape == (sizes[0], sizes[1], sizes[2])
    assert covering_axial_grid(Grid((8, 10, 12), affine), 4.0).shape == tuple(n // 2 for n in grid.shape)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(angles=st.tuples(*[st.floats(-np.pi, np.pi)] * 3), spacing=st.floats(0.5, 8.0))
def test_covering_grid_holds_every_voxel(angles, spacing):
    grid = Grid(SHAPE, rotation(angles) @ oriented_affine((0, 1, 2), (1.0, 1.0, 1.0)))
    cover = covering_axial_grid(grid, spacing)
    inside = positions(grid) @ np.linalg.inv(cover.affine)[:3, :3].T + np.linalg.inv(cover.affine)[:3, 3]
    assert (inside > -0.5).all()
    assert (inside < np.array(cover.shape) - 0.5).all()
    np.testing.assert_allclose(cover.spacing, spacing)


def test_crop_grid_is_the_geometry_of_array_slicing():
    affine = rotation((0.3, 0.2, -0.4)) @ oriented_affine((0, 2, 1), (1.0, -1.0, 1.0))
    grid = Grid(SHAPE, affine)
    region = (slice(2, 9), slice(0, 5), slice(3, 9))
    cropped = crop_grid(grid, region)
    assert cropped.shape == (7, 5, 6)
    np.testing.assert_allclose(positions(cropped), positions(grid)[region], atol=1e-9)
    assert crop_grid(grid, [[2, 9], [0, 5], [3, 9]]).shape == (7, 5, 6)


@pytest.mark.parametrize(
    "region", [[(0, 3), (0, 3)], [(0, 3), (2, 2), (0, 1)], [slice(None), (0, 1), (0, 1)]]
)
def test_crop_grid_refuses_what_is_no_box(region):
    with pytest.raises(UsageError):
        crop_grid(Grid(SHAPE, np.eye(4)), region)
