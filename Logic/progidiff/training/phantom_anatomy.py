"""The plan of the phantom's upper abdomen: which structure lies where, how large, and how it varies.

Positions and sizes are round textbook figures of an adult, jittered anew for every seed; nothing here
is traced from a patient. Structures are placed in order of how firmly the body holds them (spine and
great vessels first, bowel last), and each gives way to those already there, so that organs touch and
mould each other as they do in the abdomen, and never overlap.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from progidiff.training.phantom_shapes import (
    Array,
    Box,
    Shape,
    Space,
    ellipsoid_distance,
    rotation,
    smooth_intersection,
    smooth_noise,
    smooth_union,
)

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
VERTEBRA_HEIGHT = 30.0


@dataclass
class Layer:
    """One tissue to paint: how much of each voxel of a box it covers (0..1), and the organ it is part of.

    `organ` is 0 for tissue inside or outside organs that leaves the label as it is.
    """

    tissue: str
    box: Box
    cover: Array
    organ: int = 0


@dataclass
class Anatomy:
    """A body under construction: layers painted so far, and how far each voxel is from what is placed."""

    space: Space
    rng: np.random.Generator
    layers: list[Layer] = field(default_factory=list)

    def __post_init__(self) -> None:
        shape, spacing = self.space.shape, self.space.spacing
        self.occupied: Array = np.full(shape, 99, np.float32)
        self.softness = float(np.sqrt(spacing[0] * spacing[1]))
        self.bumps = [smooth_noise(self.rng, shape, list(spacing), length) for length in (45.0, 18.0, 9.0)]
        self.cavity: Array = np.zeros(shape, np.float32)
        self.lungs: Array = np.zeros(shape, np.float32)

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
            distance = np.maximum(distance, np.float32(2.5) - self.lungs[shape.box])
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


def build_anatomy(space: Space, rng: np.random.Generator) -> Anatomy:
    """Place every structure of the upper abdomen; the result's layers are ready to be painted."""
    body = Anatomy(space, rng)
    _body_wall(body)
    _lungs_and_heart(body)
    spine = _spine(body)
    _ribs(body)
    _great_vessels(body)
    _kidneys(body)
    _adrenals(body)
    _visceral_vessels(body)
    _gallbladder(body)
    _pancreas(body)
    _stomach(body)
    _liver(body)
    _spleen(body)
    _back_muscles(body, spine)
    _duodenum(body)
    _colon(body)
    _small_bowel(body)
    _mesenteric_vessels(body)
    return body


# --- the container ---------------------------------------------------------------------------------


def _body_wall(body: Anatomy) -> None:
    """Skin, subcutaneous fat, the muscle wall and the cavity that holds the organs."""
    x, y, z = body.space.coordinates
    upper = np.clip((z - 60) / 120, 0, 1)
    half_width = np.float32(140) - 22 * upper**2
    front, back = np.float32(body.vary(98, 8)), np.float32(90)
    u, v = x / half_width, (y + 25) / np.where(y < -25, front, back)
    u2, v2 = u * u, v * v
    level = np.sqrt(np.sqrt(u2 * u2 + np.float32(1.3) * u2 * v2 + v2 * v2))
    radial = np.sqrt(x * x + (y + 25) ** 2) * (1 - 1 / np.maximum(level, 1e-3))
    hull = np.where(level < 0.05, np.float32(-80), radial)
    behind = np.sqrt((x / 60) ** 2 + ((y - 62) / 32) ** 2)  # spine and back muscles bulge into the cavity
    body.cavity = smooth_intersection(hull, 32 * (1 - behind), 12.0)
    rectus = 7 * np.exp(-(((np.abs(x) - 38) / 24) ** 2)) * (y < -60)
    back_muscles = 17 * np.exp(-((x / 72) ** 4)) * np.clip((y - 20) / 20, 0, 1)
    wall = np.float32(body.vary(8.5, 1.2)) + rectus.astype(np.float32) + back_muscles + 0.8 * body.bumps[1]
    fatness = float(np.clip(body.rng.gamma(2.6, 6.5), 4, 42))
    pad = np.maximum(fatness * (1 + 0.25 * v + 0.15 * np.abs(u)) + 0.8 * body.bumps[0], 3)
    skin = hull - wall - pad
    everything = body.space.everything
    body.paint("skin", Shape(everything, skin))
    body.paint("fat", Shape(everything, skin), inset=2.0)
    body.paint("muscle", Shape(everything, hull - wall))
    septa = np.abs(hull - 0.45 * wall) - 0.5 + 0.8 * body.bumps[1]
    body.paint("wall_fat", Shape(everything, septa))
    body.paint("visceral_fat", Shape(everything, body.cavity))


