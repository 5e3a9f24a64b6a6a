"""The phantom's body under construction: layers of tissue, and the room that is left for the next.

Structures are placed in order of how firmly the body holds them (spine and great vessels first, bowel
last), and each gives way to those already there, so that organs touch and mould each other as they do
in the abdomen, and never overlap.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from progidiff.training.phantom_shapes import Array, Box, Shape, Space, smooth_noise

ORGAN_LABELS = {
    "spleen": 1,
    "right_kidney": 2,
    "left_kidney": 3,
    "gallbladder": 4,
    "esophagus": 5,
    "liver": 6,
    "stomach": 7,
    "aorta": 8,
    "inferior_vena_cava": 9,
    "portal_and_splenic_vein": 10,
    "pancreas": 11,
    "right_adrenal_gland": 12,
    "left_adrenal_gland": 13,
}


@dataclass
class Layer:
    """One tissue to paint: how much of each voxel of a box it covers (0..1), and the organ it is part of.

    `organ` is 0 for tissue inside or outside organs that leaves the label as it is.
    """

    tissue: str
    box: Box
    cover: Array
    organ: int = 0


class Anatomy:
    """A body under construction.

    Args:
        space: the voxels and their body coordinates.
        rng: where all variation comes from.
        given: organs that are already there, by id, from a label map.
        absent: organs that the body is known not to show.

    Attributes:
        layers: what has been painted, from back to front.
        occupied: distance in mm from what has been placed, negative inside, where it is near.
        cavity: distance from the cavity of chest and abdomen, negative inside.
        above_diaphragm: distance from the diaphragm, negative above.
        bumps: smooth unit noise at wavelengths of about 45, 18 and 9 mm.
    """

    def __init__(
        self,
        space: Space,
        rng: np.random.Generator,
        given: Mapping[str, Shape] | None = None,
        absent: Collection[str] = (),
    ) -> None:
        self.space, self.rng, self.given, self.absent = space, rng, dict(given or {}), absent
        self.layers: list[Layer] = []
        self.occupied: Array = np.full(space.shape, 99, np.float32)
        self.cavity: Array = np.zeros(space.shape, np.float32)
        self.above_diaphragm: Array = np.zeros(space.shape, np.float32)
        self.bumps = [smooth_noise(rng, space.shape, space.spacing, length) for length in (45.0, 18.0, 9.0)]
        self.softness = float(np.sqrt(np.prod(np.sort(space.spacing)[:2])))

    def top(self, *organs: str) -> float | None:
        """Height (mm) just above the highest point of given organs; None if there are none."""
        heights = []
        for shape in (self.given[organ] for organ in organs if organ in self.given):
            heights.append(float(self.space.at(shape.box)[2][shape.distance < 0].max()))
        return max(heights) + 4 if heights else None

    def vary(self, value: ArrayLike, spread: float) -> NDArray:
        """The value with normal jitter, cut at two standard deviations."""
        value = np.asarray(value, float)
        return value + spread * np.clip(self.rng.standard_normal(value.shape), -2, 2)

    def factor(self, spread: float) -> float:
        """A random size factor around 1."""
        return float(np.exp(spread * np.clip(self.rng.standard_normal(), -2, 2)))

    def roughen(self, shape: Shape, broad: float = 0.0, medium: float = 0.0, fine: float = 0.0) -> Shape:
        """Bumps of the given heights (mm) at wavelengths of about 45, 18 and 9 mm."""
        distance = shape.distance
        for height, bump in zip((broad, medium, fine), self.bumps, strict=True):
            if height:
                distance = distance + np.float32(height) * bump[shape.box]
        return Shape(shape.box, distance)

    def carve(self, shape: Shape, gap: float = 0.0) -> Shape:
        """The shape without what already lies there, keeping `gap` mm of fat (negative: sharing)."""
        room = np.float32(gap) - self.occupied[shape.box]
        return Shape(shape.box, np.maximum(shape.distance, room))

    def inside(self, shape: Shape, inset: float = 1.0, below_lungs: bool = True) -> Shape:
        """The part of the shape inside the body cavity and, usually, below the diaphragm."""
        distance = np.maximum(shape.distance, self.cavity[shape.box] + np.float32(inset))
        if below_lungs:
            distance = np.maximum(distance, np.float32(2.5) - self.above_diaphragm[shape.box])
        return Shape(shape.box, distance)

    def occupy(self, shape: Shape) -> None:
        part = self.occupied[shape.box]
        np.minimum(part, shape.distance, out=part)

    def paint(self, tissue: str, shape: Shape, organ: int = 0, inset: float = 0.0) -> None:
        """Add the shape (made `inset` mm smaller) as a layer, with edges one voxel soft."""
        if shape.distance.size == 0:
            return
        cover = 0.5 - (shape.distance + np.float32(inset)) / np.float32(self.softness)
        np.clip(cover, 0, 1, out=cover)
        if cover.any():
            self.layers.append(Layer(tissue, shape.box, cover, organ))

    def place(self, tissue: str, shape: Shape, organ: str = "", gap: float = 0.0) -> Shape:
        """Carve, paint and occupy in one go; returns what was left of the shape."""
        shape = self.carve(shape, gap)
        self.paint(tissue, shape, ORGAN_LABELS.get(organ, 0))
        self.occupy(shape)
        return shape
