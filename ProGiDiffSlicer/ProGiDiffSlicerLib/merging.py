"""Several proposals of one organ into a new one; the old ones stay."""

from __future__ import annotations

import uuid

import numpy as np

from ProGiDiffSlicerLib.errors import SegmentationError
from ProGiDiffSlicerLib.proposal import MERGED, Proposal

MEAN = "Mean probability"
WAYS = {
    "Union": "union",
    "Intersection": "intersection",
    "Majority": "majority",
    MEAN: "mean",
    "STAPLE": "staple",
}
Region = list[list[int]]


def merge(proposals: list[Proposal], way: str, threshold: float, voxel_ml: float, number: int) -> Proposal:
    """A new proposal out of at least two of one organ.

    Args:
        way: a key of :data:`WAYS`.
        threshold: in [0, 1], used by the mean of the probabilities; the others decide voxel by voxel.
        voxel_ml: volume of one voxel.
        number: for its name, such as "liver: union 1".

    Raises:
        SegmentationError: fewer than two, or of different organs.
    """
    _check(proposals)
    region = enclosing_region([p.region for p in proposals])
    votes = np.stack([_spread(p.mask.astype(np.uint8), p.region, region) for p in proposals])
    probability = _combine(proposals, votes, region, WAYS[way])
    used = threshold if way == MEAN else 0.5
    first = proposals[0]
    merged = Proposal(
        id=f"merged-{uuid.uuid4().hex[:12]}",
        name=f"{first.organ_name}: {way.lower() if way != 'STAPLE' else way} {number}",
        organ=first.organ,
        organ_name=first.organ_name,
        kind=MERGED,
        score=float(np.mean([p.score for p in proposals])),
        volume_ml=0.0,
        region=region,
        probability=probability,
        threshold=used,
        provenance={
            **first.provenance,
            "seed": "",
            "method": f"merged:{WAYS[way]}",
            "parent": " ".join(p.id for p in proposals),
        },
    )
    merged.volume_ml = float(merged.mask.sum()) * voxel_ml
    return merged


def dice(first: Proposal, second: Proposal) -> float:
    """Overlap of two masks in [0, 1]; 1 when both are empty."""
    region = enclosing_region([first.region, second.region])
    a, b = (_spread(p.mask, p.region, region) for p in (first, second))
    total = int(a.sum()) + int(b.sum())
    return 1.0 if total == 0 else 2.0 * int((a & b).sum()) / total


def enclosing_region(regions: list[Region]) -> Region:
    """The smallest box around all boxes that hold anything."""
    filled = [r for r in regions if all(stop > start for start, stop in r)]
    if not filled:
        return [list(axis) for axis in regions[0]]
    return [[min(r[a][0] for r in filled), max(r[a][1] for r in filled)] for a in range(3)]


def _check(proposals: list[Proposal]) -> None:
    if len(proposals) < 2:
        raise SegmentationError("Merging needs at least two proposals.", "Tick two or more in the list.")
    if len({p.organ for p in proposals}) > 1:
        raise SegmentationError(
            "Only proposals of one organ can be merged.", "Tick proposals of the same organ."
        )


def _spread(values: np.ndarray, region: Region, onto: Region) -> np.ndarray:
    """`values` over `region`, laid into the larger box `onto`, zero elsewhere."""
    full = np.zeros([stop - start for start, stop in onto], values.dtype)
    if values.size:
        full[tuple(slice(r[0] - o[0], r[1] - o[0]) for r, o in zip(region, onto, strict=True))] = values
    return full


def _combine(proposals: list[Proposal], votes: np.ndarray, region: Region, how: str) -> np.ndarray:
    """uint8 probability over `region`, 255 = certain."""
    if how == "mean":
        probabilities = [_spread(p.probability, p.region, region) for p in proposals]
        return np.round(np.mean(probabilities, axis=0, dtype=np.float32)).astype(np.uint8)
    if how == "staple":
        return _staple(votes)
    agreed = votes.sum(axis=0)
    needed = {"union": 1, "intersection": len(proposals), "majority": len(proposals) // 2 + 1}[how]
    return np.where(agreed >= needed, 255, 0).astype(np.uint8)


def _staple(votes: np.ndarray) -> np.ndarray:
    """Warfield's STAPLE (doi:10.1109/TMI.2004.828354) as SimpleITK, bundled with Slicer, computes it."""
    import SimpleITK as sitk

    estimate = sitk.STAPLE([sitk.GetImageFromArray(np.ascontiguousarray(v)) for v in votes], 1.0)
    return np.round(sitk.GetArrayFromImage(estimate) * 255).clip(0, 255).astype(np.uint8)
