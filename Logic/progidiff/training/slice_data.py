"""Random organ-centred crops of slices, as the fine pass will see them."""

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

THICKEST_MM = 10.0  # slices are skipped now and then to imitate thicker ones, up to this distance

# How often each organ is drawn, by label number: what is small or tortuous needs more practice.
ORGAN_SHARE = {
    1: 0.8,
    2: 0.8,
    3: 0.8,
    4: 1.3,
    5: 1.2,
    6: 1.0,
    7: 1.4,
    8: 0.8,
    9: 1.0,
    10: 1.3,
    11: 1.7,
    12: 1.1,
    13: 1.1,
}
DOMAIN_SHARE = {"CT": 1.0, "MR": 1.0, "phantom": 0.2, "labels": 1.0}


@dataclass(frozen=True)
class SliceBatch:
    """A batch of crops.

    Attributes:
        image: (B, slices, H, W) in [−1, 1].
        label: (B, H, W) int64, all organs of the crop.
        mask: (B, 1, H, W) in [0, 1], the organ asked for.
        known: (B, 1 + organs) bool, annotated classes.
        organ: (B,) int64 label numbers of the organs asked for.
        pixel_mm: (B,) edge of a pixel.
    """

    image: Tensor
    label: Tensor
    mask: Tensor
    known: Tensor
    organ: Tensor
    pixel_mm: Tensor

    def to(self, device: torch.device) -> SliceBatch:
        return SliceBatch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


class OrganSlices:
    """Draws organ-centred, rotated, zoomed and recoloured crops from packed cases.

    Args:
        cases: packed cases; those without image give zeros for the image.
        crop: edge of the crop in pixels.
        slices: neighbouring slices, odd.
        organs: number of organ classes.
        beyond_mm: how far above and below the organ slices are drawn, where the answer is "nothing here".
        appearance: strength of the appearance randomisation, 0…1.
    """

    def __init__(
        self,
        cases: list[PackedCase],
        crop: int = 128,
        slices: int = 5,
        organs: int = 13,
        beyond_mm: float = 12.0,
        appearance: float = 1.0,
    ) -> None:
        self.cases, self.crop, self.slices, self.organs = cases, crop, slices, organs
        self.beyond_mm, self.appearance = beyond_mm, appearance
        self.boxes = [case.boxes for case in cases]
        counts = {c.domain: sum(d.domain == c.domain for d in cases) for c in cases}
        pairs = [(c, o) for c in range(len(cases)) for o in self.boxes[c]]
        share = [
            DOMAIN_SHARE[cases[c].domain] / counts[cases[c].domain] * ORGAN_SHARE.get(o, 1.0)
            for c, o in pairs
        ]
        self.pairs, self.share = pairs, np.array(share) / np.sum(share)

    def batch(self, size: int, rng: np.random.Generator) -> SliceBatch:
        """Draw `size` crops."""
        chosen = [self.pairs[n] for n in rng.choice(len(self.pairs), size, p=self.share)]
        samples = [self._sample(case, organ, rng) for case, organ in chosen]
        image, label, mask, known, organ, pixel = zip(*samples, strict=True)
        images = torch.stack(image)
        if self.appearance:
            images = randomise_appearance(images, self.appearance)
        return SliceBatch(
            images,
            torch.stack(label),
            torch.stack(mask),
            torch.stack(known),
            torch.tensor(organ),
            torch.tensor(pixel),
        )

    def _sample(
        self, index: int, organ: int, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, int, float]:
        case, (low, high) = self.cases[index], self.boxes[index][organ]
        k = self._slice_number(case, organ, low[0], high[0], rng)
        middle, pixel = self._window(index, organ)
        pixel *= rng.uniform(0.8, 1.25)
        center = middle + rng.normal(0, 0.05 * pixel * self.crop, 2)
        grid = self._crop_grid(case, center, pixel, rng)
        label = torch.from_numpy(case.label[[k]])[None].float()  # a copy: mapped files are read-only
        drawn = F.grid_sample(label, grid, mode="nearest", align_corners=False)[0, 0].long()
        mask = F.grid_sample((label == organ).float(), grid, align_corners=False)[0]
        known = torch.zeros(self.organs + 1, dtype=torch.bool)
        known[[0, *case.known_on(k)]] = True
        drawn = torch.where(known[drawn], drawn, 0)
        return self._neighbours(case, k, grid, rng), drawn, mask, known, organ, float(pixel)

    def _window(self, index: int, organ: int) -> tuple[np.ndarray, float]:
        """Middle of the crop in mm along (j, i), and its pixel in mm, before they are varied."""
        low, high = self.boxes[index][organ]
        spacing = np.array(self.cases[index].spacing)[1:]
        pixel = crop_pixel_mm((high - low + 1)[1:] * spacing, self.crop)
        return (low + high)[1:] / 2 * spacing, pixel

    def _slice_number(
        self, case: PackedCase, organ: int, low: float, high: float, rng: np.random.Generator
    ) -> int:
        """A slice of the organ or just beyond its ends; of partly checked cases only a checked one."""
        beyond = self.beyond_mm / case.spacing[0]
        if case.checked is None:
            return int(np.clip(round(rng.uniform(low - beyond, high + beyond)), 0, len(case.label) - 1))
        numbers = np.flatnonzero(case.checked[organ])
        return int(rng.choice(numbers[(numbers >= low - beyond) & (numbers <= high + beyond)]))

    def _neighbours(self, case: PackedCase, k: int, grid: Tensor, rng: np.random.Generator) -> Tensor:
        """The slice and its neighbours, as far apart as in use, or now and then twice as far."""
        if case.image is None:
            return torch.zeros(self.slices, self.crop, self.crop)
        native = case.spacing[0]
        stride = max(1, round(slice_distance(native) / native))
        if 2 * stride * native <= THICKEST_MM and rng.random() < 0.3:
            stride *= 2
        offsets = (np.arange(self.slices) - self.slices // 2) * stride
        stack = case.image[np.clip(k + offsets, 0, len(case.image) - 1)]
        grey = torch.from_numpy(stack)[None].float() / 127.5  # 0 is air, which is also the padding
        return F.grid_sample(grey, grid, align_corners=False)[0] - 1

    def _crop_grid(
        self, case: PackedCase, center: np.ndarray, pixel: float, rng: np.random.Generator
    ) -> Tensor:
        """Sampling grid (1, crop, crop, 2) in the slice's [−1, 1] coordinates: rotated, sheared, elastic."""
        size_mm = np.array(case.label.shape[1:]) * np.array(case.spacing[1:])
        angle, shear = rng.normal(0, 0.1), rng.normal(0, 0.06)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = turn @ np.array([[1, shear], [0, rng.uniform(0.92, 1.08)]]) * pixel * self.crop
        theta = np.concatenate([matrix / size_mm[:, None], (center / size_mm * 2 - 1)[:, None]], 1)
        theta = theta[::-1][:, [1, 0, 2]]  # grid_sample counts (i, j)
        grid = F.affine_grid(
            torch.from_numpy(theta.copy()).float()[None], [1, 1, self.crop, self.crop], align_corners=False
        )
        coarse = torch.from_numpy(rng.normal(0, 0.02, (1, 2, 5, 5))).float() * float(
            pixel * self.crop / size_mm.mean()
        )
        elastic = F.interpolate(coarse, size=(self.crop, self.crop), mode="bicubic", align_corners=True)
        return grid + elastic.movedim(1, -1)
