"""What the worker draws: ellipsoids, or variations of true labels."""

from __future__ import annotations

import numpy as np

ORGANS = {"liver": 6, "spleen": 1, "pancreas": 11, "gallbladder": 4, "liver_tumor": 14}


def ellipsoid(shape: tuple, organ: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Corner and uint8 probability of a soft ellipsoid; each number is a little larger and further on."""
    centers = {"liver": (0.35, 0.45, 0.5), "spleen": (0.72, 0.6, 0.55), "pancreas": (0.5, 0.45, 0.4)}
    centers["liver_tumor"] = centers["liver"]
    center = np.array(shape) * centers[organ] + np.array([number - 2, 0, 0])
    radii = np.array(shape) * (0.16 + 0.01 * number)
    low = np.maximum(np.floor(center - 1.4 * radii), 0).astype(int)
    high = np.minimum(np.ceil(center + 1.4 * radii), shape).astype(int)
    grid = np.indices(high - low) + low[:, None, None, None]
    far = np.sqrt((((grid - center[:, None, None, None]) / radii[:, None, None, None]) ** 2).sum(axis=0))
    return low, np.clip(255 * (1.25 - far) / 0.5, 0, 255).astype(np.uint8)


def from_labels(mask: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """A blurred, slightly wavy version of a true mask, for pictures: different for each number."""
    inside = np.argwhere(mask)
    low = np.maximum(inside.min(axis=0) - 9, 0)
    high = np.minimum(inside.max(axis=0) + 10, mask.shape)
    soft = mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].astype(np.float32)
    for _pass in range(3):
        for axis, width in ((0, 4), (1, 4), (2, 1)):
            soft = sum(np.roll(soft, step, axis) for step in range(-width, width + 1)) / (2 * width + 1)
    i, j, k = np.indices(soft.shape)
    wave = np.sin(i / (6 + number) + number) * np.cos(j / (9 - number) + 2 * number) * np.cos(k / 3 + number)
    return low, np.clip(255 * (0.5 + 1.6 * (soft - 0.5 + 0.2 * wave + 0.05 * (2 - number))), 0, 255).astype(
        np.uint8
    )
