"""Smooth implicit shapes in a deformable body: the geometry kit the phantom is built with.

Every shape is a distance field in millimetres (negative inside), evaluated only in the box of voxels
it can reach. Coordinates are *body coordinates*: x to the patient's left, y to the back, z to the head,
in mm; the origin lies midway between the kidneys. A random pose and a smooth random deformation connect
them to the voxel grid, so the same plan gives a different patient for every seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline

Array = NDArray[np.floating]
Box = tuple[slice, slice, slice]

REACH_MM = 7.0
"""How far outside a shape its distance is still known; neighbours that keep a gap need no more."""
FAR_MM = 30.0
"""The distance assumed where a shape's own is not known."""


@dataclass
class Shape:
    """A distance field (mm, negative inside) on a box of the voxel grid."""

    box: Box
    distance: Array


def smooth_noise(
    rng: np.random.Generator, shape: Sequence[int], spacing: ArrayLike, wavelength: float
) -> Array:
    """Gaussian noise of unit variance that varies over about `wavelength` mm.

    Random coefficients of a cubic B-spline lattice, expanded one axis at a time.
    """
    steps = np.asarray(spacing, float) / (wavelength / 2)
    bases = [_bspline_basis(n, step) for n, step in zip(shape, steps, strict=True)]
    field = rng.standard_normal([basis.shape[1] for basis in bases]).astype(np.float32)
    for basis in bases:  # each product moves its axis to the end, so three of them restore the order
        field = np.tensordot(field, basis, axes=(0, 1))
    return np.ascontiguousarray(field / max(float(field.std()), 1e-6))


def _bspline_basis(n: int, step: float) -> Array:
    """(n, m) weights of a uniform cubic B-spline sampled every `step` knots."""
    knots = np.arange(n) * step
    offsets = np.abs(knots[:, None] - np.arange(-1, int(knots[-1]) + 3)[None, :])
    near = 2 / 3 - offsets**2 + offsets**3 / 2
    far = np.clip(2 - offsets, 0, None) ** 3 / 6
    return np.where(offsets < 1, near, far).astype(np.float32)


