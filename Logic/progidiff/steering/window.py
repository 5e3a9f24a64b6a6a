"""Where a steered proposal is drawn, and what the model is shown there of mask and marks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from progidiff.pipelines.locate import OrganBox, canonical_mm, locate
from progidiff.pipelines.steering import Knowledge
from progidiff.prompts import Organ, Target, organ_table
from progidiff.proposals import NOWHERE, Region, union_region
from progidiff.proposals.regions import is_nowhere, mask_on
from progidiff.segmenter import native_region
from progidiff.steering.promises import Promises
from progidiff.steering.voxels import Voxels
from progidiff.volumes.resample import crop_grid, resample
from progidiff.volumes.volume import Grid, Volume

if TYPE_CHECKING:
    from progidiff.segmenter import OrganCrop, PreparedVolume, Segmenter

_CERTAIN = 0.999  # share of a pixel of the window that must be known
_MARK_SHARE = 0.05  # reach of a mark as a share of the organ's typical size,
_MARK_MM = (2.0, 8.0)  # and its limits: 2 mm for an adrenal gland, 8 mm for a liver
_REACHES = 2.5  # a mark has no influence beyond so many times its reach


def window_for(
    segmenter: Segmenter, prepared: PreparedVolume, target: Target, promises: Promises
) -> OrganCrop | None:
    """The window in which the organ is drawn: the located one, unless mask or marks lie elsewhere.

    With a parent the window follows it and the marks; without one, the marks and what was located;
    without either, the region to work in.

    Returns:
        None if there is nothing that says where the organ could be.
    """
    grid, parent = prepared.volume.grid, promises.parent
    located = segmenter.organ_crop(prepared, target)
    mask = _occupied(parent.region, parent.mask_in_region) if parent is not None else NOWHERE
    needed = union_region([mask, promises.inside.region])
    if is_nowhere(needed):
        region = promises.region
        if region is None or (located is not None and _meets(_box_of(located.grid), _box(region, grid))):
            return located
        return segmenter.crop_at(prepared, _box(region, grid))
    box = _box_in(grid, needed)
    if located is not None and _covers(_box_of(located.grid), box, located.grid.spacing):
        return located
    if is_nowhere(mask):
        organ = organ_table().by_id(target.organ)
        if organ.within:  # a finding lies in its organ; only organs are located
            organ = organ_table().by_id(organ.within)
        seen = locate(prepared.coarse[organ.label], prepared.coarse_grid, organ)
        box = _join(box, seen if seen is not None else _typical(box, organ))
    return segmenter.crop_at(prepared, box)


def guess_on(window: Grid, promises: Promises) -> Tensor | None:
    """The parent's mask on the window's slices: (S, H, W) in [0, 1], None without a parent."""
    if promises.parent is None:
        return None
    region = native_region(window, promises.parent.grid)
    return _to_slices(_bring(mask_on(promises.parent, region), region, promises.parent.grid, window))


def knowledge_on(window: Grid, native: Grid, promises: Promises, organ: Organ) -> Knowledge | None:
    """What the promises say of the window's slices; None if they say nothing.

    What may not change is known for certain. Marks are known where they lie and fade with the distance
    from them, since who marks a point means the tissue around it. Where nothing may change and there is
    no parent the model is told nothing: a region to work in does not say that the organ ends there.
    """
    value = np.zeros(window.shape, np.float32)
    weight = np.zeros(window.shape, np.float32)
    if promises.inside.count or promises.outside.count:
        value, weight = _marks(window, native, promises, organ)
    if promises.parent is not None and (promises.fixed.count or promises.region is not None):
        region = native_region(window, native)
        certain = _bring(promises.frozen(region), region, native, window) >= _CERTAIN
        content = _bring(mask_on(promises.parent, region), region, native, window)
        value[certain], weight[certain] = content[certain], 1.0
    if not weight.any():
        return None
    return Knowledge(_to_slices(value), _to_slices(weight))


def _marks(
    window: Grid, native: Grid, promises: Promises, organ: Organ
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Value and weight that the marks inside and outside give every pixel of the window."""
    reach = float(np.clip(_MARK_SHARE * np.mean(organ.typical_extent_mm), *_MARK_MM))
    near_in = _nearness(promises.inside, window, native, reach)
    near_out = _nearness(promises.outside, window, native, reach)
    total = near_in + near_out
    value = np.divide(near_in, total, out=np.zeros_like(total), where=total > 0)
    return value, np.maximum(near_in, near_out)


