"""Training cases packed small: canonical orientation, eight bits.

Training reads random slices of random cases thousands of times a minute, so the cases are brought
once into the orientation the model sees; `pack_cache` keeps them on disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, gaussian_filter

from progidiff.pipelines.crop import FINEST_PIXEL_MM
from progidiff.prompts import organ_table
from progidiff.volumes.volume import Volume

# Voxel axes of the canonical axial orientation expressed in RAS: i → left, j → posterior, k → superior.
_CANONICAL_AXES = np.diag([-1.0, -1.0, 1.0])
_FEWEST_VOXELS = 20  # what is smaller is a slip of the annotation rather than an organ

Boxes = dict[int, tuple[NDArray[np.int_], NDArray[np.int_]]]
"""Label number → lowest and highest voxel index along (k, j, i)."""


@dataclass(frozen=True)
class PackedCase:
    """One patient or phantom, ready for training; arrays from the cache are mapped files and read-only.

    Attributes:
        id: name of the case.
        image: uint8 (K, J, I), 0…255 for normalised intensity −1…1, or None for a label map alone.
        label: uint8 (K, J, I), organ numbers of the organ table.
        spacing: mm along (k, j, i).
        organs: label numbers that were annotated in this case; others are unknown, not absent.
        domain: "CT", "MR", "phantom" or "labels".
        checked: by label number, (K,) which slices are truth; None where the whole volume is. Not saved.
        findings: uint8 (K, J, I), numbers of findings such as the liver's tumor, else 0; in `label` these
            voxels have the number of the organ. None where there are none.
        annotated_findings: numbers of the findings that were annotated, present or not; others are unknown.
    """

    id: str
    image: NDArray[np.uint8] | None
    label: NDArray[np.uint8]
    spacing: tuple[float, float, float]
    organs: tuple[int, ...]
    domain: str
    checked: dict[int, NDArray[np.bool_]] | None = None
    findings: NDArray[np.uint8] | None = None
    annotated_findings: tuple[int, ...] = ()

    def known_on(self, k: int) -> list[int]:
        """Label numbers that are annotated on one slice."""
        if self.checked is None:
            return list(self.organs)
        return [organ for organ in self.organs if self.checked[organ][k]]

    def knows_finding(self, number: int) -> bool:
        """Whether `findings` is the truth for one finding: it was annotated, or a phantom cannot have it."""
        return number in self.annotated_findings or self.domain == "phantom"

    @cached_property
    def boxes(self) -> Boxes:
        """Where each annotated organ lies that is there, in the order of `organs`."""
        found = find_objects(self.label, max_label=max(self.organs, default=1))
        boxes = {}
        for organ in self.organs:
            box = found[organ - 1]
            if box and np.count_nonzero(self.label[box] == organ) >= _FEWEST_VOXELS:
                boxes[organ] = np.array([s.start for s in box]), np.array([s.stop - 1 for s in box])
        return boxes


def to_canonical_axes(array: NDArray, affine: NDArray) -> tuple[NDArray, tuple[float, float, float]]:
    """Permute and flip a volume to the nearest canonical axial orientation, without interpolation.

    Args:
        array: (I, J, K) voxels.
        affine: 4×4 voxel → RAS mm.

    Returns:
        The voxels as (K, J, I) with k superior, j posterior, i left, and the spacing along (k, j, i).
    """
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    order, flips = _nearest_axes(_CANONICAL_AXES.T @ directions)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)[order]
    array = np.flip(array.transpose(order), tuple(axis for axis in range(3) if flips[axis]))
    si, sj, sk = (float(v) for v in spacing)
    return np.ascontiguousarray(array.transpose(2, 1, 0)), (sk, sj, si)


def _nearest_axes(cosines: NDArray) -> tuple[list[int], list[bool]]:
    """For each canonical axis (row) the voxel axis (column) along it, and whether that runs backwards."""
    order, flips = [0, 0, 0], [False] * 3
    remaining = np.abs(cosines).copy()
    for _ in range(3):
        row, column = np.unravel_index(int(np.argmax(remaining)), remaining.shape)
        order[row], flips[row] = int(column), bool(cosines[row, column] < 0)
        remaining[row, :] = remaining[:, column] = -1
    return order, flips


def pack_case(
    case_id: str,
    image: NDArray[np.floating] | None,
    label: Volume,
    organs: tuple[int, ...],
    domain: str,
    findings: tuple[int, ...] = (),
) -> PackedCase:
    """Pack one case.

    Args:
        case_id: name of the case.
        image: (I, J, K) normalised intensities in [−1, 1] on the grid of `label`, or None.
        label: organ numbers, and those of findings.
        organs: numbers that were annotated.
        domain: "CT", "MR", "phantom" or "labels".
        findings: numbers of the findings that were annotated.
    """
    labels, spacing = to_canonical_axes(label.array.astype(np.uint8), label.affine)
    grey = None
    if image is not None:
        grey, _ = to_canonical_axes(np.round((image + 1) * 127.5).astype(np.uint8), label.affine)
    stride = max(1, int(FINEST_PIXEL_MM / min(spacing[1], spacing[2])))
    if stride > 1:  # finer than the model ever draws
        labels = labels[:, ::stride, ::stride]
        grey = _thinned(grey, stride) if grey is not None else None
        spacing = (spacing[0], spacing[1] * stride, spacing[2] * stride)
    marked = np.where(np.isin(labels, findings), labels, np.uint8(0)) if findings else None
    return PackedCase(
        case_id,
        grey,
        labels if marked is None else _as_organs(labels),
        spacing,
        organs,
        domain,
        findings=marked if marked is not None and marked.any() else None,
        annotated_findings=findings,
    )


def _thinned(image: NDArray[np.uint8], stride: int) -> NDArray[np.uint8]:
    """Every n-th pixel of each slice (K, J, I), after blurring away what such a grid cannot show."""
    slices = (gaussian_filter(plane.astype(np.float32), 0.4 * stride) for plane in image)
    return np.stack([np.round(plane[::stride, ::stride]).astype(np.uint8) for plane in slices])


def _as_organs(label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The label map with each finding's voxels counted as its organ's."""
    table = np.arange(256, dtype=np.uint8)
    for finding in organ_table().findings:
        assert finding.within is not None
        table[finding.label] = organ_table().by_id(finding.within).label
    return table[label]
