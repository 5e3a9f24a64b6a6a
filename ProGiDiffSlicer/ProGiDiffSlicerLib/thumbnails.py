"""Small pictures of a proposal over the slice where it is largest."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import slicer
import vtk

SIZE = 48
_MARGIN = 0.25


def picture(
    volume: Any, mask: np.ndarray, region: list[list[int]], color: tuple[float, float, float]
) -> np.ndarray:
    """(SIZE, SIZE, 3) uint8: the grey image around the organ with its mask tinted and outlined.

    Args:
        mask: (I, J, K) bool over `region` of the volume's grid.
        color: red, green, blue in [0, 1].
    """
    if not mask.any():
        return np.full((SIZE, SIZE, 3), 40, np.uint8)
    axis = _axial_axis(volume)
    best = int(mask.sum(axis=tuple(a for a in range(3) if a != axis)).argmax())
    flat_mask = np.take(mask, best, axis=axis)
    rows, columns = [a for a in range(3) if a != axis]
    image = np.take(slicer.util.arrayFromVolume(volume).transpose(2, 1, 0), region[axis][0] + best, axis=axis)
    offset = (region[rows][0], region[columns][0])
    spacing = np.array(volume.GetSpacing())[[rows, columns]]
    points = _sampling(flat_mask, offset, spacing, *_directions(volume, rows, columns))
    grey = _grey(_sample(image, points), volume)
    inside = _sample(flat_mask, points - np.array(offset)[:, None, None]).astype(bool)
    return _paint(grey, inside, color)


def png(pixels: np.ndarray) -> bytes:
    """A PNG file of (rows, columns, 3) uint8."""
    height, width = pixels.shape[:2]
    lines = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def best_point(volume: Any, mask: np.ndarray, region: list[list[int]]) -> tuple[float, float, float] | None:
    """RAS of the middle of the mask in the slice where it is largest, for the slice views to jump to."""
    if not mask.any():
        return None
    axis = _axial_axis(volume)
    best = int(mask.sum(axis=tuple(a for a in range(3) if a != axis)).argmax())
    inside = np.argwhere(np.take(mask, best, axis=axis))
    middle = inside[np.abs(inside - inside.mean(axis=0)).sum(axis=1).argmin()]
    index = np.insert(middle, axis, best) + [start for start, _stop in region]
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    local = matrix.MultiplyPoint((*map(float, index), 1.0))[:3]
    world = [0.0, 0.0, 0.0]
    volume.TransformPointToWorld(local, world)
    return tuple(world)


def _ijk_directions(volume: Any) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASDirectionMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)[:3, :3]


def _axial_axis(volume: Any) -> int:
    """The index axis that runs most nearly head to feet."""
    return int(np.abs(_ijk_directions(volume)[2]).argmax())


def _directions(volume: Any, rows: int, columns: int) -> tuple[bool, int, int]:
    """How to show a slice the radiological way: is the first axis left-right, and the two flips."""
    directions = _ijk_directions(volume)
    first_is_left_right = abs(directions[0, rows]) >= abs(directions[0, columns])
    across, down = (rows, columns) if first_is_left_right else (columns, rows)
    return (
        first_is_left_right,
        (-1 if directions[0, across] > 0 else 1),
        (-1 if directions[1, down] > 0 else 1),
    )


def _sampling(
    mask: np.ndarray,
    offset: tuple[int, int],
    spacing: np.ndarray,
    first_across: bool,
    flip_across: int,
    flip_down: int,
) -> np.ndarray:
    """(2, SIZE, SIZE) indices into the slice: a square in mm around the mask, patient's right on the left."""
    inside = np.argwhere(mask)
    low, high = inside.min(axis=0), inside.max(axis=0) + 1
    middle = (low + high) / 2 + offset
    half = max((high - low) * spacing) * (0.5 + _MARGIN)
    steps = np.linspace(-half, half, SIZE)
    across, down = np.meshgrid(steps * flip_across, steps * flip_down)
    first, second = (across, down) if first_across else (down, across)
    return np.stack([middle[0] + first / spacing[0], middle[1] + second / spacing[1]])


def _sample(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Nearest voxel at `points`, zero outside."""
    index = np.floor(points).astype(int)
    valid = np.all((index >= 0) & (index < np.array(image.shape)[:, None, None]), axis=0)
    clipped = [np.clip(index[a], 0, image.shape[a] - 1) for a in range(2)]
    return np.where(valid, image[tuple(clipped)], 0 if image.dtype == bool else image.min())


def _grey(values: np.ndarray, volume: Any) -> np.ndarray:
    """[0, 1] with the window the user sees."""
    display = volume.GetScalarVolumeDisplayNode()
    window, level = (display.GetWindow(), display.GetLevel()) if display else (0, 0)
    low, high = (level - window / 2, level + window / 2) if window > 0 else np.percentile(values, (1, 99))
    return np.clip((values - low) / max(high - low, 1e-6), 0, 1)


def _paint(grey: np.ndarray, inside: np.ndarray, color: tuple[float, float, float]) -> np.ndarray:
    pixels = np.repeat(grey[..., None], 3, axis=2)
    tint = np.array(color)
    pixels[inside] = 0.55 * pixels[inside] + 0.45 * tint
    inner = inside.copy()
    for shift in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        inner &= np.roll(inside, shift, axis=(0, 1))
    pixels[inside & ~inner] = tint
    return np.round(pixels * 255).astype(np.uint8)