def _lungs_and_heart(body: Anatomy) -> None:
    """Lung bases above the diaphragm's two domes, and the bottom of the heart between them."""
    x, y, z = body.space.coordinates
    domes = []
    for side, top in ((-1, body.vary(138, 7)), (1, body.vary(124, 8))):
        r2 = ((x - side * 62) / 84) ** 2 + ((y + 35) / 84) ** 2
        domes.append(np.float32(top) - 16 * r2 - 26 * r2 * r2 - 26 * np.clip((y - 10) / 50, 0, 2))
    dome = -smooth_union(-domes[0], -domes[1], 18.0) + 2 * body.bumps[0]
    above = (dome - z) * np.float32(0.75)
    body.paint("diaphragm", Shape(body.space.everything, np.maximum(above - 3.5, body.cavity)))
    heart = body.space.ellipsoid(
        body.vary([28, -58, 172], 5), body.vary([62, 46, 52], 3), rotation(about_y=18, about_z=-25)
    )
    mediastinum = body.space.column([[95, 8, 8, 30, 24], [150, 8, 0, 34, 30], [230, 8, -5, 40, 40]], 95, 260)
    body.paint(
        "visceral_fat", Shape(mediastinum.box, np.maximum(mediastinum.distance, above[mediastinum.box]))
    )
    sealed = np.maximum(above, body.cavity + 1.5)
    sealed[heart.box] = np.maximum(sealed[heart.box], 3 - heart.distance)
    sealed[mediastinum.box] = np.maximum(sealed[mediastinum.box], -mediastinum.distance)
    body.lungs = above
    body.paint("lung", Shape(body.space.everything, sealed))
    heart = Shape(heart.box, np.maximum(heart.distance, 1.0 - above[heart.box] * 0 - (z - dome)[heart.box]))
    heart = Shape(heart.box, np.maximum(heart.distance, body.cavity[heart.box] + 2))
    body.paint("epicardial_fat", Shape(heart.box, heart.distance - 3))
    body.place("myocardium", heart)
    for center, radii in (([45, -68, 176], [38, 26, 30]), ([0, -62, 176], [24, 32, 34])):
        chamber = body.space.ellipsoid(center, radii, rotation(about_y=18, about_z=-25))
        inner = np.maximum(chamber.distance, _crop(heart, chamber.box) + 5)
        body.paint("heart_blood", Shape(chamber.box, inner))


def _crop(shape: Shape, box: Box) -> Array:
    """The shape's distance on another box, far outside where it is unknown."""
    out = np.full([s.stop - s.start for s in box], 30, np.float32)
    common = [
        slice(max(a.start, b.start), max(a.start, b.start, min(a.stop, b.stop)))
        for a, b in zip(shape.box, box, strict=True)
    ]
    here = tuple(slice(c.start - b.start, c.stop - b.start) for c, b in zip(common, box, strict=True))
    there = tuple(slice(c.start - b.start, c.stop - b.start) for c, b in zip(common, shape.box, strict=True))
    out[here] = shape.distance[there]
    return out


# --- bones and muscles -----------------------------------------------------------------------------


