"""Medical volumes: reading, writing, checking, grids and intensities.

Every array is (I, J, K) with a 4×4 affine to RAS millimetres; see `volume.Volume`.
"""

from progidiff.volumes.check import check_volume
from progidiff.volumes.conversion import from_sitk, to_sitk
from progidiff.volumes.intensity import decide_modality, normalise
from progidiff.volumes.read import read_label, read_volume
from progidiff.volumes.resample import covering_axial_grid, crop_grid, resample
from progidiff.volumes.volume import Grid, Modality, Volume, axial_grid
from progidiff.volumes.write import write_volume

__all__ = [
    "Grid",
    "Modality",
    "Volume",
    "axial_grid",
    "check_volume",
    "covering_axial_grid",
    "crop_grid",
    "decide_modality",
    "from_sitk",
    "normalise",
    "read_label",
    "read_volume",
    "resample",
    "to_sitk",
    "write_volume",
]
