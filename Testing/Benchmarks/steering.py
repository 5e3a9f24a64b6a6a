"""How far varied proposals are from their parent, and how well constrained ones mend a spoilt mask.

    python Testing/Benchmarks/steering.py [--model M] [--organ liver] [--image F --label F] [--json FILE]

Without an image a phantom is used. Two tables:

- vary: mean Dice with the parent (the best proposal) and with each other, by strength; it should fall.
- constrain: a parent that lost its upper half. The lower half is fixed, one point of the lost half is marked;
  Dice with the reference inside the lost half, with and without the point.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from progidiff.prompts import organ_table, parse_prompt
from progidiff.proposals import ProposalSet, dice
from progidiff.segmenter import PreparedVolume, Segmenter
from progidiff.steering import Promises, SteerOptions, Voxels, proposal_from_mask
from progidiff.steering.voxels import long_axis
from progidiff.volumes import read_label, read_volume
from progidiff.volumes.volume import Volume

STRENGTHS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def main() -> int:
    options = read_options()
    image, label = read_case(options)
    segmenter = Segmenter.load(options.model, options.device)
    prepared = segmenter.prepare(image)
    target = parse_prompt(options.organ)[0]
    parent = segmenter.propose(prepared, target, proposals=1).proposals
    rows = measure_variation(segmenter, prepared, parent[0], options.proposals) if parent else []
    reference = label.array == organ_table().by_id(target.organ).label
    mending = measure_mending(segmenter, prepared, target, reference, options.proposals)
    print_tables(rows, mending)
    if options.json:
        options.json.write_text(json.dumps({"vary": rows, "constrain": mending}, indent=2) + "\n")
    return 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--organ", default="liver")
    parser.add_argument("--proposals", type=int, default=5)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--label", type=Path, help="with the organ table's numbers")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def read_case(options: argparse.Namespace) -> tuple[Volume, Volume]:
    if options.image is not None and options.label is not None:
        return read_volume(options.image), read_label(options.label)
    from progidiff.training.phantom import make_phantom

    return make_phantom(7)


def measure_variation(
    segmenter: Segmenter, prepared: PreparedVolume, parent: Any, count: int
) -> list[dict[str, float]]:
    rows = []
    for strength in STRENGTHS:
        start = time.perf_counter()
        found = segmenter.vary(prepared, parent, strength, options=SteerOptions(count))
        with_parent = [dice(proposal, parent) for proposal in found.proposals]
        rows.append(
            {
                "strength": strength,
                "dice_with_parent": float(np.mean(with_parent)),
                "dice_with_each_other": mean_pairwise(found),
                "seconds": time.perf_counter() - start,
            }
        )
    return rows


def mean_pairwise(found: ProposalSet) -> float:
    matrix = found.pairwise_dice
    if matrix is None or len(matrix) < 2:
        return 1.0
    return float(matrix[np.triu_indices(len(matrix), 1)].mean())


def measure_mending(
    segmenter: Segmenter, prepared: PreparedVolume, target: Any, reference: NDArray[np.bool_], count: int
) -> dict[str, float]:
    """Dice with the reference in its lost upper half, which the parent does not have."""
    grid = prepared.volume.grid
    axis = long_axis(grid)
    middle = int(np.median(np.argwhere(reference)[:, axis]))
    upper = np.zeros(grid.shape, bool)
    upper[tuple(slice(middle, None) if a == axis else slice(None) for a in range(3))] = True
    if grid.affine[2, axis] < 0:
        upper = ~upper
    lost = np.argwhere(reference & upper)
    point = np.zeros(grid.shape, bool)
    point[tuple(lost[np.argmin(np.linalg.norm(lost - lost.mean(0), axis=1))])] = True
    parent = proposal_from_mask(reference & ~upper, target, grid, "spoilt")
    results = {}
    for name, inside in (("without a point", np.zeros_like(point)), ("with one point", point)):
        promises = Promises(Voxels.of_mask(inside), fixed=Voxels.of_mask(~upper), parent=parent)
        found = segmenter.constrain(prepared, target, promises, options=SteerOptions(count))
        inside_upper = [overlap(p.mask[upper], reference[upper]) for p in found.proposals]
        results[name] = float(np.mean(inside_upper))
    return results


def overlap(mask: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    return float(2 * (mask & reference).sum() / max(1, mask.sum() + reference.sum()))


def print_tables(rows: list[dict[str, float]], mending: dict[str, float]) -> None:
    print("| strength | Dice with parent | Dice with each other | seconds |\n| --- | --- | --- | --- |")
    for row in rows:
        print(
            f"| {row['strength']:.1f} | {row['dice_with_parent']:.3f} | "
            f"{row['dice_with_each_other']:.3f} | {row['seconds']:.1f} |"
        )
    print("\n| lost half, Dice with the reference | |\n| --- | --- |")
    for name, value in mending.items():
        print(f"| {name} | {value:.3f} |")


if __name__ == "__main__":
    sys.exit(main())
