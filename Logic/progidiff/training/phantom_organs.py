"""The thirteen organs: where they lie, how they are shaped, and what is inside them.

Positions and sizes are round textbook figures of an adult in body coordinates (see `phantom_shapes`),
jittered anew for every seed. Each organ has a function that places it and, where its inside is not
uniform, one that paints the inside of any shape, so that organs of a label map can be painted too.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from progidiff.training.phantom_anatomy import ORGAN_LABELS, Anatomy
from progidiff.training.phantom_shapes import (
    Array,
    Shape,
    ellipsoid_distance,
    plane_distance,
    plate_distance,
    random_direction,
    rotation,
    smooth_intersection,
    smooth_union,
    within,
)


def place_organ(body: Anatomy, name: str, shape: Shape, gap: float = 0.0) -> None:
    """Place the shape as this organ, `gap` mm away from what lies there already, and fill it."""
    shape = body.carve(shape, gap)
    paint_organ(body, name, shape)
    body.occupy(shape)


def paint_organ(body: Anatomy, name: str, shape: Shape) -> None:
    """Paint the shape as this organ, with what is inside it."""
    body.paint(TISSUE[name], shape, ORGAN_LABELS[name])
    if name in INSIDE:
        INSIDE[name](body, shape)


def _aorta(body: Anatomy) -> None:
    size = body.factor(0.13)
    turns = [[5, -20, -80], [6, -20, -30], [5, -19, 20], [6, -16, 70], [14, -4, 125], [20, 4, 180]]
    path = np.array([[4, -20, -110], *body.vary(turns, 2), [21, 6, 240]])
    aorta = body.space.tube(path, size * np.array([8, 8.5, 9, 10, 10.5, 11.5, 12, 12]))
    aorta.distance = np.maximum(aorta.distance, -82 - body.space.at(aorta.box)[2])  # the bifurcation
    place_organ(body, "aorta", aorta)


def _aorta_inside(body: Anatomy, aorta: Shape) -> None:
    """Calcified plaques in the wall of some patients."""
    if body.rng.random() < 0.35:
        plaque = np.abs(aorta.distance + 0.6) - 0.9 + 3 * np.maximum(1.9 - body.bumps[2][aorta.box], 0)
        body.paint("calcification", Shape(aorta.box, plaque))


def _vena_cava(body: Anatomy) -> None:
    size = body.factor(0.15)
    path = body.vary([[-19, -24, -70], [-20, -26, -20], [-21, -30, 25], [-24, -32, 70], [-25, -32, 105]], 2)
    path = np.array([[-16, -20, -110], *path, [-21, -40, 135], [-14, -50, 160]])
    cava = body.space.tube(path, size * np.array([10, 10, 10.5, 11, 12, 12, 12, 13]))
    cava.distance = np.maximum(cava.distance, body.space.at(cava.box)[2] - 150)  # the right atrium
    place_organ(body, "inferior_vena_cava", cava, gap=0.5)


def _esophagus(body: Anatomy) -> None:
    path = body.vary([[8, -6, 190], [8, -12, 150], [15, -24, 122], [25, -28, 103]], 2)
    gullet = body.space.tube(np.array([[6, -2, 260], *path, [38, -26, 92]]), body.factor(0.12) * 9.0)
    place_organ(body, "esophagus", gullet, gap=0.3)


def _esophagus_inside(body: Anatomy, gullet: Shape) -> None:
    body.paint("air" if body.rng.random() < 0.5 else "mucus", gullet, inset=5.5)


def _portal_vein(body: Anatomy) -> None:
    """Splenic vein behind the pancreas, portal vein from the confluence to the liver's hilum."""
    size = body.factor(0.12)
    crossing = body.vary([-9, -50, 38], 3)
    splenic = [[84, 0, 66], [58, -18, 56], [30, -38, 46], [10, -46, 41], crossing]
    portal = [crossing, crossing + np.array([-12, -3, 16]), [-36, -52, 68], [-48, -50, 78]]
    left_branch = [[-40, -52, 71], [-30, -68, 82], [-14, -80, 90]]
    for points, radii in (
        (splenic, [3.2, 3.8, 4.2, 4.6, 5.5]),
        (portal, [6.5, 7.0, 7, 5.5]),
        (left_branch, [5, 4.5, 3.5]),
    ):
        vein = body.space.tube(np.array(points), size * np.array(radii))
        place_organ(body, "portal_and_splenic_vein", vein, gap=0.2)


