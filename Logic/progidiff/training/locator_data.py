"""Random coarse patches of whole cases for training the locator."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from progidiff.training.appearance import randomise_appearance
from progidiff.training.case_store import PackedCase

_STORED_MM = 3.0  # finer than the locator's voxels, so that rotated samples stay sharp


class CoarsePatches:
    """Draws batches of randomly rotated, scaled and recoloured patches.

    Args:
        cases: cases with images.
        patch: (D, H, W) voxels.
        spacing: locator voxel in mm.
        organs: number of organ classes.
        appearance: strength of the appearance randomisation, 0…1.
    """

    def __init__(
        self,
        cases: list[PackedCase],
        patch: tuple[int, int, int],
        spacing: float,
        organs: int = 13,
        appearance: float = 1.0,
    ) -> None:
        self.appearance = appearance
        self.patch, self.spacing, self.organs = patch, spacing, organs
        self.images, self.labels, self.known = [], [], []
        for case in cases:
            if case.image is None:
                continue
            image, label = _shrink(case)
            self.images.append(image)
            self.labels.append(label)
            known = torch.zeros(organs + 1, dtype=torch.bool)
            known[[0, *case.organs]] = True
            self.known.append(known)
        domains = [c.domain for c in cases if c.image is not None]
        counts = {d: domains.count(d) for d in domains}
        share = {"phantom": 0.2}
        self.weight = np.array([share.get(d, 1.0) / counts[d] for d in domains])
        self.weight /= self.weight.sum()

    def batch(self, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, 1, D, H, W) in [−1, 1], labels (B, D, H, W) int64, known classes (B, 1 + organs)."""
        images, labels, known = [], [], []
        for _ in range(size):
            index = int(rng.choice(len(self.images), p=self.weight))
            image, label = self._sample(index, rng)
            images.append(image)
            labels.append(label)
            known.append(self.known[index])
        return randomise_appearance(torch.cat(images), self.appearance), torch.cat(labels), torch.stack(known)

    def _sample(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        image, label = self.images[index], self.labels[index]
        size_mm = np.array(image.shape) * _STORED_MM
        patch_mm = np.array(self.patch) * self.spacing
        slack = np.maximum(size_mm - patch_mm * 0.8, 0) / 2
        center = rng.uniform(-slack, slack)  # mm from the middle of the stored volume, (k, j, i)
        transform = _random_rotation_scale(rng)
        # grid_sample wants the transform from patch [-1, 1] to volume [-1, 1], axes in (i, j, k) order.
        matrix = transform * patch_mm[None, :] / size_mm[:, None]
        theta = np.concatenate([matrix[::-1, ::-1], (center * 2 / size_mm)[::-1, None]], 1)
        grid = F.affine_grid(
            torch.from_numpy(theta.copy()).float()[None], [1, 1, *self.patch], align_corners=False
        )
        grid = grid + _smooth_displacement(self.patch, rng)
        grey = F.grid_sample((image[None, None].float() - 127.5) / 127.5 + 1, grid, align_corners=False) - 1
        organ = F.grid_sample(label[None, None].float(), grid, mode="nearest", align_corners=False)
        return grey, organ[:, 0].long()


def _shrink(case: PackedCase) -> tuple[Tensor, Tensor]:
    """The case as uint8 image and label at `_STORED_MM` isotropic."""
    assert case.image is not None
    shape = [max(8, round(n * s / _STORED_MM)) for n, s in zip(case.label.shape, case.spacing, strict=True)]
    image = torch.tensor(case.image)[None, None].float()
    factor = [max(1, int(_STORED_MM / s)) for s in case.spacing]
    image = F.interpolate(F.avg_pool3d(image, factor), size=shape, mode="trilinear", align_corners=False)
    label = F.interpolate(torch.tensor(case.label)[None, None], size=shape, mode="nearest-exact")
    return image[0, 0].round().to(torch.uint8), label[0, 0]


def _random_rotation_scale(rng: np.random.Generator) -> np.ndarray:
    """3×3 matrix over (k, j, i): small rotations about each axis, zoom 0.8…1.25."""
    matrix = np.eye(3)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        angle = rng.normal(0, 0.12)
        turn = np.eye(3)
        turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        matrix = matrix @ turn
    return matrix @ np.diag(rng.uniform(0.8, 1.25) * rng.uniform(0.92, 1.08, 3))


def _smooth_displacement(patch: tuple[int, int, int], rng: np.random.Generator) -> Tensor:
    """Elastic deformation (1, D, H, W, 3) in units of half a patch."""
    coarse = torch.from_numpy(rng.normal(0, 0.03, (1, 3, 4, 4, 4))).float()
    return F.interpolate(coarse, size=patch, mode="trilinear", align_corners=True).movedim(1, -1)