def _spine(body: Anatomy) -> NDArray:
    """Vertebrae with cortex and marrow, discs, arches and processes, the canal with the cord.

    Returns the path of the vertebral bodies: rows of z, x, y.
    """
    heights = np.array([-200.0, -80, 0, 80, 160, 300])
    sway = body.vary(np.zeros(6), 2.0)
    path = np.stack([heights, sway, np.array([2.0, 2, 9, 19, 28, 30])], 1)
    size = body.factor(0.06)
    rx, ry = size * np.array([25, 25, 23, 21, 18, 17.0]), size * np.array([18, 18, 17, 16, 15, 15.0])
    column = body.space.column(np.column_stack([path, rx, ry]))
    z = body.space.at(column.box)[2]
    phase = np.abs(((z - 12) / VERTEBRA_HEIGHT + 0.5) % 1 - 0.5) * VERTEBRA_HEIGHT  # 0 mid-body, 15 mid-disc
    waisted = Shape(column.box, column.distance + 2.2 * np.clip(1 - phase / 11, 0, 1))
    disc = np.maximum(column.distance + 0.5, 11.5 - phase)
    vertebra = body.roughen(Shape(column.box, np.maximum(waisted.distance, phase - 12.2)), medium=0.5)
    body.paint("bone", vertebra)
    body.paint("marrow", vertebra, inset=2.0)
    body.paint("disc", Shape(column.box, disc))
    body.occupy(column)
    _vertebral_arches(body, path, size)
    canal = body.space.column(
        np.column_stack([path[:, :2], path[:, 2] + ry + 8.5, np.full(6, 10.5), np.full(6, 8.0)])
    )
    body.paint("cerebrospinal_fluid", canal)
    cord = body.space.column(
        np.column_stack([path[2:, :2], path[2:, 2] + ry[2:] + 8, np.full(4, 5), np.full(4, 4.0)]), low=5.0
    )
    body.paint("spinal_cord", cord)
    body.occupy(canal)
    return path


def _vertebral_arches(body: Anatomy, path: NDArray, size: float) -> None:
    for number in range(-8, 9):
        z = 12 + number * VERTEBRA_HEIGHT
        x, y = (float(np.interp(z, path[:, 0], path[:, c])) for c in (1, 2))
        lumbar = 1.0 if z < 30 else 0.75
        pieces = [body.space.tube([[x, y + 36 * size, z - 4], [x, y + 64 * size, z - 12]], 3.6, 2)]
        for side in (-1, 1):
            pieces += [
                body.space.tube([[x + 14 * side, y + 8, z + 5], [x + 15 * side, y + 24, z + 4]], 4.5, 2),
                body.space.tube([[x + 15 * side, y + 25, z], [x, y + 38 * size, z - 4]], [5, 4], 2),
                body.space.tube([[x + 15 * side, y + 27, z + 9], [x + 15 * side, y + 28, z - 14]], 5.5, 2),
                body.space.tube(
                    [[x + 15 * side, y + 24, z + 2], [x + 42 * side * lumbar, y + 30, z + 1]], [4.5, 3], 2
                ),
            ]
        for piece in pieces:
            body.paint("bone", piece)
            body.paint("marrow", piece, inset=2.2)
            body.occupy(piece)


def _ribs(body: Anatomy) -> None:
    """Ribs 6 to 12 of each side, from the spine round the wall and down, ending in cartilage."""
    reach = {12: 0.30, 11: 0.5, 10: 0.74, 9: 0.78, 8: 0.82, 7: 0.86, 6: 0.88, 5: 0.9}
    drop = {12: 95, 11: 135, 10: 155, 9: 155, 8: 150, 7: 135, 6: 120, 5: 105}
    for number, end in reach.items():
        top = 40 + (12 - number) * 25.0
        for side in (-1, 1):
            turn = np.linspace(0.05, 1, 18)
            turn = turn[turn <= max(end, 0.3)]
            points = np.array([_rib_point(t, top, drop[number], side) for t in turn])
            rib = body.space.tube(points + body.vary(np.zeros(3), 1.0), 5.4, 2)
            body.paint("bone", rib)
            body.paint("marrow", rib, inset=2.0)
            if number <= 10:
                points = np.array([_rib_point(t, top, drop[number], side) for t in (end, (end + 1) / 2, 1.0)])
                body.paint("cartilage", body.space.tube(points, 5.0, 2))


