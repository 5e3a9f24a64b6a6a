"""How much an image encoder has learnt, before anything is built on it: minutes instead of an evaluation.

    python Testing/Benchmarks/encoder_windows.py DATA --encoders NAME=RUN/encoder/parts/image_encoder \\
        --cases IDS

Every organ is looked at in the window around its true box, in every third slice, and what the organ head
names is compared with the label there. Neither the locator nor the diffusion counts, and the Dice is not that
of a mask on the scan's own grid: it serves to compare encoders with each other. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from progidiff.cli.ids import listed
from progidiff.evaluation.cohorts import SYNAPSE_ORGANS
from progidiff.pipelines.locate import box_of, crop_around, slice_distance
from progidiff.pipelines.precision import autocast
from progidiff.pipelines.progidiff.image_encoder import ImageEncoder
from progidiff.prompts import Organ, organ_table
from progidiff.training.cases import measurable_cases
from progidiff.volumes import Volume, normalise, resample
from progidiff.volumes.resample import covering_axial_grid
from torch.nn import functional as F

_EVERY = 3
_LEAST_VOXELS = 20
_BATCH = 16


@torch.inference_mode()
def organ_dice(encoder: ImageEncoder, image: Volume, label: Volume, organ: Organ) -> float:
    """Dice of one organ in its true window; NaN where it has hardly a voxel.

    Args:
        image: normalised.
        label: organ numbers on a canonical axial grid, in the distance of the model's slices.
    """
    where = np.argwhere(label.array == organ.label)
    if len(where) < _LEAST_VOXELS:
        return float("nan")
    box = box_of(where, label.grid, organ)
    window = crop_around(box, encoder.config.crop, float(label.spacing[2]), label.grid)
    truth = resample(label, window, order=0).array.transpose(2, 1, 0)[::_EVERY] == organ.label
    seen = resample(image, window, fill=-1.0).array
    mask = named_organs(encoder, seen, float(window.spacing[0])) == organ.label
    return float(2 * (mask & truth).sum() / max(1, mask.sum() + truth.sum()))


def named_organs(encoder: ImageEncoder, window: NDArray[np.floating], pixel_mm: float) -> NDArray[np.int64]:
    """Organ numbers (S / 3, H, W) in every third slice of a window (W, H, S)."""
    stack = torch.from_numpy(np.ascontiguousarray(window.transpose(2, 1, 0))).float()
    count = encoder.config.slices
    padded = F.pad(stack[None, None], (0, 0, 0, 0, count // 2, count // 2), mode="replicate")[0, 0]
    slices = padded.unfold(0, count, 1).movedim(-1, 1)[::_EVERY]
    with autocast(slices.device):
        parts = [encoder(s, torch.full((len(s),), pixel_mm)).organs.argmax(1) for s in slices.split(_BATCH)]
    return torch.cat(parts).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--encoders", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--cases", required=True, help="case ids joined by commas, or a file")
    options = parser.parse_args()
    cases = measurable_cases([options.data], listed(options.cases))
    names = dict(entry.partition("=")[::2] for entry in options.encoders)
    encoders = {name: ImageEncoder.from_pretrained(folder).eval() for name, folder in names.items()}
    organs = organ_table().organs
    dice = {name: np.full((len(cases), len(organs)), np.nan) for name in encoders}
    for row, case in enumerate(cases):
        image, label = case.load()
        distance = slice_distance(float(image.spacing[image.grid.superior_axis]))
        label = resample(label, covering_axial_grid(image.grid, (1.0, 1.0, distance)), order=0)
        image = normalise(image)
        for column, organ in enumerate(organs):
            for name, encoder in encoders.items():
                dice[name][row, column] = organ_dice(encoder, image, label, organ)
        print(case.id, flush=True)
    print(table(dice))


def table(dice: dict[str, NDArray[np.float64]]) -> str:
    """A Markdown table of means over cases, an array (cases, organs) for each encoder."""
    organs = organ_table().organs
    eight = [index for index, organ in enumerate(organs) if organ.id in SYNAPSE_ORGANS]
    lines = [f"| Dice in true windows | {' | '.join(dice)} |", "| --- |" + " --- |" * len(dice)]
    groups = [(organ.name, [index]) for index, organ in enumerate(organs)]
    for name, columns in [
        *groups,
        ("**eight Synapse organs**", eight),
        ("**all 13**", list(range(len(organs)))),
    ]:
        means = [_mean(values[:, columns]) for values in dice.values()]
        lines.append(f"| {name} | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")
    return "\n".join(lines)


def _mean(dice: NDArray[np.float64]) -> float:
    """Over organs, then over the cases that have one of them."""
    present = dice[~np.isnan(dice).all(1)]
    return float(np.nanmean(present, 1).mean())


if __name__ == "__main__":
    main()
