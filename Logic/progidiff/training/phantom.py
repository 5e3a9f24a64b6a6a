"""Synthetic abdomens with exact organ labels: for demo, tests and training.

`make_phantom` invents a patient from nothing. `paint_label_map` keeps the organs of a label map and
invents everything around and inside them, so that a label map without image becomes a training case.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects

from progidiff.errors import UsageError
from progidiff.training import phantom_scenery as scenery
from progidiff.training.phantom_anatomy import ORGAN_LABELS, Anatomy, Layer
from progidiff.training.phantom_appearance import paint_ct, paint_mr
from progidiff.training.phantom_organs import PLACE, paint_organ
from progidiff.training.phantom_shapes import FAR_MM, REACH_MM, Array, Box, Shape, Space, rotation
from progidiff.volumes.volume import Modality, Volume, axial_grid

# Where the plan puts the middle of the solid organs, body mm; by these a label map is fitted into it.
_CENTERS = {
    "spleen": (98, 5, 62),
    "right_kidney": (-68, 2, -3),
    "left_kidney": (68, 2, 5),
    "liver": (-62, -42, 62),
    "stomach": (50, -64, 62),
    "pancreas": (11, -56, 32),
    "right_adrenal_gland": (-35, -5, 57),
    "left_adrenal_gland": (33, -13, 48),
}
_RAS_TO_BODY = np.diag([-1.0, -1.0, 1.0])  # body coordinates run to the left, the back and the head


def make_phantom(
    seed: int,
    modality: Modality = "CT",
    shape: tuple[int, int, int] = (192, 192, 40),
    spacing: tuple[float, float, float] = (1.8, 1.8, 5.0),
) -> tuple[Volume, Volume]:
    """A procedural upper abdomen and the label map of its organs.

    Anatomy (size, pose, habitus, organ shapes, an absent gallbladder or a displaced field of view now
    and then) and appearance (contrast phase or MR weighting, noise, shading) differ for every seed; the
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
    paint = _painter(modality)
    rng = np.random.default_rng([seed, 1])
    space = _random_pose(rng, shape, spacing)
    body = build_anatomy(space, rng)
    grid = axial_grid(shape, spacing, rng.uniform(-30, 30, 3))
    image = paint(np.random.default_rng([seed, 2]), body.layers, space)
    name = f"phantom_{seed:04d}"
    return (
        Volume(image.astype(np.float32), grid.affine, modality, name),
        Volume(_label_map(body.layers, shape), grid.affine, modality, name),
    )


def paint_label_map(
    label: Volume, seed: int, modality: Modality = "CT", annotated: Collection[str] | None = None
) -> Volume:
    """An image for a label map: its organs stay where they are, the rest of the patient is invented.

    As in SynthSeg (Billot et al. 2023, arXiv 2107.09559) intensities are drawn anew per tissue for
    every seed; unlike there the background is no noise but a body: wall, lungs, bones, muscles, vessels
    and bowel of the phantom, which give way to the organs, and organs have an inside (renal medulla,
    stomach wall and air, vessels and lesions of the liver). The plan of the phantom is moved and scaled
    to the label map by the middles of its solid organs.

    Args:
        label: uint8 with the organ table's values, on any grid. Resample large maps to the grid that is
            needed first: time grows with the number of voxels (about 2 s for 1.5 million).
        seed: the same seed gives the same image.
        modality: "CT" or "MR".
        annotated: ids of the organs the label map was made for; the others are invented as part of the
            background. By default all, so that an organ missing in the map is missing in the image.

    Returns:
        Image, float32, on the label's grid.

    Raises:
        UsageError: the modality is neither CT nor MR.
    """
    paint = _painter(modality)
    rng = np.random.default_rng([seed, 3])
    space = _fitted_space(rng, label)
    given = _organ_shapes(label.array, space.spacing)
    absent = set(ORGAN_LABELS if annotated is None else annotated) - set(given)
    body = build_anatomy(space, rng, given, absent)
    image = paint(np.random.default_rng([seed, 4]), body.layers, space)
    return Volume(image.astype(np.float32), label.affine, modality, label.name)


