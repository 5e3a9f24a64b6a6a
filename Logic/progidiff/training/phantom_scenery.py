"""Everything around the organs: body wall, lungs, heart, bones, muscles, bowel and small vessels.

Positions and sizes are round textbook figures of an adult in body coordinates (see `phantom_shapes`),
jittered anew for every seed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from progidiff.training.phantom_anatomy import Anatomy
from progidiff.training.phantom_shapes import (
    Array,
    Shape,
    random_direction,
    rotation,
    smooth_intersection,
    smooth_union,
    within,
)

VERTEBRA_HEIGHT = 30.0


def body_wall(body: Anatomy) -> None:
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
    if body.given:  # the organs of a label map always fit in
        hull = smooth_union(hull, body.occupied - 4, 20.0)
    behind = np.sqrt((x / 60) ** 2 + ((y - 62) / 32) ** 2)  # spine and back muscles bulge into the cavity
    body.cavity = smooth_intersection(hull, 32 * (1 - behind), 12.0)
    if body.given:
        body.cavity = np.minimum(body.cavity, body.occupied - 1.5)
    rectus = 7 * np.exp(-(((np.abs(x) - 38) / 24) ** 2)) * (y < -60)
    back_muscles = 17 * np.exp(-((x / 72) ** 4)) * np.clip((y - 20) / 20, 0, 1)
    wall = np.float32(body.vary(8.5, 1.2)) + rectus.astype(np.float32) + back_muscles + 0.8 * body.bumps[1]
    fatness = float(np.clip(body.rng.gamma(2.6, 6.5), 4, 42))
    pad = np.maximum(fatness * (1 + 0.25 * v + 0.15 * np.abs(u)) + 0.8 * body.bumps[0], 3)
    skin = hull - wall - pad
    everything = body.space.everything
    _table(body, skin)
    body.paint("skin", Shape(everything, skin))
    body.paint("fat", Shape(everything, skin), inset=2.0)
    body.paint("muscle", Shape(everything, hull - wall))
    septa = np.abs(hull - 0.45 * wall) - 0.5 + 0.8 * body.bumps[1]
    body.paint("wall_fat", Shape(everything, septa))
    body.paint("visceral_fat", Shape(everything, body.cavity))


def _table(body: Anatomy, skin: Array) -> None:
    """The scanner's curved table top under the back of some patients."""
    if body.rng.random() < 0.5:
        return
    x, y, _ = body.space.coordinates
    back = float(y[skin < 0].max(initial=100.0))
    sheet = np.abs(y - np.float32(back + 4) + x * x / np.float32(1600)) - 1.5
    body.paint("table", Shape(body.space.everything, np.maximum(sheet, np.abs(x) - 205)))


def lungs_and_heart(body: Anatomy) -> None:
    """Lung bases above the diaphragm's two domes, and the bottom of the heart between them."""
    x, y, z = body.space.coordinates
    right, left = body.top("liver"), body.top("spleen", "stomach")
    domes = []
    # A dome a little lower than given organs, which then push it up and stay covered by it.
    right, left = (None if height is None else height - 14 for height in (right, left))
    for side, top in ((-1, right or body.vary(138, 7)), (1, left or body.vary(124, 8))):
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
    sealed = np.maximum(np.maximum(above, body.cavity + 1.5), 2.0 - body.occupied)
    sealed[heart.box] = np.maximum(sealed[heart.box], 3 - heart.distance)
    sealed[mediastinum.box] = np.maximum(sealed[mediastinum.box], -mediastinum.distance)
    body.above_diaphragm = above
    body.paint("lung", Shape(body.space.everything, sealed))
    heart = Shape(heart.box, np.maximum(heart.distance, 1.0 - (z - dome)[heart.box]))
    heart = Shape(heart.box, np.maximum(heart.distance, body.cavity[heart.box] + 2))
    body.paint("epicardial_fat", Shape(heart.box, heart.distance - 3))
    body.place("myocardium", heart)
    for center, radii in (([45, -68, 176], [38, 26, 30]), ([0, -62, 176], [24, 32, 34])):
        chamber = body.space.ellipsoid(center, radii, rotation(about_y=18, about_z=-25))
        inner = np.maximum(chamber.distance, within(heart, chamber.box) + 5)
        body.paint("heart_blood", Shape(chamber.box, inner))


def spine(body: Anatomy) -> NDArray:
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


def ribs(body: Anatomy) -> None:
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


def back_muscles(body: Anatomy, spine: NDArray) -> None:
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


def branch_vessels(body: Anatomy) -> None:
    """Celiac trunk, mesenteric, renal and iliac vessels."""
    tubes: list[tuple[str, list, float]] = [
        ("vein", [[-9, -51, 34], [-9, -56, 16], [-8, -60, -40], [-10, -62, -100]], 5.2),
        ("artery", [[5, -27, 26], [4, -42, 14], [4, -54, -12], [2, -60, -60], [0, -62, -100]], 3.6),
        ("artery", [[5, -26, 44], [5, -44, 48]], 3.8),
        ("artery", [[5, -44, 48], [-14, -56, 50], [-34, -56, 58]], 2.6),
        ("artery", [[5, -44, 48], [30, -36, 58], [56, -20, 60], [84, -4, 68]], 2.6),
        ("vein", [[58, -8, 2], [26, -30, 8], [4, -36, 10], [-16, -32, 8]], 4.4),
        ("vein", [[-56, -8, -2], [-38, -16, 2], [-22, -26, 4]], 4.6),
        ("artery", [[8, -18, 10], [30, -14, 5], [56, -4, 1]], 2.6),
        ("artery", [[2, -18, 8], [-20, -12, 4], [-56, -3, -2]], 2.6),
        *(
            ("artery", [[4, -20, -84], [side * 18 + 2, -20, -105], [side * 34, -16, -140]], 6)
            for side in (-1, 1)
        ),
    ]
    for tissue, points, radius in tubes:
        body.place(tissue, body.space.tube(points, radius), gap=0.2)


def mesenteric_vessels(body: Anatomy) -> None:
    """Small vessels fanning out into the mesentery and around the stomach."""
    for _ in range(14):
        start = body.vary([2, -66, -20], 12)
        end = np.array([body.rng.uniform(-85, 85), body.rng.uniform(-105, -50), body.rng.uniform(-110, 0)])
        middle = (start + end) / 2 + body.vary(np.zeros(3), 8)
        body.place("vein", body.space.tube([start, middle, end], [2.6, 2, 1.4], 3))


def duodenum(body: Anatomy) -> None:
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


def colon(body: Anatomy) -> None:
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


def small_bowel(body: Anatomy) -> None:
    """Loops filling the space below the stomach and pancreas."""
    filling = str(body.rng.choice(["bowel_fluid", "bowel_contrast"], p=[0.75, 0.25]))
    for _ in range(16):
        start = np.array(
            [body.rng.uniform(-70, 80), body.rng.uniform(-105, -50), body.rng.uniform(-150, -25)]
        )
        steps = 26 * np.array([random_direction(body.rng) for _ in range(4)]) * [1, 0.7, 0.7]
        line = np.vstack([start, start + np.cumsum(steps, 0)])
        line[:, 2] = np.minimum(line[:, 2], -18)
        loop = body.inside(body.space.tube(line, body.rng.uniform(10, 14)), 3)
        loop = body.place("bowel_wall", body.roughen(loop, medium=0.8), gap=0.8)
        content = filling if body.rng.random() < 0.85 else "air"
        body.paint(content, loop, inset=2.6 + body.rng.uniform(0, 3))