def _rib_point(t: float, top: float, drop: float, side: int) -> list[float]:
    """A point on a rib, t from 0 (at the spine) to 1 (at the midline in front)."""
    angle = np.pi * (0.5 - t)  # straight back to straight front
    z = top + 8 - drop * (t - 1.6 * max(t - 0.8, 0))
    width = 145 - 22 * np.clip((z - 60) / 120, 0, 1) ** 2
    c, s = np.cos(angle), np.sin(angle)
    level = (c**4 + 1.3 * c * c * s * s + s**4) ** 0.25
    depth = 94 if s > 0 else 102
    return [side * width * c / level, -25 + depth * s / level, z]


def _back_muscles(body: Anatomy, spine: NDArray) -> None:
    """Erector spinae, psoas and quadratus lumborum, shaped by the spine and kidneys they lie against."""
    bulk = body.factor(0.12)
    for side in (-1, 1):
        x = np.interp([-120, 0, 90, 200], spine[:, 0], spine[:, 1])
        y = np.interp([-120, 0, 90, 200], spine[:, 0], spine[:, 2])
        rows = np.column_stack(
            [[-120, 0, 90, 200], x + side * 36, y + 47, [30, 31, 26, 22], [21, 21, 17, 14]]
        )
        rows[:, 3:] *= bulk
        erector = body.roughen(body.space.column(rows), medium=1.0)
        body.paint("wall_fat", body.carve(erector), inset=-1.5)
        body.place("muscle", erector, gap=0.2)
        psoas = [[-140, side * 46, -8, 24, 25], [-60, side * 40, -2, 18, 19], [0, side * 31, 8, 8, 13]]
        psoas += [[28, side * 27, 12, 4, 7]]
        rows = np.array(psoas, float)
        rows[:, 3:] *= bulk
        body.place("muscle", body.roughen(body.space.column(rows), medium=0.8), gap=0.4)
        quadratus = body.space.column(
            [[-140, side * 78, 42, 22, 9], [-20, side * 62, 42, 18, 8], [30, side * 50, 42, 10, 5]]
        )
        body.place("muscle", quadratus, gap=0.6)
        crus = body.space.column(
            [[-25, side * 12, -10, 3, 5], [40, side * 14, -12, 4, 9], [100, side * 19, -8, 3, 12]]
        )
        body.place("muscle", crus, gap=0.2)


# --- vessels ---------------------------------------------------------------------------------------


def _great_vessels(body: Anatomy) -> None:
    size = body.factor(0.13)
    path = body.vary(
        [[5, -20, -80], [6, -20, -30], [5, -19, 20], [6, -16, 70], [14, -4, 125], [20, 4, 180]], 2
    )
    ends = np.array([[4, -20, -110], *path, [21, 6, 240]])
    aorta = body.space.tube(ends, size * np.array([8, 8.5, 9, 10, 10.5, 11.5, 12, 12]))
    bifurcation = body.space.at(aorta.box)[2]
    aorta.distance = np.maximum(aorta.distance, -82 - bifurcation)
    body.place("aorta", aorta, "aorta")
    if body.rng.random() < 0.35:
        plaque = np.abs(aorta.distance + 0.6) - 0.9 + 3 * np.maximum(1.9 - body.bumps[2][aorta.box], 0)
        body.paint("calcification", Shape(aorta.box, plaque))
    size = body.factor(0.15)
    path = body.vary([[-19, -24, -70], [-20, -26, -20], [-21, -30, 25], [-24, -32, 70], [-25, -32, 105]], 2)
    path = np.array([[-16, -20, -110], *path, [-21, -40, 135], [-14, -50, 160]])
    cava = body.space.tube(path, size * np.array([10, 10, 10.5, 11, 12, 12, 12, 13]))
    cava.distance = np.maximum(cava.distance, body.space.at(cava.box)[2] - 150)
    body.place("vena_cava", cava, "inferior_vena_cava", gap=0.5)
    for side in (-1, 1):
        iliac = body.space.tube([[4, -20, -84], [side * 18 + 2, -20, -105], [side * 34, -16, -140]], 6)
        body.place("artery", iliac)
    path = body.vary([[8, -6, 190], [8, -12, 150], [15, -24, 122], [25, -28, 103]], 2)
    gullet = body.space.tube(np.array([[6, -2, 260], *path, [38, -26, 92]]), body.factor(0.12) * 9.0)
    gullet = body.place("esophagus_wall", gullet, "esophagus", gap=0.3)
    body.paint("air" if body.rng.random() < 0.5 else "mucus", gullet, inset=5.5)


