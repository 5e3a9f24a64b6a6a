"""Volume ↔ SimpleITK image, and the one place where SimpleITK is imported.

SimpleITK takes a noticeable time to import, so it is loaded when the first file is read, not when
the package is imported.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from progidiff.volumes.volume import Modality, Volume

if TYPE_CHECKING:
    import SimpleITK

# SimpleITK counts x to the left and y to the back (LPS), the engine to the right and front (RAS).
LPS_RAS = np.diag([-1.0, -1.0, 1.0])

_stderr_lock = threading.Lock()


@lru_cache(maxsize=1)
def simpleitk() -> ModuleType:
    """SimpleITK, imported on first use and told not to print warnings on stderr."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return sitk


@contextmanager
def no_chatter() -> Iterator[None]:
    """Keep what C++ readers and writers print on stderr from the user, who gets a sentence instead.

    The process's stderr is closed meanwhile, for all threads; keep the block short.
    """
    with _stderr_lock:
        saved = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(nowhere)


def storable(array: NDArray) -> NDArray:
    """The array in native byte order and a dtype that image files know: bool becomes uint8."""
    if array.dtype == bool:
        return array.view(np.uint8)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def image_from_array(array: NDArray) -> SimpleITK.Image:
    """(I, J, K) array → SimpleITK image with unit spacing at the origin."""
    return simpleitk().GetImageFromArray(np.ascontiguousarray(storable(array).transpose(2, 1, 0)))


def array_from_image(image: SimpleITK.Image) -> NDArray:
    """3D SimpleITK image → (I, J, K) array (Fortran order: i runs fastest, as in files)."""
    return simpleitk().GetArrayFromImage(image).transpose(2, 1, 0)


def to_sitk(volume: Volume) -> SimpleITK.Image:
    """The volume as a SimpleITK image: RAS affine → LPS spacing, direction and origin."""
    image = image_from_array(volume.array)
    lps = LPS_RAS @ volume.affine[:3]
    spacing = volume.spacing
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:, 3].tolist())
    return image


def from_sitk(image: SimpleITK.Image, name: str = "volume", modality: Modality = "unknown") -> Volume:
    """A 3D scalar SimpleITK image as a volume: LPS → RAS."""
    return Volume(array_from_image(image), affine_of(image), modality, name)


def affine_of(image: SimpleITK.Image) -> NDArray[np.float64]:
    """4×4 voxel index → RAS mm of a 3D SimpleITK image."""
    affine = np.eye(4)
    direction = np.asarray(image.GetDirection()).reshape(3, 3)
    affine[:3, :3] = LPS_RAS @ direction @ np.diag(image.GetSpacing())
    affine[:3, 3] = LPS_RAS @ np.asarray(image.GetOrigin())
    return affine
