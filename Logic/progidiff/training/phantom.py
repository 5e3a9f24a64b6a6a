"""Synthetic upper abdomens with exact organ labels: for demo, tests and training, from no patient at all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from progidiff.errors import UsageError
from progidiff.training.phantom_anatomy import Layer, build_anatomy
from progidiff.training.phantom_appearance import paint_ct, paint_mr
from progidiff.training.phantom_shapes import Space, rotation
from progidiff.volumes.volume import Modality, Volume, axial_grid


def make_phantom(
    seed: int,
    modality: Modality = "CT",
    shape: tuple[int, int, int] = (192, 192, 40),
    spacing: tuple[float, float, float] = (1.8, 1.8, 5.0),
) -> tuple[Volume, Volume]:
    """A procedural upper abdomen and the label map of its organs.

    Anatomy (size, pose, habitus, organ shapes, an absent gallbladder or a short field of view now and
    then) and appearance (contrast phase or MR weighting, noise, shading) differ for every seed; the
    anatomy of a seed is the same on CT and MR.

    Args:
        seed: the same seed gives the same phantom.
        modality: "CT" (Hounsfield units) or "MR" (arbitrary units from 0).
        shape: (I, J, K) voxels, axial: i to the patient's left, j to the back, k to the head.
        spacing: mm.

    Returns:
        Image (float32) and label map (uint8, values as in the organ table), both RAS and on one grid.

    Raises:
        UsageError: the modality is neither CT nor MR.
    """
    if modality not in ("CT", "MR"):
        raise UsageError(f'A phantom cannot be made for modality "{modality}".', 'Use "CT" or "MR".')
    rng = np.random.default_rng([seed, 1])
    space = _pose(rng, shape, spacing)
    anatomy = build_anatomy(space, rng)
    painter = np.random.default_rng([seed, 2 if modality == "CT" else 3])
    paint = paint_ct if modality == "CT" else paint_mr
    image = paint(painter, anatomy.layers, shape, np.asarray(spacing))
    grid = axial_grid(shape, spacing, rng.uniform(-30, 30, 3))
    name = f"phantom_{seed:04d}"
    return (
        Volume(image.astype(np.float32), grid.affine, modality, name),
        Volume(_label_map(anatomy.layers, shape), grid.affine, modality, name),
    )


def _pose(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> Space:
    """Random size, tilt, field of view and elastic deformation."""
    size = np.exp(rng.normal(0, 0.07)) * np.exp(rng.normal(0, 0.03, 3))
    tilt = rotation(*rng.normal(0, [2.0, 2.0, 3.0]))
    middle = np.array([0.0, -22.0, 45.0]) + rng.normal(0, [6, 8, 14])
    if rng.random() < 0.12:  # a short or displaced field of view
        middle[2] += rng.choice([-1, 1]) * rng.uniform(40, 80)
    return Space(rng, shape, spacing, middle=middle, pose=tilt / size, deformation=(6.0, 6.0, 6.0))


def _label_map(layers: list[Layer], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    label = np.zeros(shape, np.uint8)
    for layer in layers:
        if layer.organ:
            label[layer.box][layer.cover > 0.5] = layer.organ
    return label