def _visceral_vessels(body: Anatomy) -> None:
    """Portal and splenic vein behind the pancreas; mesenteric, celiac and renal vessels."""
    size = body.factor(0.12)
    crossing = body.vary([-9, -50, 38], 3)
    splenic = np.array([[84, 0, 66], [58, -18, 56], [30, -38, 46], [10, -46, 41], crossing])
    portal = [crossing, crossing + np.array([-12, -3, 16]), [-36, -52, 68], [-48, -50, 78]]
    left_branch = [[-40, -52, 71], [-30, -68, 82], [-14, -80, 90]]
    for points, radii in (
        (splenic + body.vary([0, 0, 0], 1), [3.2, 3.8, 4.2, 4.6, 5.5]),
        (np.array(portal), [6.5, 7.0, 7, 5.5]),
        (np.array(left_branch), [5, 4.5, 3.5]),
    ):
        vein = body.space.tube(points, size * np.array(radii))
        body.place("portal_vein", vein, "portal_and_splenic_vein", gap=0.2)
    tubes: list[tuple[str, list, float]] = [
        ("portal_vein", [crossing, crossing + np.array([0, -6, -22]), [-8, -60, -40], [-10, -62, -100]], 5.2),
        ("artery", [[5, -27, 26], [4, -42, 14], [4, -54, -12], [2, -60, -60], [0, -62, -100]], 3.6),
        ("artery", [[5, -26, 44], [5, -44, 48]], 3.8),
        ("artery", [[5, -44, 48], [-14, -56, 50], [-34, -56, 58]], 2.6),
        ("artery", [[5, -44, 48], [30, -36, 58], [56, -20, 60], [84, -4, 68]], 2.6),
        ("vein", [[58, -8, 2], [26, -30, 8], [4, -36, 10], [-16, -32, 8]], 4.4),
        ("vein", [[-56, -8, -2], [-38, -16, 2], [-22, -26, 4]], 4.6),
        ("artery", [[8, -18, 10], [30, -14, 5], [56, -4, 1]], 2.6),
        ("artery", [[2, -18, 8], [-20, -12, 4], [-56, -3, -2]], 2.6),
    ]
    for tissue, points, radius in tubes:
        body.place(tissue, body.space.tube(points, radius), gap=0.2)


def _mesenteric_vessels(body: Anatomy) -> None:
    """Small vessels fanning out into the mesentery and around the stomach."""
    for _ in range(14):
        start = body.vary([2, -66, -20], 12)
        end = np.array([body.rng.uniform(-85, 85), body.rng.uniform(-105, -50), body.rng.uniform(-110, 0)])
        middle = (start + end) / 2 + body.vary(np.zeros(3), 8)
        body.place("vein", body.space.tube([start, middle, end], [2.6, 2, 1.4], 3))


# --- paired retroperitoneal organs -----------------------------------------------------------------