def _kidney(body: Anatomy, name: str) -> None:
    side, height = (-1, -3) if name == "right_kidney" else (1, 5)
    center = body.vary([side * 66, 2, height], 5)
    radii = body.vary([28, 26, 54], 1.5) * body.factor(0.07)
    # The upper pole leans inwards and backwards, the hilum faces forwards and inwards.
    turn = (rotation(about_x=-12, about_y=side * -14) @ rotation(about_z=side * 28)).T
    kidney = body.roughen(body.space.ellipsoid(center, radii, turn), broad=1.5, medium=0.7)
    kidney = body.carve(body.inside(kidney, 4), 1.5)
    inward = turn.T @ np.array([-side * 1.0, -0.15, 0])
    sinus = body.space.ellipsoid(center + 16.5 * inward, [20, 9, 24], turn)
    sinus = body.roughen(sinus, medium=2.5, fine=1.0)
    body.paint("renal_sinus", Shape(sinus.box, np.maximum(sinus.distance, within(kidney, sinus.box))))
    parenchyma = Shape(kidney.box, np.maximum(kidney.distance, -within(sinus, kidney.box)))
    place_organ(body, name, parenchyma)
    body.occupy(kidney)
    body.paint("renal_pelvis", body.space.ellipsoid(center + 19 * inward, [11, 4.5, 9], turn))
    if body.rng.random() < 0.18:
        offset = turn.T @ (radii * random_direction(body.rng) * 0.85)
        cyst = body.space.ellipsoid(center + offset, np.full(3, body.rng.uniform(4, 13)))
        body.place("cyst", cyst)


def _kidney_inside(body: Anatomy, kidney: Shape) -> None:
    """Pyramids of medulla below a cortex of some 6 mm."""
    medulla = kidney.distance + 6.0 + 2.8 * body.bumps[1][kidney.box]
    body.paint("renal_medulla", Shape(kidney.box, np.maximum(medulla, kidney.distance + 3)))


def _right_adrenal(body: Anatomy) -> None:
    """Behind the cava: a thin body with two limbs close together."""
    apex, half_thickness = body.vary([-33, -16, 56], 2), 2.5 * body.factor(0.15)
    arms: list[list[float]] = [[-2, 12], [-7, 26], [2, 25]]
    _adrenal(body, "right_adrenal_gland", apex, arms, half_thickness=half_thickness, span=(-13, 15))


def _left_adrenal(body: Anatomy) -> None:
    """In front of the kidney's upper pole: shaped like λ."""
    apex, half_thickness = body.vary([28, -24, 48], 2), 2.9 * body.factor(0.15)
    arms: list[list[float]] = [[3, 7], [-1, 21], [12, 18]]
    _adrenal(body, "left_adrenal_gland", apex, arms, half_thickness=half_thickness, span=(-17, 16))


def _adrenal(
    body: Anatomy,
    name: str,
    apex: NDArray,
    arms: list[list[float]],
    *,
    half_thickness: float,
    span: tuple[int, int],
) -> None:
    """Arms given in the axial plane from the apex: the fork, then the ends of the two limbs."""
    lean = np.array([0.10 * np.sign(apex[0]), -0.15])
    reach = np.array([16.0, 30, max(span)])
    box = body.space.box(apex - reach, apex + reach + [0, 6, 0])
    x, y, z = body.space.at(box)
    height = z - np.float32(apex[2])
    x = x - np.float32(apex[0]) - height * np.float32(lean[0])
    y = y - np.float32(apex[1]) - height * np.float32(lean[1])
    fork = np.asarray(arms[0], float)
    ends = [np.asarray(arm, float) for arm in arms[1:]]
    distance = plate_distance(x, y, np.zeros(2), fork)
    for end in ends:
        distance = np.minimum(distance, plate_distance(x, y, fork, end))
    taper = np.clip(1.25 - np.abs(height) / (max(span) * 1.05), 0.35, 1)
    distance = distance - np.float32(half_thickness) * taper
    distance = smooth_intersection(distance, np.maximum(span[0] - height, height - span[1]), 4.0)
    gland = body.roughen(Shape(box, distance), medium=0.5, fine=0.3)
    place_organ(body, name, gland, gap=1.2)


