"""Whole volumes through the U-Net baseline: label maps on the volume's own grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from progidiff.errors import OutputError
from progidiff.pipelines.locate import slice_distance
from progidiff.proposals.cleaning import keep_largest_components
from progidiff.proposals.regions import bounding_region, is_nowhere
from progidiff.segmenter import native_region, superior_spacing
from progidiff.training.unet_baseline import OrganUNet
from progidiff.volumes import (
    Grid,
    Volume,
    axial_grid,
    check_volume,
    covering_axial_grid,
    crop_grid,
    normalise,
    resample,
    write_volume,
)

_SLICES_AT_ONCE = 8
_LEAST_PROBABILITY = 0.01  # below, an organ is taken to be absent


def predict_label_map(network: OrganUNet, volume: Volume, modality: str = "auto") -> Volume:
    """The most probable organ of every voxel.

    The slices are those that the diffusion model would look at; between them and the volume's own grid
    probabilities are interpolated, not labels, and specks are removed as from the model's proposals.

    Args:
        network: a trained baseline.
        volume: any orientation and spacing.
        modality: "auto", "CT" or "MR".

    Returns:
        uint8 with the organ table's numbers, exactly on the grid of `volume`.

    Raises:
        VolumeError: the volume cannot be used.
    """
    check_volume(volume)
    grid = slices_grid(network, volume.grid)
    image = resample(normalise(volume, modality), grid, fill=-1.0).array
    probability = organ_probabilities(network, image)
    label = _most_probable(probability, grid, volume.grid)
    for number in np.unique(label[label > 0]):
        mask = label == number
        label[mask & ~keep_largest_components(mask)] = 0
    return Volume(label, volume.affine, name=volume.name)


def write_prediction(network: OrganUNet, volume: Volume, case_id: str, folder: Path) -> Path:
    """Write `folder/CASE.nii.gz`, as `progidiff evaluate --predictions` reads it.

    Raises:
        VolumeError: the volume cannot be used.
        OutputError: the folder cannot be written.
    """
    path = folder / f"{case_id}.nii.gz"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)  # the id of a case may hold folders
    except OSError as error:
        raise OutputError(
            f"{path.parent} cannot be made ({error.strerror or error}).", "Choose another folder."
        ) from error
    return write_volume(predict_label_map(network, volume), path)


def slices_grid(network: OrganUNet, native: Grid) -> Grid:
    """Canonical slices over the field of view, as large as the training window or larger.

    The rim shows air, as it does around the images in training.
    """
    pixel, stride = float(network.config.pixel_mm), network.stride
    covering = covering_axial_grid(native, (pixel, pixel, slice_distance(superior_spacing(native))))
    width, height = (max(int(network.config.window), -(-n // stride) * stride) for n in covering.shape[:2])
    center = covering.affine[:3, :3] @ ((np.asarray(covering.shape) - 1) / 2) + covering.affine[:3, 3]
    sx, sy, sz = (float(s) for s in covering.spacing)
    return axial_grid((width, height, covering.shape[2]), (sx, sy, sz), center)


@torch.inference_mode()
def organ_probabilities(network: OrganUNet, image: NDArray[np.float32]) -> NDArray[np.float16]:
    """Probabilities of background and organs, (1 + organs, I, J, K), for slices (I, J, K) in [−1, 1]."""
    stack = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 1, 0)))
    slices = int(network.config.slices)
    offsets = torch.arange(slices) - slices // 2
    parts = []
    for numbers in torch.arange(len(stack)).split(_SLICES_AT_ONCE):
        neighbours = (numbers[:, None] + offsets).clamp(0, len(stack) - 1)
        logits = network(stack[neighbours].to(network.device)).float()
        parts.append(logits.softmax(1).half().cpu())
    return torch.cat(parts).numpy().transpose(1, 3, 2, 0)


def _most_probable(probability: NDArray[np.float16], grid: Grid, native: Grid) -> NDArray[np.uint8]:
    """Organ numbers on the native grid; an organ must be more probable there than the background."""
    label = np.zeros(native.shape, np.uint8)
    best, any_organ = (np.zeros(native.shape, np.float32) for _ in range(2))
    for number in range(1, len(probability)):
        box = bounding_region(probability[number] > _LEAST_PROBABILITY)
        if is_nowhere(box):
            continue
        region = native_region(crop_grid(grid, box), native)
        organ = Volume(probability[number].astype(np.float32), grid.affine)
        here = resample(organ, crop_grid(native, region), fill=0.0, antialias=False).array
        any_organ[region] += here
        ahead = here > best[region]
        best[region][ahead] = here[ahead]
        label[region][ahead] = number
    label[best <= 1 - any_organ] = 0
    return label
