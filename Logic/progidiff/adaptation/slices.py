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
    """ "1–40" or "3–7, 12": slices as people count them, from one."""
    return ", ".join(f"{a + 1}–{b}" if b - a > 1 else f"{b}" for a, b in ranges)
