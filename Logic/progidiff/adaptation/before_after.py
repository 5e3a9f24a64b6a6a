"""Honest before and after: the whole path from prompt to consensus, on what did not teach."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from progidiff.adaptation.teaching import Part
from progidiff.atomic_files import write_json
from progidiff.prompts import Target, organ_table, parse_prompt
from progidiff.training.case_store import to_canonical_axes
from progidiff.volumes.volume import Volume

if TYPE_CHECKING:
    from progidiff.segmenter import Segmenter

OnShare = Callable[[float], None]
Mask = NDArray[np.bool_]
_MARGIN = 25  # pixels around the organ in a picture


@dataclass(frozen=True)
class Look:
    """One slice of one organ, for the pictures: rows to posterior, columns to the patient's left.

    Attributes:
        image: (H, W) uint8.
        truth, drawn: (H, W) bool.
    """

    organ: str
    case_id: str
    image: NDArray[np.uint8]
    truth: Mask
    drawn: Mask


@dataclass(frozen=True)
class Measured:
    """Dice by organ, each the mean over the cases that could judge it, and one look at each."""

    dice: dict[str, float]
    looks: list[Look]

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.dice.values()))) if self.dice else 0.0

    def save(self, path: Path) -> None:
        """Writes PATH.json and PATH.npz."""
        arrays = {
            f"{n}_{kind}": getattr(look, kind)
            for n, look in enumerate(self.looks)
            for kind in ("image", "truth", "drawn")
        }
        np.savez_compressed(path.with_suffix(".npz"), **arrays)  # type: ignore[arg-type]
        looks = [{"organ": look.organ, "case_id": look.case_id} for look in self.looks]
        write_json(path.with_suffix(".json"), {"dice": self.dice, "looks": looks})

    @classmethod
    def load(cls, path: Path) -> Measured:
        content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
            looks = [
                Look(**entry, **{kind: arrays[f"{n}_{kind}"] for kind in ("image", "truth", "drawn")})
                for n, entry in enumerate(content["looks"])
            ]
        return cls(content["dice"], looks)


def measure_cases(
    segmenter: Segmenter,
    parts: Sequence[Part],
    organs: Sequence[str],
    proposals: int,
    seed: int,
    on_share: OnShare,
    cancelled: Callable[[], bool],
) -> Measured:
    """Dice of the consensus with the checked masks, on the slices of each part alone.

    Args:
        segmenter: with or without an adapter.
        parts: what may judge.
        organs: ids of the organs to judge.
        proposals: drawn for each.
        seed: of the first.
        on_share: told how much of the work is done, 0…1.
        cancelled: asked between denoising steps.

    Raises:
        Cancelled: it said so.
    """
    wanted = [(part, organ) for part in parts for organ in part.slices if organ in organs]
    scores: dict[str, list[float]] = {}
    looks: dict[str, Look] = {}
    prepared, prepared_for = None, ""
    for number, (part, organ) in enumerate(wanted):
        if prepared_for != part.case.id:
            prepared, prepared_for = (
                segmenter.prepare(part.case.load_image(), part.case.modality),
                part.case.id,
            )
        assert prepared is not None

        def tick(done: int, total: int, before: int = number) -> None:
            on_share((before + done / total) / len(wanted))

        found = segmenter.propose(
            prepared, target_of(organ), proposals, seed=seed, on_step=tick, cancelled=cancelled
        )
        drawn = found.consensus.mask if found.consensus is not None else np.zeros(part.case.shape, bool)
        truth = part.case.load_mask(organ)
        scores.setdefault(organ, []).append(_dice_on(drawn, truth, part, organ))
        if organ not in looks:
            looks[organ] = _look(prepared.normalised, drawn, truth, part, organ)
    dice = {organ: float(np.mean(values)) for organ, values in scores.items()}
    return Measured(dice, list(looks.values()))


def measure_phantom(
    segmenter: Segmenter,
    image: Volume,
    label: Volume,
    seed: int,
    on_share: OnShare,
    cancelled: Callable[[], bool],
) -> Measured:
    """Dice of one proposal in one step for every organ that a phantom has: quick, and enough to compare."""
    organs = [organ for organ in organ_table().organs if (label.array == organ.label).any()]
    prepared = segmenter.prepare(image, image.modality)
    dice = {}
    for number, organ in enumerate(organs):
        found = segmenter.propose(prepared, target_of(organ.id), 1, steps=1, seed=seed, cancelled=cancelled)
        drawn = found.consensus.mask if found.consensus is not None else np.zeros(image.shape, bool)
        dice[organ.id] = _dice(drawn, label.array == organ.label)
        on_share((number + 1) / len(organs))
    return Measured(dice, [])


def target_of(organ: str) -> Target:
    """What the prompt "segment the ORGAN" asks for."""
    (target,) = parse_prompt(f"segment the {organ_table().by_id(organ).name}")
    return target


def _dice_on(drawn: Mask, truth: Mask, part: Part, organ: str) -> float:
    """Dice on the slices that judge."""
    flags = part.slices[organ]
    axis = part.case.slice_axis
    return _dice(np.compress(flags, drawn, axis), np.compress(flags, truth, axis))


def _dice(a: Mask, b: Mask) -> float:
    """2|A∩B| / (|A|+|B|); 1 when both are empty."""
    size = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / size if size else 1.0


def _look(normalised: Volume, drawn: Mask, truth: Mask, part: Part, organ: str) -> Look:
    """The judging slice that shows most of the organ, cut out around it."""
    axis = part.case.slice_axis
    areas = truth.sum(tuple(a for a in range(3) if a != axis)) * part.slices[organ]
    index: list[slice] = [slice(None)] * 3
    index[axis] = slice(int(areas.argmax()), int(areas.argmax()) + 1)
    image, seen, true = (
        to_canonical_axes(array[tuple(index)], normalised.affine)[0][0]
        for array in (normalised.array, drawn, truth)
    )
    rows, columns = np.flatnonzero(true.any(1)), np.flatnonzero(true.any(0))
    window = tuple(slice(max(0, int(w[0]) - _MARGIN), int(w[-1]) + _MARGIN) for w in (rows, columns))
    grey = np.round((image[window] + 1) * 127.5).astype(np.uint8)
    return Look(organ, part.case.id, grey, true[window], seen[window])


def draw_pictures(before: Measured, after: Measured, path: Path) -> None:
    """One row an organ: checked mask in white, what was drawn before and after in colour.

    Raises:
        OSError: the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = max(1, len(before.looks))
    figure = Figure(figsize=(6.4, 3.2 * rows), dpi=110)
    FigureCanvasAgg(figure)
    for row, (first, second) in enumerate(zip(before.looks, after.looks, strict=True)):
        for column, (look, measured, word) in enumerate(
            ((first, before, "before"), (second, after, "after"))
        ):
            axes = figure.add_subplot(rows, 2, 2 * row + column + 1)
            axes.imshow(look.image, cmap="gray", vmin=0, vmax=255)
            for mask, color in ((look.truth, "white"), (look.drawn, "#ffb000" if column == 0 else "#56beff")):
                if mask.any() and not mask.all():
                    axes.contour(mask, [0.5], colors=[color], linewidths=1.2)
            name = organ_table().by_id(look.organ).name
            axes.set_title(f"{name} {word}: Dice {measured.dice[look.organ]:.2f}", fontsize=9)
            axes.set_axis_off()
    figure.tight_layout()
    figure.savefig(path, format="png")


def score_table(before: Measured, after: Measured) -> dict[str, dict[str, float]]:
    """{organ: {"before": …, "after": …}} with four decimals."""
    return {
        organ: {"before": round(before.dice[organ], 4), "after": round(after.dice[organ], 4)}
        for organ in before.dice
        if organ in after.dice
    }