def _gallbladder(body: Anatomy) -> None:
    if body.rng.random() < 0.1:
        return  # removed, as in many patients
    size = body.factor(0.2)
    line = body.vary([[-42, -58, 46], [-52, -70, 38], [-62, -84, 24], [-70, -94, 10]], 2)
    line += body.vary([0, 0, 0], 4)
    bladder = body.space.tube(line, size * np.array([4, 8.5, 13, 12.5]))
    place_organ(body, "gallbladder", body.inside(bladder, 4), gap=0.8)


def _gallbladder_inside(body: Anatomy, bladder: Shape) -> None:
    """Bile, and now and then stones."""
    body.paint("bile", bladder, inset=1.6)
    if body.rng.random() < 0.12:
        stones = Shape(bladder.box, np.maximum(bladder.distance + 3, 2.2 - 1.4 * body.bumps[2][bladder.box]))
        body.paint("gallstone", stones)


def _pancreas(body: Anatomy) -> None:
    size = body.factor(0.1)
    line = [
        [-30, -56, -8],
        [-29, -60, 12],
        [-12, -63, 30],
        [12, -60, 40],
        [38, -46, 48],
        [62, -28, 56],
        [80, -10, 60],
    ]
    shift = body.vary(np.zeros(3), 2)
    gland = body.space.tube(body.vary(line, 2) + shift, size * np.array([12, 15, 10, 10.5, 11, 10, 8]))
    uncinate = body.space.ellipsoid(np.array([-22, -52, 0]) + shift, [15, 9, 14])
    distance = smooth_union(gland.distance, within(uncinate, gland.box), 6.0)
    gland = body.roughen(Shape(gland.box, distance), medium=1.3, fine=0.9)
    place_organ(body, "pancreas", gland, gap=0.4)


def _pancreas_inside(body: Anatomy, gland: Shape) -> None:
    """Fat between the lobules, and the duct."""
    lobules = Shape(gland.box, np.maximum(gland.distance, 2.2 - 1.3 * body.bumps[2][gland.box]))
    body.paint("visceral_fat", lobules)
    duct = body.space.tube([[-28, -58, 8], [-10, -62, 30], [38, -46, 48], [70, -20, 58]], 1.2)
    body.paint("mucus", Shape(duct.box, np.maximum(duct.distance, within(gland, duct.box) + 2)))


def _stomach(body: Anatomy) -> None:
    """Fundus under the left dome, body, antrum across the midline; more or less filled."""
    fill = 1.08 * body.factor(0.2)
    line = [
        [62, -27, 102],
        [66, -46, 84],
        [65, -66, 60],
        [54, -86, 38],
        [30, -98, 20],
        [2, -94, 18],
        [-22, -80, 26],
    ]
    radii = np.array([28, 34, 31, 27, 21, 16, 9]) * np.array([fill] * 5 + [min(fill, 1.1)] * 2)
    stomach = body.space.tube(body.vary(line, 4) + body.vary(np.zeros(3), 4), radii)
    cardia = body.space.tube([[30, -28, 98], [46, -28, 97]], [9, 14])
    stomach.distance = smooth_union(stomach.distance, within(cardia, stomach.box), 8.0)
    stomach = body.inside(body.roughen(stomach, broad=2.5, medium=1.0), 3)
    place_organ(body, "stomach", stomach, gap=0.6)


