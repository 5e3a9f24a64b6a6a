"""Is every organ found that is there, and is none found that is not in the field of view?

    python Testing/Benchmarks/presence.py DATA --model NAME --cases IDS [--json FILE]

Every labelled organ is looked for three times: in the whole scan; in the part of the scan, from one end of
it, that ends in the middle of the organ; and in a part that ends 30 mm before the organ, if there is one of
at least 60 mm. Of the two ends of the scan the one farther away is taken. Prints a Markdown table; for
organs in the whole scan also how well the box of the coarse pass fits the true one.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from progidiff.cli.ids import listed
from progidiff.pipelines.locate import OrganBox, canonical_mm, locate
from progidiff.prompts import Organ, organ_table
from progidiff.segmenter import PreparedVolume, Segmenter
from progidiff.training.cases import measurable_cases
from progidiff.volumes import Volume
from progidiff.volumes.resample import crop_grid

_APART_MM = 30.0
_HIGH_MM = 60.0
_LEAST_VOXELS = 20


@dataclass(frozen=True)
class Look:
    """One organ looked for in one field of view.

    Attributes:
        case, organ: ids.
        view: "whole", "half" or "none" of the organ is in the field of view.
        found: whether the coarse pass says that it is there.
        overlap: intersection over union of its box and the true one; NaN unless whole and found.
        size: volume of its box over that of the true one; NaN likewise.
    """

    case: str
    organ: str
    view: str
    found: bool
    overlap: float = float("nan")
    size: float = float("nan")


def looks(segmenter: Segmenter, case: str, image: Volume, label: Volume) -> list[Look]:
    """All organs of one case in all views."""
    made = []
    whole = segmenter.prepare(image)
    for organ in organ_table().organs:
        where = np.argwhere(label.array == organ.label)
        if len(where) < _LEAST_VOXELS:
            continue
        made.append(_look(case, organ, _found(whole, organ), true_box(where, label)))
        for view, part in (("half", half(image, where)), ("none", none(image, where))):
            if part is not None:
                made.append(Look(case, organ.id, view, _found(segmenter.prepare(part), organ) is not None))
    return made


def _found(prepared: PreparedVolume, organ: Organ) -> OrganBox | None:
    return locate(prepared.coarse[organ.label], prepared.coarse_grid, organ)


def _look(case: str, organ: Organ, box: OrganBox | None, true: OrganBox) -> Look:
    if box is None:
        return Look(case, organ.id, "whole", False)
    common = np.clip(np.minimum(true.high, box.high) - np.maximum(true.low, box.low), 0, None).prod()
    size, found = true.extent.prod(), box.extent.prod()
    return Look(case, organ.id, "whole", True, float(common / (size + found - common)), float(found / size))


def true_box(where: NDArray[np.integer], volume: Volume) -> OrganBox:
    """The box around voxels (N, 3) of a volume, in canonical mm."""
    corners = canonical_mm(where @ volume.affine[:3, :3].T + volume.affine[:3, 3])
    return OrganBox(corners.min(0), corners.max(0))


def half(image: Volume, where: NDArray[np.integer]) -> Volume:
    """The scan up to the middle slice of the voxels (N, 3)."""
    return _part(image, where, float(np.median(where[:, image.grid.superior_axis])), 0.0)


def none(image: Volume, where: NDArray[np.integer]) -> Volume | None:
    """The scan up to some way before the voxels (N, 3); None if little is left of it."""
    axis = image.grid.superior_axis
    low, high = int(where[:, axis].min()), int(where[:, axis].max())
    part = _part(image, where, low if _is_below(image, where) else high, _APART_MM)
    return part if part.shape[axis] * image.spacing[axis] >= _HIGH_MM else None


def _is_below(image: Volume, where: NDArray[np.integer]) -> bool:
    """Whether more of the scan has smaller indices than the voxels have, than has larger ones."""
    axis = image.grid.superior_axis
    return bool(where[:, axis].min() >= image.shape[axis] - 1 - where[:, axis].max())


def _part(image: Volume, where: NDArray[np.integer], end: float, gap_mm: float) -> Volume:
    """The slices from the farther end of the scan to a gap before the slice `end`."""
    axis = image.grid.superior_axis
    gap = int(np.ceil(gap_mm / image.spacing[axis]))
    region = [slice(0, n) for n in image.shape]
    if _is_below(image, where):
        region[axis] = slice(0, max(1, int(end) - gap))
    else:
        region[axis] = slice(min(int(end) + 1 + gap, image.shape[axis] - 1), image.shape[axis])
    grid = crop_grid(image, region)
    return Volume(np.ascontiguousarray(image.array[tuple(region)]), grid.affine, image.modality, image.name)


def table(all_looks: list[Look]) -> str:
    """A Markdown table, one line an organ and one for all."""
    lines = [
        "| organ | found, whole in view | found, half | found, none | overlap of boxes | size of box |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    groups: dict[str, list[Look]] = defaultdict(list)
    for look in all_looks:
        groups[organ_table().by_id(look.organ).name].append(look)
    for name, group in [*groups.items(), ("**all**", all_looks)]:
        views = [[x for x in group if x.view == view] for view in ("whole", "half", "none")]
        counts = [f"{sum(x.found for x in view)} of {len(view)}" for view in views]
        found = [x for x in views[0] if x.found]
        overlap = f"{np.mean([x.overlap for x in found]):.2f}" if found else "–"
        size = f"{np.median([x.size for x in found]):.2f}" if found else "–"
        lines.append(f"| {name} | {' | '.join(counts)} | {overlap} | {size} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--cases", required=True, help="case ids joined by commas, or a file")
    parser.add_argument("--json", type=Path, help="keeps every single look")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    cases = measurable_cases([options.data], listed(options.cases))
    segmenter = Segmenter.load(options.model, options.device)
    made: list[Look] = []
    for case in cases:
        made += looks(segmenter, case.id, *case.load())
        print(case.id, flush=True)
    print(table(made))
    if options.json:
        options.json.write_text(json.dumps([vars(look) for look in made]))


if __name__ == "__main__":
    main()
