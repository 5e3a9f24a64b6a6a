"""How large a window the fine pass opens around an organ."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FINEST_PIXEL_MM = 1.2
COARSEST_PIXEL_MM = 3.2
_MARGIN = 1.3  # room for what the coarse pass missed and for context


def crop_pixel_mm(extent_mm: NDArray[np.floating], crop: int) -> float:
    """Pixel edge in mm such that the organ with a margin fits a square crop of `crop` pixels.

    Args:
        extent_mm: (2,) in-plane size of the organ.
        crop: edge of the crop in pixels.
    """
    return float(np.clip(extent_mm.max() * _MARGIN / crop, FINEST_PIXEL_MM, COARSEST_PIXEL_MM))