def _stomach_inside(body: Anatomy, stomach: Shape) -> None:
    """Wall of uneven thickness, contents, and air above them."""
    wall = body.vary(4.2, 0.8) + (1.2 * body.bumps[1] + 0.6 * body.bumps[2])[stomach.box]
    lumen = Shape(stomach.box, stomach.distance + np.maximum(wall, 2.2).astype(np.float32))
    body.paint("stomach_content", lumen)
    level = body.vary(-72, 16)  # the patient lies on the back: air collects in front
    y = body.space.at(stomach.box)[1]
    body.paint("air", Shape(stomach.box, np.maximum(lumen.distance, y - np.float32(level))))


def _liver(body: Anatomy) -> None:
    """A large right and a tapering left lobe under the diaphragm, moulded by what lies below it."""
    size = body.factor(0.05)
    shift = body.vary([0, 0, 0], 4)

    def at(x: float, y: float, z: float) -> NDArray:
        return shift + np.array([x, y, z])

    box = body.space.box(at(-150, -140, -110), at(120, 75, 150))
    xyz = body.space.at(box)
    right = ellipsoid_distance(xyz, at(-72, -30, 62), size * np.array([84, 92, 98]))
    tip = at(-118, -48, float(body.vary(-40, 16)))
    right = smooth_intersection(right, plane_distance(xyz, at(-34, -46, 48), tip, (0.55, 0.3, -0.75)), 26.0)
    right = smooth_intersection(
        right, plane_distance(xyz, at(-28, -8, 90), at(-28, -8, 200), (0.85, 0.5, 0.0)), 18.0
    )
    left = ellipsoid_distance(xyz, at(float(body.vary(2, 14)), -84, 92), size * np.array([72, 40, 44]))
    left = smooth_intersection(
        left, plane_distance(xyz, at(-20, -60, 62), at(-60, -50, 40), (0.1, 0.65, -0.75)), 16.0
    )
    liver = smooth_union(right, left, 26.0)
    liver = np.maximum(liver, -_fissure(xyz))
    shape = body.inside(body.roughen(Shape(box, liver), broad=2.5, medium=0.7), 1.0)
    place_organ(body, "liver", shape, gap=0.3)


def _fissure(xyz: tuple[Array, Array, Array]) -> Array:
    """The fat-filled cleft of the round ligament, opening to the front below."""
    cleft = plate_distance(xyz[0], xyz[1], np.array([-24.0, -150]), np.array([-21.0, -90]))
    return cleft - 2.5 + np.clip(xyz[2] - 62, -6, 60) * np.float32(0.4)


def _liver_inside(body: Anatomy, liver: Shape) -> None:
    _liver_vessels(body, liver)
    _liver_lesions(body, liver)


def _liver_vessels(body: Anatomy, liver: Shape) -> None:
    """Three hepatic veins draining to the cava and a branching portal tree, within the liver only."""
    shift = body.vary([0, 0, 0], 2)
    root = np.array([-24.0, -38, 122])
    trunks = [
        ("hepatic_vein", [root, [-60, -30, 108], [-104, -26, 70]], 5.0),
        ("hepatic_vein", [root, [-44, -66, 108], [-66, -92, 70]], 4.6),
        ("hepatic_vein", [root, [-8, -72, 112], [22, -92, 100]], 4.0),
        ("portal_branch", [[-48, -50, 78], [-78, -44, 82], [-112, -36, 92]], 4.8),
        ("portal_branch", [[-60, -47, 79], [-84, -66, 56], [-104, -78, 30]], 4.2),
        ("portal_branch", [[-64, -46, 80], [-84, -20, 60], [-106, 0, 34]], 4.2),
        ("portal_branch", [[-14, -80, 90], [4, -92, 98], [28, -96, 98]], 3.2),
    ]
    for tissue, points, radius in trunks:
        line = body.vary(np.asarray(points, float), 3) + shift
        line[0] -= shift
        _branch(body, liver, tissue, line, radius=radius)


