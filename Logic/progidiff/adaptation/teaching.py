"""From the case library to what is trained on: which slices teach, and which are held back to judge."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from progidiff.adaptation.case_library import StoredCase
from progidiff.adaptation.slices import runs
from progidiff.errors import CasesError
from progidiff.prompts import organ_table
from progidiff.training.case_store import PackedCase, pack_case, to_canonical_axes
from progidiff.volumes import Volume, normalise

Flags = NDArray[np.bool_]
_LEAST_SLICES = 8  # an organ seen on fewer checked slices gives none away for judging
_GAP = 1  # slices beside the held-out ones that neither teach nor judge
_LEAST_MM = 15.0  # thinner pieces of a volume do not teach the locator


@dataclass(frozen=True)
class Part:
    """Some slices of a case.

    Attributes:
        case: the stored case.
        slices: organ id → (slices,) which of its checked slices belong to this part.
    """

    case: StoredCase
    slices: dict[str, Flags]


@dataclass(frozen=True)
class Split:
    """What teaches and what judges.

    Attributes:
        train, held_out: disjoint; `held_out` may be empty, when there is too little to hold anything back.
        how: one sentence for the adapter's card.
    """

    train: list[Part]
    held_out: list[Part]
    how: str

    @property
    def judged(self) -> list[str]:
        """Organs that can be judged: taught in one part and held out in another."""
        taught = {organ for part in self.train for organ in part.slices}
        return sorted({organ for part in self.held_out for organ in part.slices if organ in taught})


def whole(case: StoredCase) -> Part:
    """Everything that was checked in a case."""
    return Part(case, {organ: case.checked_slices(organ) for organ in case.organs})


def split(cases: Sequence[StoredCase]) -> Split:
    """Hold one case back, or a block of slices of each where no case can speak for the others.

    With two or more cases the held-out one is that which shows most of the organs the others show too;
    among equals the middle one by id, which no one has chosen. A case that could judge less than half of
    all organs judges none of them: then a quarter of each organ's slices is held back instead.
    Of cases that show the same image one takes part, or the patient that judges might have taught.
    """
    given = len(cases)
    cases = sorted(_one_of_each_image(cases), key=lambda case: case.id)
    repeated = " Of cases that show the same image only one took part in this." if len(cases) < given else ""
    everything = {organ for case in cases for organ in case.organs}
    if len(cases) > 1:
        counts = [len(_shared(case, cases)) for case in cases]
        best = [case for case, count in zip(cases, counts, strict=True) if count == max(counts)]
        held = best[len(best) // 2]
        if 2 * max(counts) >= len(everything):
            rest = [whole(case) for case in cases if case is not held]
            shared = _shared(held, cases)
            judge = Part(held, {organ: held.checked_slices(organ) for organ in shared})
            how = f"{held.id} was held out; the other {len(rest)} taught."
            return Split(rest, [judge], how + repeated)
    train, judges = zip(*(_split_slices(case) for case in cases), strict=True)
    held_out = [part for part in judges if part.slices]
    how = (
        "Of each organ a block of a quarter of its checked slices was held out, with a gap of one slice to "
        "those that taught. They show the patients that also taught, so that a new patient may do worse."
        if held_out
        else "There were too few checked slices to hold any out."
    )
    return Split(list(train), held_out, how + repeated)


def _one_of_each_image(cases: Sequence[StoredCase]) -> list[StoredCase]:
    """The cases without those that repeat another one's image; the one with the most organs stays."""
    sizes = Counter(_size(case) for case in cases)
    kept: dict[str, StoredCase] = {}
    for case in sorted(cases, key=lambda case: (-len(case.organs), case.id)):
        kept.setdefault(_content(case) if sizes[_size(case)] > 1 else case.id, case)
    return list(kept.values())


def _size(case: StoredCase) -> tuple[int, ...]:
    return tuple(sorted(case.shape))


def _content(case: StoredCase) -> str:
    """Hash of the image's voxels, in whatever order they are stored and wherever they lie."""
    image = case.load_image()
    voxels, _ = to_canonical_axes(image.array.astype("<f4"), image.affine)
    return hashlib.sha256(str(voxels.shape).encode() + voxels.tobytes()).hexdigest()


def _shared(case: StoredCase, cases: Sequence[StoredCase]) -> list[str]:
    others = {organ for other in cases if other is not case for organ in other.organs}
    return [organ for organ in case.organs if organ in others]


