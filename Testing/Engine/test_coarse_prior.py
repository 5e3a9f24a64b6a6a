"""The coarse pass's word in the fine pass."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from progidiff.pipelines.coarse_prior import add_coarse_prior
from progidiff.volumes import resample
from progidiff.volumes.volume import Volume, axial_grid

SHIFT = st.floats(-40, 40)


@settings(max_examples=25, deadline=None)
@given(st.tuples(SHIFT, SHIFT, SHIFT), st.floats(1.0, 3.0), st.integers(1, 9))
def test_it_lies_where_the_locator_saw_it(
    shift: tuple[float, float, float], pixel: float, slices: int
) -> None:
    rng = np.random.default_rng(0)
    coarse_grid = axial_grid((12, 14, 10), (5.0, 5.0, 5.0), (0.0, 0.0, 0.0))
    grid = axial_grid((16, 16, slices), (pixel, pixel, 3.0), shift)
    coarse = rng.dirichlet(np.ones(3), coarse_grid.shape).astype(np.float32).transpose(3, 0, 1, 2)
    logits = add_coarse_prior(torch.zeros(slices, 3, 16, 16), grid, coarse, coarse_grid, weight=1.0)
    seen = logits.exp().numpy().transpose(1, 3, 2, 0)
    for organ in range(3):
        volume = Volume(coarse[organ], coarse_grid.affine)
        wanted = resample(volume, grid, fill=np.nan, antialias=False).array
        # SimpleITK repeats the outermost half voxel, grid_sample fades it out: compare inside.
        index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
        place = np.linalg.inv(coarse_grid.affine) @ grid.affine
        place = index @ place[:3, :3].T + place[:3, 3]
        inside = ((place >= 0) & (place <= np.array(coarse_grid.shape) - 1)).all(-1)
        np.testing.assert_allclose(seen[organ][inside], np.maximum(wanted[inside], 1e-3), atol=2e-3)


def test_outside_the_coarse_volume_nothing_changes() -> None:
    coarse_grid = axial_grid((4, 4, 4), (5.0, 5.0, 5.0), (0.0, 0.0, 0.0))
    far = axial_grid((8, 8, 2), (2.0, 2.0, 3.0), (500.0, 0.0, 0.0))
    organs = torch.randn(2, 3, 8, 8)
    coarse = np.full((3, 4, 4, 4), 1 / 3, np.float32)
    changed = add_coarse_prior(organs, far, coarse, coarse_grid, weight=0.3)
    torch.testing.assert_close(changed.softmax(1), organs.softmax(1))


def test_no_weight_changes_nothing() -> None:
    grid = axial_grid((8, 8, 2), (2.0, 2.0, 3.0), (0.0, 0.0, 0.0))
    organs = torch.randn(2, 3, 8, 8)
    coarse = np.random.default_rng(0).random((3, 8, 8, 2), np.float32)
    torch.testing.assert_close(add_coarse_prior(organs, grid, coarse, grid, weight=0.0), organs)