def _branch(
    body: Anatomy, liver: Shape, tissue: str, line: NDArray, *, radius: float, depth: int = 0
) -> None:
    vessel = body.space.tube(line, np.linspace(radius, radius * 0.45, len(line)), 3)
    body.paint(tissue, Shape(vessel.box, np.maximum(vessel.distance, within(liver, vessel.box) + 2.5)))
    if depth == 2:
        return
    for t in (0.45, 0.75):
        start = line[1] * (1 - t) + line[2] * t if len(line) > 2 else line[0] * (1 - t) + line[1] * t
        onward = line[-1] - line[0]
        length = np.linalg.norm(onward) * body.rng.uniform(0.35, 0.6)
        heading = onward / np.linalg.norm(onward) + 1.1 * random_direction(body.rng)
        heading *= length / np.linalg.norm(heading)
        twig = np.array([start, start + heading / 2 + body.vary(np.zeros(3), 3), start + heading])
        _branch(body, liver, tissue, twig, radius=radius * 0.6, depth=depth + 1)


def _liver_lesions(body: Anatomy, liver: Shape) -> None:
    if body.rng.random() > 0.35:
        return
    for _ in range(int(body.rng.integers(1, 5))):
        center = body.vary([-75, -40, 70], 30)
        lesion = body.space.ellipsoid(center, body.vary(np.full(3, body.rng.uniform(4, 18)), 1.5).clip(3))
        lesion = body.roughen(lesion, medium=1.5)
        tissue = "cyst" if body.rng.random() < 0.4 else "lesion"
        inside = np.maximum(lesion.distance, within(liver, lesion.box) + 0.5)
        body.paint(tissue, Shape(lesion.box, inside))


def _spleen(body: Anatomy) -> None:
    size = body.factor(0.16)
    center = body.vary([104, 10, 62], 4)
    outer = body.space.ellipsoid(center, size * np.array([34, 58, 56]), rotation(about_x=-22, about_z=24))
    hilum = ellipsoid_distance(
        body.space.at(outer.box), center - np.array([46, 16, 6]), size * np.array([42, 60, 62])
    )
    spleen = smooth_intersection(outer.distance, -hilum, 12.0)
    shape = body.inside(body.roughen(Shape(outer.box, spleen), broad=2.0, medium=0.5), 1.0)
    place_organ(body, "spleen", shape, gap=0.8)


TISSUE = {
    "spleen": "spleen",
    "right_kidney": "renal_cortex",
    "left_kidney": "renal_cortex",
    "gallbladder": "gallbladder_wall",
    "esophagus": "esophagus_wall",
    "liver": "liver",
    "stomach": "stomach_wall",
    "aorta": "aorta",
    "inferior_vena_cava": "vena_cava",
    "portal_and_splenic_vein": "portal_vein",
    "pancreas": "pancreas",
    "right_adrenal_gland": "adrenal",
    "left_adrenal_gland": "adrenal",
}
"""What an organ's wall or parenchyma consists of."""

INSIDE: dict[str, Callable[[Anatomy, Shape], None]] = {
    "right_kidney": _kidney_inside,
    "left_kidney": _kidney_inside,
    "gallbladder": _gallbladder_inside,
    "esophagus": _esophagus_inside,
    "liver": _liver_inside,
    "stomach": _stomach_inside,
    "aorta": _aorta_inside,
    "pancreas": _pancreas_inside,
}
"""How to paint what an organ contains."""

PLACE: dict[str, Callable[[Anatomy], None]] = {
    "aorta": _aorta,
    "inferior_vena_cava": _vena_cava,
    "esophagus": _esophagus,
    "right_kidney": lambda body: _kidney(body, "right_kidney"),
    "left_kidney": lambda body: _kidney(body, "left_kidney"),
    "right_adrenal_gland": _right_adrenal,
    "left_adrenal_gland": _left_adrenal,
    "portal_and_splenic_vein": _portal_vein,
    "gallbladder": _gallbladder,
    "pancreas": _pancreas,
    "stomach": _stomach,
    "liver": _liver,
    "spleen": _spleen,
}
"""How to place each organ, those first that the body holds most firmly."""