class Space:
    """The voxel grid with the body coordinates of every voxel.

    Args:
        shape: (I, J, K) voxels.
        matrix: (3, 3) from voxel indices to body mm (orientation, spacing, size of the patient).
        start: (3,) body coordinates of voxel (0, 0, 0).
        deformation: standard deviation of a smooth elastic displacement along each axis in mm.

    Attributes:
        spacing: (3,) mm.
        slice_axis: the voxel axis that runs along the body.
        coordinates: body coordinates x, y, z, each of shape (I, J, K).
    """

    def __init__(
        self,
        rng: np.random.Generator,
        shape: tuple[int, int, int],
        *,
        matrix: NDArray,
        start: NDArray,
        deformation: float = 0.0,
    ) -> None:
        self.shape, self.matrix, self.start = shape, matrix, start
        self.to_voxel = np.linalg.inv(matrix)
        self.spacing = np.linalg.norm(matrix, axis=0)
        self.slice_axis = int(np.argmax(np.abs(matrix[2])))
        self.shift = 2 * deformation
        index = [np.arange(n, dtype=np.float32) for n in shape]
        self.coordinates: list[Array] = []
        for axis in range(3):
            i, j, k = (np.float32(matrix[axis, a]) * index[a] for a in range(3))
            field = i[:, None, None] + j[None, :, None] + (k + np.float32(start[axis]))[None, None, :]
            if deformation > 0:
                wave = np.clip(smooth_noise(rng, shape, self.spacing, 170.0), -2, 2)
                field = field + np.float32(deformation) * wave
            self.coordinates.append(field)

    @property
    def everything(self) -> Box:
        i, j, k = (slice(0, n) for n in self.shape)
        return i, j, k

    def box(self, low: ArrayLike, high: ArrayLike) -> Box:
        """Voxels that may lie between two corners given in body coordinates, with a margin."""
        low, high = np.asarray(low, float), np.asarray(high, float)
        center = self.to_voxel @ ((low + high) / 2 - self.start)
        half = np.abs(self.to_voxel) @ ((high - low) / 2 + self.shift + REACH_MM)
        first = np.clip(np.floor(center - half), 0, self.shape).astype(int)
        last = np.clip(np.ceil(center + half) + 1, first, self.shape).astype(int)
        i, j, k = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
        return i, j, k

    def at(self, box: Box) -> tuple[Array, Array, Array]:
        """Body coordinates x, y, z of the voxels of a box."""
        x, y, z = (c[box] for c in self.coordinates)
        return x, y, z

    def ellipsoid(self, center: ArrayLike, radii: ArrayLike, rotation: ArrayLike | None = None) -> Shape:
        """An ellipsoid; `rotation` (3, 3) turns body axes into the ellipsoid's own axes."""
        center, radii = np.asarray(center, np.float32), np.asarray(radii, np.float32)
        reach = radii if rotation is None else np.full(3, radii.max())
        box = self.box(center - reach, center + reach)
        return Shape(box, ellipsoid_distance(self.at(box), center, radii, rotation))

    def tube(self, points: ArrayLike, radii: ArrayLike, pieces: int = 4) -> Shape:
        """A round tube along a cubic spline through `points` (n, 3), radius given at each point."""
        line, radius = spline(points, radii, pieces)
        box = self.box((line - radius[:, None]).min(0), (line + radius[:, None]).max(0))
        distance = np.full(self.coordinates[0][box].shape, FAR_MM, np.float32)
        if distance.size == 0:
            return Shape(box, distance)
        for a, b, ra, rb in zip(line[:-1], line[1:], radius[:-1], radius[1:], strict=True):
            low = np.minimum(a - ra, b - rb)
            piece = _overlap(self.box(low, np.maximum(a + ra, b + rb)), box)
            part = distance[_relative(piece, box)]
            if part.size == 0:
                continue
            np.minimum(part, _capsule_distance(self.at(piece), (a, b), (ra, rb)), out=part)
        return Shape(box, distance)

    def column(self, path: ArrayLike, low: float | None = None, high: float | None = None) -> Shape:
        """An upright column with elliptic cross-section.

        Args:
            path: (n, 5) rows of z, centre x, centre y, radius x, radius y, sorted by z.
            low, high: flat ends in z; the first and last row where not given.
        """
        path = np.asarray(path, np.float32)
        low = float(path[0, 0]) if low is None else low
        high = float(path[-1, 0]) if high is None else high
        least, most = (path[:, 1:3] - path[:, 3:]).min(0), (path[:, 1:3] + path[:, 3:]).max(0)
        box = self.box([*least, low], [*most, high])
        x, y, z = self.at(box)
        cx, cy, rx, ry = (np.interp(z, path[:, 0], path[:, c]).astype(np.float32) for c in range(1, 5))
        u, v = (x - cx) / rx, (y - cy) / ry
        level = np.sqrt(u * u + v * v)
        slope = np.sqrt((u / rx) ** 2 + (v / ry) ** 2)
        distance = level * (level - 1) / np.maximum(slope, 1e-3)
        return Shape(box, np.maximum(distance, np.maximum(low - z, z - high)))


def ellipsoid_distance(
    xyz: tuple[Array, Array, Array], center: ArrayLike, radii: ArrayLike, rotation: ArrayLike | None = None
) -> Array:
    """Approximate distance to an ellipsoid: exact on its surface, first order near it."""
    p = [c - np.float32(m) for c, m in zip(xyz, np.asarray(center), strict=True)]
    if rotation is not None:
        turn = np.asarray(rotation, np.float32)
        p = [turn[a, 0] * p[0] + turn[a, 1] * p[1] + turn[a, 2] * p[2] for a in range(3)]
    u = [c / np.float32(r) for c, r in zip(p, np.asarray(radii), strict=True)]
    level = np.sqrt(u[0] * u[0] + u[1] * u[1] + u[2] * u[2])
    w = [c / np.float32(r) for c, r in zip(u, np.asarray(radii), strict=True)]
    slope = np.sqrt(w[0] * w[0] + w[1] * w[1] + w[2] * w[2])
    return level * (level - 1) / np.maximum(slope, np.float32(1e-4))


def spline(points: ArrayLike, radii: ArrayLike, pieces: int) -> tuple[NDArray, NDArray]:
    """Positions (m, 3) and radii (m,) along a smooth curve, `pieces` steps between given points."""
    points = np.asarray(points, float)
    radii = np.broadcast_to(np.asarray(radii, float), len(points))
    knots = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1) ** 0.5)])
    steps = np.interp(
        np.linspace(0, len(points) - 1, pieces * (len(points) - 1) + 1), range(len(points)), knots
    )
    return CubicSpline(knots, points)(steps), np.interp(steps, knots, radii)


