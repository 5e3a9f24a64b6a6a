"""From one grid to another and back without losing an edge, a slice or half a voxel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from progidiff.errors import UsageError
from progidiff.volumes.conversion import array_from_image, image_from_array, simpleitk
from progidiff.volumes.volume import Grid, Volume, axial_grid

# Share of a voxel by which a covering grid may fall short, so that rounding adds no extra slice.
SLACK = 0.02


def covering_axial_grid(grid: Grid | Volume, spacing: float | Sequence[float]) -> Grid:
    """The smallest canonical grid of the given spacing that covers a field of view.

    Args:
        grid: field of view in any orientation, as far as the outer faces of its voxels.
        spacing: mm, one number or (i, j, k) of the canonical grid (see `axial_grid`).

    Returns:
        Axis-aligned grid with the field of view in its centre.
    """
    steps = np.broadcast_to(np.asarray(spacing, float), (3,))
    low, high = _bounds(grid.affine, np.asarray(grid.shape))
    shape = np.maximum(np.ceil((high - low) / steps - SLACK).astype(int), 1)
    return axial_grid(
        (int(shape[0]), int(shape[1]), int(shape[2])),
        (float(steps[0]), float(steps[1]), float(steps[2])),
        (low + high) / 2,
    )


def crop_grid(grid: Grid | Volume, region: Sequence[slice | Sequence[int]]) -> Grid:
    """The part of a grid inside a box of voxel indices.

    Args:
        grid: any grid.
        region: for each axis a slice or (start, stop). Starts below 0 and stops beyond the shape
            extend the grid.

    Raises:
        UsageError: a slice without both ends, or a box without voxels.
    """
    ends = [(part.start, part.stop) if isinstance(part, slice) else tuple(part) for part in region]
    if len(ends) != 3 or any(start is None or stop is None or stop <= start for start, stop in ends):
        raise UsageError(f"The region {ends} is not a box of voxels.", "Give (start, stop) for three axes.")
    starts = np.array([start for start, _ in ends], float)
    affine = np.array(grid.affine, float)
    affine[:3, 3] += affine[:3, :3] @ starts
    i, j, k = (int(stop - start) for start, stop in ends)
    return Grid((i, j, k), affine)


def resample(
    volume: Volume, grid: Grid, order: int = 1, fill: float | None = None, *, antialias: bool = True
) -> Volume:
    """The volume's values on another grid.

    Where the target is at least twice as coarse as the source along a source axis, linear
    interpolation reads averages of whole numbers of voxels instead of single ones, so that nothing
    aliases and large volumes shrink fast. Target voxels whose centre lies less than one of their own
    edges beyond the outermost source voxel centres (or inside the source's half voxel rim) take the
    nearest value: a mask that touches the border survives going there and back.

    Args:
        volume: source, shape (I, J, K).
        grid: target.
        order: 1 linear (float32 result), 0 nearest neighbour (dtype kept).
        fill: value outside the source, by default the source's minimum.
        antialias: average where the target is coarser. Switch it off to bring a result back to the
            coarser slices that the image was interpolated from: at their centres it holds exactly what
            belongs to them, and averages would mix in the neighbours.

    Raises:
        UsageError: an order other than 0 or 1.
    """
    if order not in (0, 1):
        raise UsageError(f"Interpolation order {order} is not supported.", "Use 0 (nearest) or 1 (linear).")
    dtype = volume.array.dtype if order == 0 else np.dtype(np.float32)
    fill = float(volume.array.min()) if fill is None else float(fill)
    to_source = np.linalg.inv(volume.affine) @ grid.affine
    # Rounding noise of the inverse would hide that axes are parallel, which saves most of the work.
    to_source[np.abs(to_source) < 1e-9] = 0.0
    margin = np.maximum(0.5, np.abs(to_source[:3, :3]).sum(axis=1) * 0.999)

    region = _needed_region(to_source, grid.shape, volume.shape, margin)
    if region is None:
        array = np.full(grid.shape, fill, dtype, order="F")
    else:
        factors = _shrink_factors(to_source) if order == 1 and antialias else np.ones(3, int)
        source = _block_average(volume.array[region], factors)
        array = _interpolate(source, _to_shrunk(to_source, region, factors), grid.shape, order)
        array = array.astype(dtype, copy=False)
        _fill_outside(array, to_source, volume.shape, margin, fill)
    return replace(volume, array=array, affine=np.array(grid.affine, float))


def _bounds(affine: NDArray, shape: NDArray) -> tuple[NDArray, NDArray]:
    """Lowest and highest coordinates (3,) that `affine` gives the outer corners of a voxel box."""
    corners = np.stack(np.meshgrid(*[(-0.5, n - 0.5) for n in shape], indexing="ij"), -1).reshape(-1, 3)
    mapped = corners @ affine[:3, :3].T + affine[:3, 3]
    return mapped.min(axis=0), mapped.max(axis=0)


def _needed_region(
    to_source: NDArray, target_shape: Sequence[int], source_shape: Sequence[int], margin: NDArray
) -> tuple[slice, slice, slice] | None:
    """The box of source voxels that the target can see, None when there is none."""
    size = np.asarray(source_shape)
    low, high = _bounds(to_source, np.asarray(target_shape))
    if (high < -margin).any() or (low > size - 1 + margin).any():
        return None
    reach = np.ceil(margin) + 2
    start = np.clip(np.floor(low - reach), 0, size - 1).astype(int)
    stop = np.clip(np.ceil(high + reach) + 1, start + 1, size).astype(int)
    i, j, k = (slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    return i, j, k


def _shrink_factors(to_source: NDArray) -> NDArray:
    """Whole source voxels (3,) per target voxel along each source axis; 1 below two."""
    # The length of a row is how far one target voxel reaches along that source axis, whatever the angle.
    extent = np.linalg.norm(to_source[:3, :3], axis=1)
    return np.maximum(np.floor(extent + 1e-6).astype(int), 1)


def _block_average(array: NDArray, factors: NDArray) -> NDArray:
    """Means of `factors` voxels along each axis, float32 if anything was averaged.

    Voxels that do not fill a last block make a shorter one, so that no edge is lost.
    """
    factors = np.minimum(factors, array.shape)
    # Averaging the slowest axis first adds long contiguous runs; the later axes have little left to do.
    for axis in sorted(range(3), key=lambda a: -abs(array.strides[a])):
        factor = int(factors[axis])
        if factor == 1:
            continue
        voxels = np.moveaxis(array, axis, 0)
        whole = len(voxels) // factor * factor
        total = voxels[0:whole:factor].astype(np.float32)
        for offset in range(1, factor):
            total += voxels[offset:whole:factor]
        total /= factor
        if whole < len(voxels):
            rest = voxels[whole:].mean(axis=0, dtype=np.float32, keepdims=True)
            total = np.concatenate([total, rest])
        array = np.moveaxis(total, 0, axis)
    return array


def _to_shrunk(to_source: NDArray, region: tuple[slice, ...], factors: NDArray) -> NDArray:
    """Target index → index in the cropped and averaged source."""
    start = np.array([part.start for part in region])
    factors = np.minimum(factors, [part.stop - part.start for part in region])
    matrix = to_source.copy()
    matrix[:3, 3] -= start + (factors - 1) / 2
    matrix[:3] /= factors[:, None]
    return matrix


def _interpolate(source: NDArray, to_source: NDArray, shape: tuple[int, int, int], order: int) -> NDArray:
    """Values of `source` at every index of the target; beyond the border the nearest one."""
    sitk = simpleitk()
    # Both grids are described by voxel indices alone: no directions or origins that could disagree.
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(to_source[:3, :3].ravel().tolist())
    transform.SetTranslation(to_source[:3, 3].tolist())
    filter_ = sitk.ResampleImageFilter()
    filter_.SetSize([int(n) for n in shape])
    filter_.SetTransform(transform)
    filter_.SetInterpolator(sitk.sitkLinear if order == 1 else sitk.sitkNearestNeighbor)
    filter_.SetUseNearestNeighborExtrapolator(True)
    image = image_from_array(source)
    filter_.SetOutputPixelType(sitk.sitkFloat32 if order == 1 else image.GetPixelID())
    return array_from_image(filter_.Execute(image))


def _fill_outside(
    array: NDArray, to_source: NDArray, source_shape: Sequence[int], margin: NDArray, fill: float
) -> None:
    """Set target voxels that lie more than `margin` beyond the outermost source centres to `fill`."""
    indices = np.ogrid[tuple(slice(0, n) for n in array.shape)]
    low, high = _bounds(to_source, np.asarray(array.shape))
    for axis in range(3):
        last = source_shape[axis] - 1 + margin[axis]
        if low[axis] >= -margin[axis] and high[axis] <= last:
            continue
        terms = [
            (to_source[axis, t] * indices[t]).astype(np.float32) for t in range(3) if to_source[axis, t] != 0
        ]
        position = sum(terms, np.full((1, 1, 1), to_source[axis, 3], np.float32))
        outside = (position < -margin[axis]) | (position > last)
        np.copyto(array, np.asarray(fill).astype(array.dtype), where=outside)