def _kidneys(body: Anatomy) -> None:
    for side, name, height in ((-1, "right_kidney", -3), (1, "left_kidney", 5)):
        center = body.vary([side * 66, 2, height], 5)
        radii = body.vary([28, 26, 54], 1.5) * body.factor(0.07)
        # The upper pole leans inwards and backwards, the hilum faces forwards and inwards.
        turn = rotation(about_x=-12, about_y=side * -14) @ rotation(about_z=side * 28)
        turn = turn.T
        kidney = body.inside(
            body.roughen(body.space.ellipsoid(center, radii, turn), broad=1.5, medium=0.7), 4
        )
        inward = turn.T @ np.array([-side * 1.0, -0.15, 0])
        sinus = body.space.ellipsoid(center + 17 * inward, [21, 9.5, 25], turn)
        sinus = body.roughen(sinus, medium=2.5, fine=1.0)
        hollow = Shape(kidney.box, np.maximum(kidney.distance, 0 - _crop(sinus, kidney.box)))
        parenchyma = body.carve(hollow, 1.5)
        body.paint("renal_cortex", parenchyma, ORGAN_LABELS[name])
        medulla = np.maximum(kidney.distance + 6.5, 3.5 - _crop(sinus, kidney.box)) + 1.5
        medulla = medulla + 2.4 * body.bumps[1][kidney.box]
        body.paint("renal_medulla", Shape(kidney.box, np.maximum(medulla, parenchyma.distance)))
        if body.rng.random() < 0.18:
            offset = turn.T @ (radii * _unit(body.rng) * 0.85)
            cyst = body.space.ellipsoid(center + offset, np.full(3, body.rng.uniform(4, 13)))
            body.place("cyst", body.carve(cyst))
        whole = body.carve(kidney, 1.5)
        pelvis = body.space.ellipsoid(center + 20 * inward, [10, 5, 10], turn)
        body.paint("renal_pelvis", pelvis)
        body.occupy(whole)


def _unit(rng: np.random.Generator) -> NDArray:
    v = rng.standard_normal(3)
    return v / np.linalg.norm(v)


def _adrenals(body: Anatomy) -> None:
    """Thin glands of a body and two limbs: linear to Y-shaped behind the cava, λ-shaped on the left."""
    thick = body.factor(0.15)
    right, left = body.vary([-33, -16, 56], 2), body.vary([28, -24, 48], 2)
    arms: list[list[float]] = [[0, 0], [-2, 12], [-7, 26], [2, 25]]
    _adrenal(body, "right_adrenal_gland", right, arms, half_thickness=2.5 * thick, span=(-13, 15))
    arms = [[0, 0], [3, 7], [-1, 21], [12, 18]]
    _adrenal(body, "left_adrenal_gland", left, arms, half_thickness=2.9 * thick, span=(-17, 16))


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
    fork = np.asarray(arms[1], float)
    ends = [np.asarray(arm, float) for arm in arms[2:]]
    distance = _plate(x, y, np.zeros(2), fork)
    for end in ends:
        distance = np.minimum(distance, _plate(x, y, fork, end))
    taper = np.clip(1.25 - np.abs(height) / (max(span) * 1.05), 0.35, 1)
    distance = distance - np.float32(half_thickness) * taper
    distance = smooth_intersection(distance, np.maximum(span[0] - height, height - span[1]), 4.0)
    gland = body.roughen(Shape(box, distance), medium=0.5, fine=0.3)
    body.place("adrenal", gland, name, gap=1.2)


def _plate(x: Array, y: Array, a: NDArray, b: NDArray) -> Array:
    """Distance in the axial plane to the segment from a to b."""
    axis = (b - a).astype(np.float32)
    px, py = x - np.float32(a[0]), y - np.float32(a[1])
    along = np.clip((px * axis[0] + py * axis[1]) / np.float32(axis @ axis), 0, 1)
    return np.hypot(px - along * axis[0], py - along * axis[1])


# --- digestive organs ------------------------------------------------------------------------------