def build_anatomy(
    space: Space,
    rng: np.random.Generator,
    given: Mapping[str, Shape] | None = None,
    absent: Collection[str] = (),
) -> Anatomy:
    """A whole body, ready to be painted, around given organs if there are any."""
    body = Anatomy(space, rng, given, absent)
    if body.given:
        inside = np.zeros(space.shape, bool)
        for shape in body.given.values():
            inside[shape.box] |= shape.distance < 0
        body.occupied = distance_transform_edt(~inside, sampling=space.spacing).astype(np.float32)
        for shape in body.given.values():
            body.occupy(shape)
    scenery.body_wall(body)
    scenery.lungs_and_heart(body)
    spine = scenery.spine(body)
    scenery.ribs(body)
    for organ, place in PLACE.items():
        if organ not in body.given and organ not in body.absent:
            place(body)
        if organ == "portal_and_splenic_vein":
            scenery.branch_vessels(body)
    scenery.back_muscles(body, spine)
    scenery.duodenum(body)
    scenery.colon(body)
    scenery.small_bowel(body)
    scenery.mesenteric_vessels(body)
    for organ, shape in body.given.items():
        paint_organ(body, organ, shape)
    return body


def _painter(modality: Modality) -> Callable[[np.random.Generator, list[Layer], Space], Array]:
    if modality not in ("CT", "MR"):
        raise UsageError(f"An image of modality “{modality}” cannot be made.", "Use “CT” or “MR”.")
    return paint_ct if modality == "CT" else paint_mr


def _random_pose(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> Space:
    """Random size, tilt, field of view and elastic deformation."""
    size = np.exp(rng.normal(0, 0.07)) * np.exp(rng.normal(0, 0.03, 3))
    matrix = rotation(*rng.normal(0, [2.0, 2.0, 3.0])) * np.asarray(spacing) / size[:, None]
    middle = np.array([0.0, -22.0, 45.0]) + rng.normal(0, [6, 8, 14])
    if rng.random() < 0.12:  # a displaced field of view, which cuts organs off
        middle[2] += rng.choice([-1, 1]) * rng.uniform(40, 80)
    start = middle - matrix @ ((np.asarray(shape) - 1) / 2)
    return Space(rng, shape, matrix=matrix, start=start, deformation=6.0)


def _fitted_space(rng: np.random.Generator, label: Volume) -> Space:
    """Body coordinates for a label map, so that its solid organs lie about where the plan has them."""
    matrix = _RAS_TO_BODY @ label.affine[:3, :3]
    found, planned = [], []
    for organ, center in _CENTERS.items():
        voxels = np.argwhere(label.array == ORGAN_LABELS[organ])
        if len(voxels):
            found.append(matrix @ voxels.mean(0))
            planned.append(center)
    if not found:
        middle = matrix @ ((np.asarray(label.shape) - 1) / 2)
        return Space(rng, label.shape, matrix=matrix, start=np.array([0, -22, 45]) - middle)
    a, b = np.array(found), np.array(planned, float)
    spread = a - a.mean(0)
    scale = float((spread * (b - b.mean(0))).sum() / (spread**2).sum()) if len(a) >= 4 else 1.0
    scale = float(np.clip(scale, 0.6, 1.8))
    return Space(rng, label.shape, matrix=scale * matrix, start=b.mean(0) - scale * a.mean(0))


def _organ_shapes(label: NDArray, spacing: NDArray) -> dict[str, Shape]:
    """Distance fields of the organs in a label map."""
    boxes = find_objects(label, max_label=max(ORGAN_LABELS.values()))
    margin = np.ceil(REACH_MM / spacing).astype(int)
    shapes = {}
    for organ, value in ORGAN_LABELS.items():
        if boxes[value - 1] is None:
            continue
        box = _padded(boxes[value - 1], margin, label.shape)
        inside = label[box] == value
        if inside.all():  # an organ that fills the whole map has no surface to measure from
            shapes[organ] = Shape(box, np.full(inside.shape, -FAR_MM, np.float32))
            continue
        outer = distance_transform_edt(np.pad(~inside, 1, constant_values=True), sampling=spacing)
        inner = distance_transform_edt(np.pad(inside, 1, mode="edge"), sampling=spacing)
        half = float(np.min(spacing)) / 2  # the surface lies between the voxels
        distance = np.where(inside, half - inner[1:-1, 1:-1, 1:-1], outer[1:-1, 1:-1, 1:-1] - half)
        shapes[organ] = Shape(box, distance.astype(np.float32))
    return shapes


def _padded(box: Box, margin: NDArray, shape: tuple[int, ...]) -> Box:
    i, j, k = (
        slice(max(part.start - m, 0), min(part.stop + m, n))
        for part, m, n in zip(box, margin.tolist(), shape, strict=True)
    )
    return i, j, k


def _label_map(layers: list[Layer], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    label = np.zeros(shape, np.uint8)
    for layer in layers:
        if layer.organ:
            label[layer.box][layer.cover > 0.5] = layer.organ
    return label
