"""Writes segmentations that overlap as 3D Slicer's `.seg.nrrd`.

The file is an NRRD with the layers as its fastest axis; key/value pairs in the header say which
layer and value each segment has, its name, colour, terminology and tags.
Format: https://slicer.readthedocs.io/en/latest/developer_guide/modules/segmentations.html
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from progidiff.proposals.palette import Color
from progidiff.proposals.proposal import Region
from progidiff.proposals.regions import bounding_region, common_region, is_nowhere, shape_of, within
from progidiff.volumes.conversion import LPS_RAS
from progidiff.volumes.volume import Grid

_COMPRESSION = 4  # masks compress to a few per cent at any level; higher ones only take time


@dataclass(frozen=True)
class Segment:
    """One named mask on a grid.

    Attributes:
        id: unique in the file.
        name: what the Segment Editor shows.
        color: red, green, blue, 0 to 255.
        region: box of the grid that `mask` (bool) covers; at least one voxel is set.
        tags: Slicer's segment tags, such as `{"Segmentation.Status": "inprogress"}`.
    """

    id: str
    name: str
    color: Color
    region: Region
    mask: NDArray[np.bool_]
    tags: Mapping[str, str] = field(default_factory=dict)


def write_segmentation(segments: Sequence[Segment], grid: Grid, path: Path) -> None:
    """Writes `segments`, which may overlap, on the whole of `grid`.

    Segments that do not overlap share a layer, as Slicer itself stores them: five proposals of
    thirteen organs need about six layers, not seventy.

    Raises:
        OSError: the file cannot be written.
    """
    layers = pack_layers(segments)
    with path.open("wb") as file:
        file.write(_header(segments, layers, grid).encode("utf-8"))
        # No time stamp, so that the same masks give the same file.
        with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=_COMPRESSION, mtime=0) as stream:
            for k in range(grid.shape[2]):
                stream.write(_slab(segments, layers, grid, k).tobytes())


def pack_layers(segments: Sequence[Segment]) -> list[list[int]]:
    """Indices of the segments of each layer, so that no two of a layer share a voxel."""
    layers: list[list[int]] = []
    for index, segment in enumerate(segments):
        free = (layer for layer in layers if not any(_overlap(segment, segments[other]) for other in layer))
        layer = next(free, None)
        if layer is None:
            layers.append([index])
        else:
            layer.append(index)
    return layers


def _overlap(a: Segment, b: Segment) -> bool:
    shared = common_region(a.region, b.region)
    if is_nowhere(shared):
        return False
    return bool((a.mask[within(shared, a.region)] & b.mask[within(shared, b.region)]).any())


def _slab(segments: Sequence[Segment], layers: list[list[int]], grid: Grid, k: int) -> NDArray[np.uint8]:
    """Voxels of slice `k` as (J, I, layer): NRRD runs through its first axis fastest."""
    slab = np.zeros((grid.shape[1], grid.shape[0], max(1, len(layers))), np.uint8)
    for number, layer in enumerate(layers):
        for value, index in enumerate(layer, start=1):
            i, j, ks = segments[index].region
            if ks.start <= k < ks.stop:
                slab[j, i, number][segments[index].mask[:, :, k - ks.start].T] = value
    return slab


def _header(segments: Sequence[Segment], layers: list[list[int]], grid: Grid) -> str:
    lps = LPS_RAS @ grid.affine[:3, :] + 0.0
    directions = " ".join(_vector(lps[:, axis]) for axis in range(3))
    sizes = " ".join(str(size) for size in grid.shape)
    several = len(layers) > 1
    fields = [
        "NRRD0004",
        "type: unsigned char",
        f"dimension: {4 if several else 3}",
        "space: left-posterior-superior",
        f"sizes: {len(layers)} {sizes}" if several else f"sizes: {sizes}",
        f"space directions: none {directions}" if several else f"space directions: {directions}",
        f"kinds: {'list ' if several else ''}domain domain domain",
        "encoding: gzip",
        f"space origin: {_vector(lps[:, 3])}",
    ]
    placed = {index: (n, v) for n, layer in enumerate(layers) for v, index in enumerate(layer, start=1)}
    for index, segment in enumerate(segments):
        fields += _segment_fields(index, segment, *placed[index])
    fields += [
        "Segmentation_ContainedRepresentationNames:=Binary labelmap|",
        "Segmentation_ConversionParameters:=",
        "Segmentation_MasterRepresentation:=Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset:=0 0 0",
    ]
    return "\n".join(fields) + "\n\n"


def _segment_fields(index: int, segment: Segment, layer: int, value: int) -> list[str]:
    color = " ".join(f"{channel / 255:.6g}" for channel in segment.color)
    tags = "".join(f"{key}:{_tag_value(text)}|" for key, text in segment.tags.items())
    entries = {
        "ID": segment.id,
        "Name": _one_line(segment.name),
        "NameAutoGenerated": "0",
        "Color": color,
        "ColorAutoGenerated": "0",
        "Extent": " ".join(str(bound) for bound in _extent(segment)),
        "Layer": str(layer),
        "LabelValue": str(value),
        "Tags": tags,
    }
    return [f"Segment{index}_{key}:={_escaped(text)}" for key, text in entries.items()]


def _extent(segment: Segment) -> list[int]:
    """First and last voxel that is set, along i, j and k of the grid."""
    box = bounding_region(segment.mask)
    assert not is_nowhere(box), f"segment {segment.id!r} is empty"
    assert segment.mask.shape == shape_of(segment.region)
    starts = [side.start for side in segment.region]
    return [bound for s, b in zip(starts, box, strict=True) for bound in (s + b.start, s + b.stop - 1)]


def _vector(values: NDArray[np.float64]) -> str:
    return "(" + ",".join(repr(float(value)) for value in values) + ")"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _tag_value(text: str) -> str:
    # Slicer ends a tag at the next bar and knows no way to escape one.
    return _one_line(text).replace("|", "/")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\")