def _gallbladder(body: Anatomy) -> None:
    if body.rng.random() < 0.1:
        return  # removed, as in many patients
    size = body.factor(0.2)
    line = body.vary([[-42, -58, 46], [-52, -70, 38], [-62, -84, 24], [-70, -94, 10]], 2) + body.vary(
        [0, 0, 0], 4
    )
    bladder = body.space.tube(line, size * np.array([4, 8.5, 13, 12.5]))
    bladder = body.place("gallbladder_wall", body.inside(bladder, 4), "gallbladder", gap=0.8)
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
    distance = smooth_union(gland.distance, _crop(uncinate, gland.box), 6.0)
    gland = body.roughen(Shape(gland.box, distance), medium=1.3, fine=0.9)
    gland = body.place("pancreas", gland, "pancreas", gap=0.4)
    lobules = Shape(gland.box, np.maximum(gland.distance, 2.2 - 1.3 * body.bumps[2][gland.box]))
    body.paint("visceral_fat", lobules)
    duct = body.space.tube([[-28, -58, 8], [-10, -62, 30], [38, -46, 48], [70, -20, 58]], 1.2)
    body.paint("mucus", Shape(duct.box, np.maximum(duct.distance, _crop(gland, duct.box) + 2)))


def _stomach(body: Anatomy) -> None:
    """Fundus under the left dome, body, antrum across the midline; wall, contents and an air level."""
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
    stomach.distance = smooth_union(stomach.distance, _crop(cardia, stomach.box), 8.0)
    stomach = body.inside(body.roughen(stomach, broad=2.5, medium=1.0), 3)
    stomach = body.place("stomach_wall", stomach, "stomach", gap=0.6)
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
    right = smooth_intersection(right, _plane(xyz, at(-34, -46, 48), tip, (0.55, 0.3, -0.75)), 26.0)
    right = smooth_intersection(right, _plane(xyz, at(-28, -8, 90), at(-28, -8, 200), (0.85, 0.5, 0.0)), 18.0)
    left = ellipsoid_distance(xyz, at(float(body.vary(2, 14)), -84, 92), size * np.array([72, 40, 44]))
    left = smooth_intersection(
        left, _plane(xyz, at(-20, -60, 62), at(-60, -50, 40), (0.1, 0.65, -0.75)), 16.0
    )
    liver = smooth_union(right, left, 26.0)
    liver = np.maximum(liver, -_fissure(xyz))
    shape = body.inside(body.roughen(Shape(box, liver), broad=2.5, medium=0.7), 1.0)
    shape = body.place("liver", shape, "liver", gap=0.3)
    _liver_vessels(body, shape, shift)
    _liver_lesions(body, shape)


def _fissure(xyz: tuple[Array, Array, Array]) -> Array:
    """The fat-filled cleft of the round ligament, opening to the front below."""
    cleft = _plate(xyz[0], xyz[1], np.array([-24.0, -150]), np.array([-21.0, -90]))
    return cleft - 2.5 + np.clip(xyz[2] - 62, -6, 60) * np.float32(0.4)


def _plane(
    xyz: tuple[Array, Array, Array], a: NDArray, b: NDArray, towards: tuple[float, float, float]
) -> Array:
    """Signed distance to the plane through a and b whose outward side is as near `towards` as can be."""
    along = (b - a) / np.linalg.norm(b - a)
    normal = np.array(towards) - along * (np.array(towards) @ along)
    nx, ny, nz = (normal / np.linalg.norm(normal)).astype(np.float32)
    x, y, z = (c - np.float32(m) for c, m in zip(xyz, a, strict=True))
    return x * nx + y * ny + z * nz


def _liver_vessels(body: Anatomy, liver: Shape, shift: NDArray) -> None:
    """Three hepatic veins draining to the cava and a branching portal tree, within the liver only."""
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
    body.paint(tissue, Shape(vessel.box, np.maximum(vessel.distance, _crop(liver, vessel.box) + 2.5)))
    if depth == 2:
        return
    for t in (0.45, 0.75):
        start = line[1] * (1 - t) + line[2] * t if len(line) > 2 else line[0] * (1 - t) + line[1] * t
        onward = line[-1] - line[0]
        length = np.linalg.norm(onward) * body.rng.uniform(0.35, 0.6)
        heading = onward / np.linalg.norm(onward) + 1.1 * _unit(body.rng)
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
        within = np.maximum(lesion.distance, _crop(liver, lesion.box) + 0.5)
        body.paint(tissue, Shape(lesion.box, within.astype(np.float32)))