def _capsule_distance(
    xyz: tuple[Array, Array, Array], ends: tuple[NDArray, NDArray], radii: tuple[float, float]
) -> Array:
    """Distance to a rod with round ends whose radius changes from one end to the other."""
    a, axis = ends[0].astype(np.float32), (ends[1] - ends[0]).astype(np.float32)
    length2 = max(float(axis @ axis), 1e-6)
    x, y, z = (c - m for c, m in zip(xyz, a, strict=True))
    along = np.clip((x * axis[0] + y * axis[1] + z * axis[2]) / np.float32(length2), 0, 1)
    x, y, z = x - along * axis[0], y - along * axis[1], z - along * axis[2]
    return np.sqrt(x * x + y * y + z * z) - (np.float32(radii[0]) + along * np.float32(radii[1] - radii[0]))


def plate_distance(x: Array, y: Array, a: NDArray, b: NDArray) -> Array:
    """Distance in the axial plane to the segment from a to b, whatever the height."""
    axis = (b - a).astype(np.float32)
    px, py = x - np.float32(a[0]), y - np.float32(a[1])
    along = np.clip((px * axis[0] + py * axis[1]) / np.float32(axis @ axis), 0, 1)
    return np.hypot(px - along * axis[0], py - along * axis[1])


def plane_distance(
    xyz: tuple[Array, Array, Array], a: NDArray, b: NDArray, towards: tuple[float, float, float]
) -> Array:
    """Signed distance to the plane through a and b whose outward side is as near `towards` as can be."""
    along = (b - a) / np.linalg.norm(b - a)
    normal = np.array(towards) - along * (np.array(towards) @ along)
    nx, ny, nz = (normal / np.linalg.norm(normal)).astype(np.float32)
    x, y, z = (c - np.float32(m) for c, m in zip(xyz, a, strict=True))
    return x * nx + y * ny + z * nz


def within(shape: Shape, box: Box) -> Array:
    """The shape's distance on another box, far outside where it is not known."""
    out = np.full([s.stop - s.start for s in box], FAR_MM, np.float32)
    common = _overlap(shape.box, box)
    out[_relative(common, box)] = shape.distance[_relative(common, shape.box)]
    return out


def _overlap(a: Box, b: Box) -> Box:
    i, j, k = (
        slice(max(p.start, q.start), max(p.start, q.start, min(p.stop, q.stop)))
        for p, q in zip(a, b, strict=True)
    )
    return i, j, k


def _relative(inner: Box, outer: Box) -> Box:
    """The inner box in the outer box's own indices."""
    i, j, k = (slice(p.start - q.start, p.stop - q.start) for p, q in zip(inner, outer, strict=True))
    return i, j, k


def smooth_union(a: Array, b: Array, blend: float) -> Array:
    """Union whose seam is rounded over `blend` mm (polynomial smooth minimum)."""
    h = np.clip(np.float32(blend) - np.abs(a - b), 0, None) / np.float32(blend)
    return np.minimum(a, b) - h * h * np.float32(blend / 4)


def smooth_intersection(a: Array, b: Array, blend: float) -> Array:
    """Intersection whose edge is rounded over `blend` mm."""
    return -smooth_union(-a, -b, blend)


def rotation(about_x: float = 0.0, about_y: float = 0.0, about_z: float = 0.0) -> NDArray:
    """(3, 3) rotation matrix from angles in degrees, applied in the order x, y, z."""
    ax, ay, az = np.deg2rad([about_x, about_y, about_z])
    rx = np.array([[1, 0, 0], [0, np.cos(ax), -np.sin(ax)], [0, np.sin(ax), np.cos(ax)]])
    ry = np.array([[np.cos(ay), 0, np.sin(ay)], [0, 1, 0], [-np.sin(ay), 0, np.cos(ay)]])
    rz = np.array([[np.cos(az), -np.sin(az), 0], [np.sin(az), np.cos(az), 0], [0, 0, 1]])
    return rz @ ry @ rx


def random_direction(rng: np.random.Generator) -> NDArray:
    """(3,) unit vector, all directions alike."""
    direction = rng.standard_normal(3)
    return direction / np.linalg.norm(direction)