def _nearness(marks: Voxels, window: Grid, native: Grid, reach: float) -> NDArray[np.float32]:
    """exp(−d²/2r²) of the distance d to the nearest mark, 1 on the marks, 0 far from them."""
    marked = _marked_pixels(marks, window, native)
    if not marked.any():
        return np.zeros(window.shape, np.float32)
    distance = ndimage.distance_transform_edt(~marked, sampling=window.spacing)
    near = np.exp(-0.5 * (distance / reach) ** 2)
    return np.where(distance <= _REACHES * reach, near, 0.0).astype(np.float32)


def _marked_pixels(marks: Voxels, window: Grid, native: Grid) -> NDArray[np.bool_]:
    """The window's pixels (W, H, S) that are marked: none of the marks is lost, however coarse the pixels."""
    region = native_region(window, native)
    if not marks.count or is_nowhere(region):
        return np.zeros(window.shape, bool)
    marked = _bring(marks.on(region), region, native, window) > 0.5
    index = np.argwhere(marks.inside) + [side.start for side in marks.region]
    to_window = np.linalg.inv(window.affine) @ native.affine
    places = np.rint(index @ to_window[:3, :3].T + to_window[:3, 3]).astype(int)
    within = ((places >= 0) & (places < np.asarray(window.shape))).all(1)
    marked[tuple(places[within].T)] = True
    return marked


def _bring(mask: NDArray[np.bool_], region: Region, native: Grid, window: Grid) -> NDArray[np.float32]:
    """A mask on a box of the native grid → its share (W, H, S) of each pixel of the window."""
    volume = Volume(mask.astype(np.float32), crop_grid(native, region).affine)
    return resample(volume, window, fill=0.0).array


def _to_slices(array: NDArray[np.float32]) -> Tensor:
    """(W, H, S) on the window's grid → (S, H, W) as the pipeline wants it."""
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 1, 0)))


# -- boxes in canonical millimetres ----------------------------------------------------------------


def _occupied(region: Region, mask: NDArray[np.bool_]) -> Region:
    """The box of the voxels in `mask`, which covers `region`."""
    return Voxels.of_mask(mask, region).region


def _box(voxels: Voxels, grid: Grid) -> OrganBox:
    return _box_in(grid, voxels.region)


def _box_in(grid: Grid, region: Region) -> OrganBox:
    """The box around an index box of a grid."""
    ends = [(side.start - 0.5, side.stop - 0.5) for side in region]
    corners = np.stack(np.meshgrid(*ends, indexing="ij"), -1).reshape(-1, 3)
    mm = canonical_mm(corners @ grid.affine[:3, :3].T + grid.affine[:3, 3])
    return OrganBox(mm.min(0), mm.max(0))


def _box_of(grid: Grid) -> OrganBox:
    return _box_in(grid, (slice(0, grid.shape[0]), slice(0, grid.shape[1]), slice(0, grid.shape[2])))


def _covers(outer: OrganBox, inner: OrganBox, slack: NDArray[np.float64]) -> bool:
    return bool((outer.low - slack <= inner.low).all() and (inner.high <= outer.high + slack).all())


def _meets(a: OrganBox, b: OrganBox) -> bool:
    return bool((np.maximum(a.low, b.low) < np.minimum(a.high, b.high)).all())


def _join(a: OrganBox, b: OrganBox) -> OrganBox:
    return OrganBox(np.minimum(a.low, b.low), np.maximum(a.high, b.high))


def _typical(box: OrganBox, organ: Organ) -> OrganBox:
    """A box of the organ's typical size around the centre of another one."""
    half = np.asarray(organ.typical_extent_mm) / 2
    return OrganBox(box.center - half, box.center + half)
