"""Data sets → packed training cases: reading and packing again is only for what has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from progidiff.errors import CasesError, UsageError, VolumeError
from progidiff.prompts import organ_table
from progidiff.training.case import Case, file_name
from progidiff.training.case_store import PackedCase, pack_case
from progidiff.training.cases import find_cases, labelled_cases
from progidiff.training.configuration import Phantoms
from progidiff.training.pack_cache import cached_case, read_case
from progidiff.training.phantom import make_phantom, paint_label_map
from progidiff.volumes import Volume, normalise, resample
from progidiff.volumes.volume import Grid

OnCase = Callable[[str, int, int], None]
"""Called with (case id, cases done, cases in all) before each case."""

_VERSION = 2  # of the packing; a new one packs again all cases that `--data` names
_PAINTED_MM = 2.0  # label maps are painted at this distance of pixels; time grows with the voxels


def select_cases(
    folders: Sequence[Path], exclude: Collection[str] = (), fold: tuple[int, int] | None = None
) -> tuple[list[Case], list[str]]:
    """The labelled cases of some data sets, without those that are kept aside.

    Args:
        folders: data sets in any layout of `cases.find_cases`.
        exclude: ids of cases to leave out.
        fold: (i, n), 1 ≤ i ≤ n: leaves out every n-th case with an image, beginning with the i-th by id.

    Returns:
        The cases, named as by `labelled_cases`, and the ids of those kept aside.

    Raises:
        CasesError: a folder has no case, none remains, or an id to exclude does not occur.
        UsageError: no such fold.
    """
    cases = labelled_cases(folders)
    aside = {file_name(case_id) for case_id in exclude}
    if unknown := sorted(aside - {case.id for case in cases}):
        raise CasesError(f"There is no case “{unknown[0]}” to exclude.", "Check the ids of the data set.")
    aside.update(_held_out(cases, fold))
    kept = [case for case in cases if case.id not in aside]
    if not kept:
        raise CasesError("No labelled case is left to train on.", "Give other --data, or exclude fewer.")
    return kept, sorted(aside)


def without_labels(folders: Sequence[Path]) -> list[str]:
    """Ids of the cases that cannot be learnt from, because no organ of theirs is labelled by name."""
    return sorted(case.id for folder in folders for case in find_cases(folder) if not case.has_label)


def unclear_findings(folders: Sequence[Path]) -> list[str]:
    """Names of labelled findings that cannot be learnt: their organ is not certain, or not labelled."""
    return sorted({name for folder in folders for case in find_cases(folder) for name in case.unclear})


def _held_out(cases: Sequence[Case], fold: tuple[int, int] | None) -> list[str]:
    """Ids of the cases that a fold keeps aside for measuring."""
    if fold is None:
        return []
    index, count = fold
    if not 1 <= index <= count or count < 2:
        raise UsageError(f"There is no fold {index}/{count}.", "Give --fold 1/3, 2/3 or 3/3, for instance.")
    return [case.id for case in cases if case.has_image][index - 1 :: count]


def pack_cases(cases: Sequence[Case], cache: Path, on_case: OnCase | None = None) -> list[PackedCase]:
    """Pack cases, or take them from the cache where their files have not changed.

    Args:
        cases: with labels; those without image become the domain "labels".
        cache: folder of the packed files.
        on_case: for progress.

    Raises:
        CasesError: cases cannot be used; the message names them all, and the others are packed by then.
        OutputError: the cache cannot be written.
    """
    packed, unusable = [], {}
    for number, case in enumerate(cases):
        if on_case is not None:
            on_case(case.id, number, len(cases))
        try:
            packed.append(cached_case(cache, case.id, _fingerprint(case), lambda case=case: _pack(case)))  # type: ignore[misc]
        except (CasesError, VolumeError) as error:
            unusable[case.id] = error.message.rstrip(".")
    if unusable:
        reasons = "; ".join(f"{case_id} ({reason})" for case_id, reason in unusable.items())
        raise CasesError(
            f"There are cases that cannot be used: {reasons}.",
            f"Repair them, or give --exclude {','.join(unusable)} to leave them out.",
        )
    return packed


def pack_phantoms(settings: Phantoms, cache: Path, on_case: OnCase | None = None) -> list[PackedCase]:
    """Invent patients; the same seeds give the same ones, so they too are made once."""
    every_organ = tuple(organ.label for organ in organ_table().organs)
    i, j, k = settings.shape
    si, sj, sk = settings.spacing

    def invent(seed: int) -> PackedCase:
        image, label = make_phantom(seed, "CT" if seed % 3 else "MR", (i, j, k), (si, sj, sk))
        return pack_case(f"phantom_{seed}", normalise(image).array, label, every_organ, "phantom")

    packed = []
    for number in range(settings.count):
        seed = settings.first_seed + number
        if on_case is not None:
            on_case(f"phantom_{seed}", number, settings.count)
        mark = _digest("phantom", settings.shape, settings.spacing, seed)
        packed.append(cached_case(cache, f"phantom_{seed}", mark, lambda seed=seed: invent(seed)))  # type: ignore[misc]
    return packed


def pack_paintings(
    cases: Sequence[Case], settings: Phantoms, cache: Path, on_case: OnCase | None = None
) -> list[PackedCase]:
    """Paint images for label maps that have none, `settings.paintings` for each."""
    jobs = [(case, n) for case in cases if not case.has_image for n in range(settings.paintings)]
    packed = []
    for number, (case, n) in enumerate(jobs):
        name = f"{case.id}_painted_{n}"
        if on_case is not None:
            on_case(name, number, len(jobs))
        mark = _digest("painted", _fingerprint(case), n)
        packed.append(cached_case(cache, name, mark, lambda c=case, n=n, name=name: _paint(c, n, name)))  # type: ignore[misc]
    return packed


def load_cases(cache: Path, ids: Collection[str], marks: Mapping[str, str] | None = None) -> list[PackedCase]:
    """Packed cases by id, for a run that is continued without its data folders.

    Args:
        cache: folder of the packed files, which other runs may have used since.
        ids: which.
        marks: what each was made from, where that is known.

    Raises:
        CasesError: one is not in the cache any more, or another data set's case has taken its place.
    """
    packed = []
    for case_id in ids:
        case = read_case(cache, file_name(case_id), (marks or {}).get(case_id))
        if case is None:
            raise CasesError(f"The case “{case_id}” is not in {cache} any more.", "Give --data again.")
        packed.append(case)
    return packed


def _pack(case: Case) -> PackedCase:
    organs = tuple(sorted(organ_table().by_id(organ).label for organ in case.organs))
    name = file_name(case.id)
    if not case.has_image:
        return pack_case(name, None, case.load_label(), organs, "labels")
    image, label = case.load(findings=True)
    normalised = normalise(image)
    findings = tuple(sorted(organ_table().by_id(finding).label for finding in case.findings))
    return pack_case(name, normalised.array, label, organs, normalised.modality, findings)


def _paint(case: Case, number: int, name: str) -> PackedCase:
    label = _coarser(case.load_label())
    modality = "MR" if number % 3 == 2 else "CT"
    image = paint_label_map(label, number, modality, case.organs)  # type: ignore[arg-type]
    organs = tuple(sorted(organ_table().by_id(organ).label for organ in case.organs))
    return pack_case(file_name(name), normalise(image).array, label, organs, "phantom")


def _coarser(label: Volume) -> Volume:
    """Every n-th voxel of a finely sampled label map, so that its pixels are about `_PAINTED_MM`."""
    steps = np.maximum(1, (_PAINTED_MM / label.spacing).astype(int))
    affine = label.affine.copy()
    affine[:3, :3] *= steps
    shape = tuple(int(n) for n in -(-np.asarray(label.shape) // steps))
    return resample(label, Grid(shape, affine), order=0, fill=0)  # type: ignore[arg-type]


def _fingerprint(case: Case) -> str:
    """What a packed case depends on: its files with size and time of change, and the label names."""
    labels = case.label_path if isinstance(case.label_path, dict) else {"": case.label_path}
    files = {"image": case.image_path, **labels}
    marks = []
    for name, path in sorted(files.items()):
        if path is not None:
            state = path.stat()
            marks.append((name, path.name, state.st_size, state.st_mtime_ns))
    return _digest(
        marks,
        sorted(case.names.items()),
        case.modality,
        case.layout,
        *sorted(case.organs),
        *sorted(case.findings),
    )


def _digest(*values: object) -> str:
    return hashlib.sha256(repr((_VERSION, *values)).encode()).hexdigest()[:32]
