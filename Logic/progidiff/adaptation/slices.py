"""Ranges of slices: (first, end), counted from zero, end exclusive."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ranges = tuple[tuple[int, int], ...]


def runs(flags: NDArray[np.bool_]) -> Ranges:
    """The ranges in which `flags` (N,) is True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return tuple((int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True))


def slices_text(ranges: Ranges) -> str:
    """ "0–39" or "2–6, 11": first and last of each range, counted from 0 as Slicer counts slices."""
    return ", ".join(f"{a}–{b - 1}" if b - a > 1 else f"{a}" for a, b in ranges)