def _split_slices(case: StoredCase) -> tuple[Part, Part]:
    """The third quarter of each organ's extent judges, the rest teaches."""
    train, judge = {}, {}
    for organ in case.organs:
        checked = case.checked_slices(organ)
        axes = tuple(a for a in range(3) if a != case.slice_axis)
        numbers = np.flatnonzero(checked & case.load_mask(organ).any(axes))
        train[organ] = checked
        if len(numbers) >= _LEAST_SLICES:
            first, end = numbers[len(numbers) // 2], numbers[3 * len(numbers) // 4]
            block, near = np.zeros_like(checked), np.zeros_like(checked)
            block[first:end] = True
            near[max(0, first - _GAP) : end + _GAP] = True
            judge[organ], train[organ] = checked & block, checked & ~near
    return Part(case, train), Part(case, judge)


@dataclass
class Packed:
    """Stored cases in memory, ready for training; each is read once."""

    _whole: dict[str, tuple[PackedCase, Volume]] = field(default_factory=dict)

    def pack(self, part: Part) -> PackedCase:
        """A part as the training takes it: the whole image, and which slices are truth.

        Raises:
            CasesError: none of the part's slices shows its organ.
        """
        packed, label = self._read(part.case)
        checked, organs = {}, []
        for organ, flags in part.slices.items():
            number = organ_table().by_id(organ).label
            checked[number] = _canonical_slices(flags, part.case, label)
            occupied = (packed.label == number).any((1, 2))
            if (checked[number] & occupied).any():
                organs.append(number)
        if not organs:
            raise CasesError(
                f"{part.case.id} shows no checked organ on the slices that were to be used.",
                "Check more slices of it, or remove it.",
            )
        return replace(packed, organs=tuple(sorted(organs)), checked=checked)

    def _read(self, case: StoredCase) -> tuple[PackedCase, Volume]:
        if case.id not in self._whole:
            image = case.load_image()
            label = Volume(_label_map(case), image.affine, case.modality, case.id)
            numbers = tuple(sorted(organ_table().by_id(organ).label for organ in case.organs))
            grey = normalise(image, case.modality).array
            grid_only = replace(label, array=np.broadcast_to(np.uint8(0), label.shape))
            self._whole[case.id] = pack_case(case.id, grey, label, numbers, case.modality), grid_only
        return self._whole[case.id]


def _label_map(case: StoredCase) -> NDArray[np.uint8]:
    """All masks of a case in one map; where two overlap, the smaller organ keeps the voxel.

    But what nobody checked takes no voxel from what was checked.
    """
    masks = {organ: case.load_mask(organ) for organ in case.organs}
    largest_first = sorted(masks, key=lambda organ: -int(masks[organ].sum()))
    label = np.zeros(case.shape, np.uint8)
    by_slice = np.moveaxis(label, case.slice_axis, 0)
    for checked in (False, True):
        for organ in largest_first:
            here = case.checked_slices(organ) == checked
            mask = np.moveaxis(masks[organ], case.slice_axis, 0) & here[:, None, None]
            by_slice[mask] = organ_table().by_id(organ).label
    return label


def _canonical_slices(flags: Flags, case: StoredCase, label: Volume) -> Flags:
    """Flags along the image's slice axis → flags along the packed case's first axis."""
    shape = [1, 1, 1]
    shape[case.slice_axis] = -1
    return to_canonical_axes(flags.reshape(shape), label.affine)[0].ravel()


def coarse_pieces(case: PackedCase) -> list[PackedCase]:
    """What of a case may teach the locator, which sees volumes: the slabs in which organs were checked.

    Each run of checked slices is a slab; in it those organs are known that were checked on all of it.
    """
    if case.checked is None:
        return [case]
    slabs: set[tuple[int, int]] = set()
    for organ in case.organs:
        slabs |= set(runs(case.checked[organ]))
    return [
        _slab(case, first, end)
        for first, end in sorted(slabs)
        if (end - first) * case.spacing[0] >= _LEAST_MM
    ]


def _slab(case: PackedCase, first: int, end: int) -> PackedCase:
    assert case.image is not None and case.checked is not None
    organs = tuple(o for o in case.organs if case.checked[o][first:end].all())
    label = case.label[first:end]
    label = np.where(np.isin(label, organs), label, 0).astype(np.uint8)
    return replace(case, image=case.image[first:end], label=label, organs=organs, checked=None)