def _spleen(body: Anatomy) -> None:
    size = body.factor(0.16)
    center = body.vary([104, 10, 62], 4)
    outer = body.space.ellipsoid(center, size * np.array([34, 58, 56]), rotation(about_x=-22, about_z=18))
    hilum = ellipsoid_distance(
        body.space.at(outer.box), center - np.array([42, 16, 6]), size * np.array([42, 60, 62])
    )
    spleen = smooth_intersection(outer.distance, -hilum, 12.0)
    shape = body.inside(body.roughen(Shape(outer.box, spleen), broad=2.0, medium=0.5), 1.0)
    body.place("spleen", shape, "spleen", gap=0.8)


# --- bowel -----------------------------------------------------------------------------------------


def _duodenum(body: Anatomy) -> None:
    line = [
        [-24, -78, 26],
        [-42, -72, 28],
        [-50, -58, 10],
        [-48, -50, -22],
        [-28, -46, -38],
        [4, -44, -36],
        [30, -50, -14],
    ]
    gut = body.inside(body.space.tube(body.vary(line, 2), body.vary(11.5, 1)), 3)
    gut = body.place("bowel_wall", body.roughen(gut, medium=1.0), gap=0.4)
    body.paint(
        str(body.rng.choice(["bowel_fluid", "bowel_contrast", "air"], p=[0.7, 0.2, 0.1])), gut, inset=3.2
    )


def _colon(body: Anatomy) -> None:
    """Ascending, transverse and descending colon with haustra, filled with stool and gas."""
    rng = body.rng
    sag = rng.uniform(-45, 5)
    line = np.array(
        [
            *(
                [-104, -18, -150],
                [-106, -14, -80],
                [-104, -28, -40],
                [-92, -62, -24],
                [-60, -98, sag / 2 - 18],
            ),
            *([-10, -108, sag], [40, -104, sag / 2 + 5], [84, -78, 22], [106, -34, 38], [112, 0, 14]),
            *([112, 10, -40], [108, 6, -150]),
        ],
        float,
    )
    line = body.vary(line, 5)
    caliber = np.interp(np.arange(len(line)), [0, 3, 7, len(line) - 1], [24, 21, 18, 14]) * body.factor(0.12)
    gut = body.space.tube(line, caliber * np.exp(0.14 * rng.standard_normal(len(line))), 6)
    gut = body.inside(body.roughen(gut, medium=2.2, fine=1.0), 2)
    gut = body.place("bowel_wall", gut, gap=0.6)
    body.paint("stool", gut, inset=2.4)
    y = body.space.at(gut.box)[1]
    gas_level = -85 + 12 * body.bumps[0][gut.box] + (20 if rng.random() < 0.5 else 0)
    gas = np.maximum(gut.distance + 2.6, np.minimum(y - gas_level, 1.8 - 2.0 * body.bumps[1][gut.box]))
    body.paint("air", Shape(gut.box, gas))


def _small_bowel(body: Anatomy) -> None:
    """Loops filling the space below the stomach and pancreas."""
    filling = str(body.rng.choice(["bowel_fluid", "bowel_contrast"], p=[0.75, 0.25]))
    for _ in range(16):
        start = np.array(
            [body.rng.uniform(-70, 80), body.rng.uniform(-105, -50), body.rng.uniform(-150, -25)]
        )
        steps = 26 * np.array([_unit(body.rng) for _ in range(4)]) * [1, 0.7, 0.7]
        line = np.vstack([start, start + np.cumsum(steps, 0)])
        line[:, 2] = np.minimum(line[:, 2], -18)
        loop = body.inside(body.space.tube(line, body.rng.uniform(10, 14)), 3)
        loop = body.place("bowel_wall", body.roughen(loop, medium=0.8), gap=0.8)
        content = filling if body.rng.random() < 0.85 else "air"
        body.paint(content, loop, inset=2.6 + body.rng.uniform(0, 3))
