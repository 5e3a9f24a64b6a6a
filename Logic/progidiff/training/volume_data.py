"""Random organ-centred pieces of volumes, as the 3D model will see them, some with a lesion.

Lesions are real where a case has labelled ones, and synthesised elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from progidiff.pipelines.crop import crop_pixel_mm
from progidiff.pipelines.locate import slice_distance
from progidiff.training.appearance import randomise_appearance
from progidiff.training.case_store import PackedCase
from progidiff.training.lesions import finding_in, lesion_cover, paint_lesion
from progidiff.training.slice_data import THICKEST_MM, OrganSlices

_ASKED = 0.5  # how often a lesion that is there is asked for, rather than its organ
_ABSENT = 0.5  # how often a lesion is asked for in an organ that is known to have none
_SICK_ORGANS = 4.0  # how much more often an organ that can have a lesion is drawn when each of them has one
_HEALTHY = 4.0  # the same for phantoms against other cases: they are sure to have no other lesion
_TILT = 0.05  # how far consecutive slices slide against each other, mm a mm


@dataclass(frozen=True)
class VolumeBatch:
    """A batch of pieces.

    Attributes:
        image: (B, 1, D, H, W) in [−1, 1].
        label: (B, D, H, W) int64, the organs of the piece; a lesion counts as its organ.
        mask: (B, 1, D, H, W) in [0, 1], what is asked for.
        lesion: (B, 1, D, H, W) in [0, 1], every lesion in the organ, asked for or not; 0 where nobody looked.
        searched: (B, 1, D, H, W) bool, the organ, where what is no lesion is taken to be healthy: it was
            annotated, is a phantom's, or has a grown lesion.
        known: (B, D, 1 + organs) bool, annotated classes of each slice.
        checked: (B, D) bool, slices on which `mask` is the truth.
        asked: (B,) int64, numbers of the organs or findings asked for.
        pixel_mm: (B,) in-plane edge of a voxel.
    """

    image: Tensor
    label: Tensor
    mask: Tensor
    lesion: Tensor
    searched: Tensor
    known: Tensor
    checked: Tensor
    asked: Tensor
    pixel_mm: Tensor

    def to(self, device: torch.device) -> VolumeBatch:
        return VolumeBatch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


@dataclass
class _Piece:
    """One sample; the attributes are those of `VolumeBatch` without the batch."""

    image: Tensor
    label: Tensor
    mask: Tensor
    lesion: Tensor
    searched: Tensor
    known: Tensor
    checked: Tensor
    asked: int
    pixel_mm: float


class OrganVolumes(OrganSlices):
    """Draws organ-centred, rotated, zoomed and recoloured pieces from packed cases with images.

    Args:
        cases: packed cases.
        crop: edge of the piece in pixels.
        depths: numbers of slices; each batch takes one of them.
        organs, beyond_mm, appearance: see `OrganSlices`.
        lesions: how often an organ that can have one gets a synthesised lesion; the more, the more often such
            organs are drawn. Half of the pieces with a lesion, of either kind, ask for it; 0 asks for no
            lesions at all.
    """

    def __init__(
        self,
        cases: list[PackedCase],
        crop: int = 80,
        depths: tuple[int, ...] = (16, 24),
        organs: int = 13,
        beyond_mm: float = 12.0,
        appearance: float = 1.0,
        lesions: float = 0.4,
    ) -> None:
        super().__init__([c for c in cases if c.image is not None], crop, 1, organs, beyond_mm, appearance)
        self.depths, self.lesions = depths, lesions
        more = np.array([1 + lesions * self._use_for_lesions(c, o) for c, o in self.pairs])
        self.share = self.share * more / np.sum(self.share * more)

    def _use_for_lesions(self, index: int, organ: int) -> float:
        """How much more often an organ of a case is drawn when each one gets a lesion."""
        if finding_in(organ) is None:
            return 0.0
        return _SICK_ORGANS * (_HEALTHY if self.cases[index].domain == "phantom" else 1.0)

    def batch(self, size: int, rng: np.random.Generator) -> VolumeBatch:  # type: ignore[override]
        """Draw `size` pieces."""
        depth = int(rng.choice(self.depths))
        chosen = [self.pairs[n] for n in rng.choice(len(self.pairs), size, p=self.share)]
        pieces = [self._piece(case, organ, depth, rng) for case, organ in chosen]
        image = torch.stack([p.image for p in pieces])[:, None]
        if self.appearance:
            image = randomise_appearance(image, self.appearance)
        return VolumeBatch(
            image,
            torch.stack([p.label for p in pieces]),
            torch.stack([p.mask for p in pieces])[:, None],
            torch.stack([p.lesion for p in pieces])[:, None],
            torch.stack([p.searched for p in pieces])[:, None],
            torch.stack([p.known for p in pieces]),
            torch.stack([p.checked for p in pieces]),
            torch.tensor([p.asked for p in pieces]),
            torch.tensor([p.pixel_mm for p in pieces]),
        )

    def _piece(self, index: int, organ: int, depth: int, rng: np.random.Generator) -> _Piece:
        case, (low, high) = self.cases[index], self.boxes[index][organ]
        assert case.image is not None
        spacing = np.array(case.spacing)
        numbers, slice_mm = self._slice_numbers(case, low[0], high[0], depth, rng)
        pixel = crop_pixel_mm((high - low + 1)[1:] * spacing[1:], self.crop) * rng.uniform(0.85, 1.2)
        center = (low + high)[1:] / 2 * spacing[1:] + rng.normal(0, 0.05 * pixel * self.crop, 2)
        grid = self._tilted(self._crop_grid(case, center, pixel, rng), case, depth, slice_mm, rng)
        grey = torch.from_numpy(case.image[numbers])[:, None].float() / 127.5  # 0 is air and the padding
        label = torch.from_numpy(case.label[numbers])[:, None].float()
        known = torch.zeros(depth, self.organs + 1, dtype=torch.bool)
        for n, k in enumerate(numbers):
            known[n, [0, *case.known_on(int(k))]] = True
        drawn = F.grid_sample(label, grid, mode="nearest", align_corners=False)[:, 0].long()
        piece = _Piece(
            F.grid_sample(grey, grid, align_corners=False)[:, 0] - 1,
            torch.where(known[torch.arange(depth)[:, None, None], drawn], drawn, 0),
            F.grid_sample((label == organ).float(), grid, align_corners=False)[:, 0],
            torch.zeros(drawn.shape),
            torch.zeros(drawn.shape, dtype=torch.bool),
            known,
            known[:, organ],
            organ,
            float(pixel),
        )
        self._draw_finding(piece, _real_lesion(case, organ, numbers, grid), slice_mm, rng)
        return piece

    def _slice_numbers(
        self, case: PackedCase, low: float, high: float, depth: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, float]:
        """Which slices, and their distance in mm.

        The distance is that of the Segmenter or twice that. The slices lie anywhere between a little
        below and a little above the organ; beyond the volume the last slice is repeated.
        """
        native = case.spacing[0]
        stride = max(1, round(slice_distance(native) / native))
        if 2 * stride * native <= THICKEST_MM and rng.random() < 0.3:
            stride *= 2
        first, last = low - self.beyond_mm / native, high + self.beyond_mm / native
        slack = (last - first + 1) - depth * stride  # negative where the piece is longer than the organ
        start = first + (rng.uniform(0, slack) if slack > 0 else rng.uniform(slack, 0))
        numbers = np.round(start + stride * np.arange(depth)).astype(int)
        return np.clip(numbers, 0, len(case.label) - 1), stride * native

    def _tilted(
        self, grid: Tensor, case: PackedCase, depth: int, slice_mm: float, rng: np.random.Generator
    ) -> Tensor:
        """The grid of one slice for all (depth, crop, crop, 2), sliding sideways from slice to slice."""
        size_mm = np.array(case.label.shape[1:])[::-1] * np.array(case.spacing[1:])[::-1]  # (i, j)
        height = (np.arange(depth) - depth / 2) * slice_mm
        shift = height[:, None] * rng.normal(0, _TILT, 2) / size_mm * 2
        return grid + torch.from_numpy(shift).float()[:, None, None]

    def _draw_finding(
        self, piece: _Piece, real: Tensor | None, slice_mm: float, rng: np.random.Generator
    ) -> None:
        """Asks a piece for the finding in its organ now and then, in place.

        Where a real lesion is in sight it is asked for, else one may be put in and asked for. Now and then
        an organ that is known to have none is asked for it, where the answer is "nothing here".
        """
        finding, chance = finding_in(piece.asked), rng.random(2)
        if finding is None or not self.lesions or not piece.checked.all():
            return
        organ = piece.mask > 0.5
        if real is not None:
            piece.searched = organ
        if real is not None and real.any():
            piece.lesion = real
            if chance[1] < _ASKED:
                piece.asked, piece.mask = finding.label, real
            return
        cover = None
        if chance[0] < self.lesions:
            size = (slice_mm, piece.pixel_mm, piece.pixel_mm)
            cover = lesion_cover(piece.mask.numpy() > 0.5, size, rng)
        if cover is not None:
            piece.image = torch.from_numpy(paint_lesion(piece.image.numpy(), cover, rng)).clamp(-1, 1)
            piece.lesion, piece.searched = torch.from_numpy(cover).float(), organ
            if chance[1] < _ASKED:
                piece.asked, piece.mask = finding.label, torch.from_numpy(cover)
        elif real is not None and chance[1] < _ABSENT:
            piece.asked, piece.mask = finding.label, torch.zeros_like(piece.mask)


def _real_lesion(case: PackedCase, organ: int, numbers: np.ndarray, grid: Tensor) -> Tensor | None:
    """How much of each voxel of a piece is a real lesion in the organ; None where nobody looked for any.

    Phantoms have none.
    """
    finding = finding_in(organ)
    if finding is None or not (case.domain == "phantom" or case.knows_finding(finding.label)):
        return None
    if case.findings is None:
        return torch.zeros(grid.shape[:3])
    marked = torch.from_numpy(case.findings[numbers] == finding.label)[:, None].float()
    return F.grid_sample(marked, grid, align_corners=False)[:, 0]
