"""Which slices teach and which judge: never the same, and never an unchecked one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from adaptation_samples import library, scan
from progidiff.adaptation.case_library import CaseLibrary, StoredCase
from progidiff.adaptation.slices import slices_text
from progidiff.adaptation.teaching import Packed, Part, coarse_pieces, split, whole
from progidiff.errors import CasesError
from progidiff.training.slice_data import OrganSlices
from progidiff.volumes.volume import Volume


def slices_by_organ(parts: list[Part]) -> dict[tuple[str, str], np.ndarray]:
    return {(part.case.id, organ): flags for part in parts for organ, flags in part.slices.items()}


def test_of_several_cases_one_judges_and_the_others_teach(tmp_path: Path) -> None:
    cases = library(tmp_path, 3, ("liver", "spleen")).cases()
    parts = split(cases)
    taught, judged = {p.case.id for p in parts.train}, {p.case.id for p in parts.held_out}
    assert len(taught) == 2
    assert len(judged) == 1
    assert not taught & judged
    assert parts.judged == ["liver", "spleen"]
    assert next(iter(judged)) in parts.how
    assert split(list(reversed(cases))).how == parts.how


def test_the_case_that_can_judge_most_organs_judges(tmp_path: Path) -> None:
    cases = CaseLibrary(tmp_path)
    organs = {0: ["liver", "spleen"], 1: ["liver"], 2: ["liver", "spleen", "pancreas"]}
    for seed, names in organs.items():
        image, ball = scan(seed)
        for organ in names:
            cases.add(image, ball, organ)
    parts = split(cases.cases())
    assert parts.judged == ["liver", "spleen"]
    assert "pancreas" not in parts.held_out[0].slices


@pytest.mark.parametrize("count", [1, 2])
def test_where_no_case_can_judge_a_block_of_slices_does(tmp_path: Path, count: int) -> None:
    cases = CaseLibrary(tmp_path)
    for n in range(count):
        image, _ = scan(n, (24, 24, 40))
        mask = np.zeros(image.shape, bool)
        mask[8:16, 8:16, 4:36] = True
        cases.add(image, mask, ("liver", "spleen")[n])
    parts = split(cases.cases())
    teach, judge = slices_by_organ(parts.train), slices_by_organ(parts.held_out)
    assert teach.keys() == judge.keys()
    for key, flags in judge.items():
        assert flags.sum() == 8
        assert not (teach[key] & flags).any()
        assert len(np.flatnonzero(~teach[key])) == 10  # with a gap of one on either side
    assert "slices" in parts.how


def test_too_few_slices_are_not_divided(tmp_path: Path) -> None:
    image, ball = scan(0, (24, 24, 8))
    parts = split([CaseLibrary(tmp_path).add(image, ball, "liver").case])
    assert parts.held_out == []
    assert parts.judged == []


def flipped(image: Volume) -> Volume:
    """The same image, stored from posterior to anterior."""
    last = image.shape[1] - 1
    turn = np.array([[1.0, 0, 0, 0], [0, -1, 0, last], [0, 0, 1, 0], [0, 0, 0, 1]])
    return replace(image, array=image.array[:, ::-1].copy(), affine=image.affine @ turn)


def moved(image: Volume) -> Volume:
    """The same image after a registration."""
    affine = image.affine.copy()
    affine[:3, 3] += 20
    return replace(image, affine=affine)


@pytest.mark.parametrize("change", [flipped, moved])
@pytest.mark.parametrize("others", [0, 1])
def test_an_image_that_is_there_twice_does_not_teach_and_judge(
    tmp_path: Path, change: Callable[[Volume], Volume], others: int
) -> None:
    cases = CaseLibrary(tmp_path)
    image, ball = scan(0)
    same = [cases.add(image, ball, "liver").case.id]
    same.append(cases.add(change(image), ball[:, ::-1], "liver").case.id)
    assert len(set(same)) == 2
    for n in range(others):
        cases.add(*scan(n + 1), "liver")
    parts = split(cases.cases())
    taught, judged = {p.case.id for p in parts.train}, {p.case.id for p in parts.held_out}
    assert len((taught | judged) & set(same)) == 1
    assert len(judged) == 1
    assert not taught & judged or "block" in parts.how
    assert "only one took part" in parts.how


def checked_case(folder: Path, slices: list[tuple[int, int]], flip: bool = False) -> StoredCase:
    """Intensity and mask tell on which native slice a voxel lies; the mask is everywhere."""
    image, _ = scan()
    array = np.broadcast_to(np.arange(12, dtype=np.float32) * 20, image.shape).copy()
    array[:2] = 0
    mask = np.zeros(image.shape, bool)
    mask[4:20, 4:20] = True
    affine = image.affine
    if flip:
        affine = affine @ np.diag([1.0, 1.0, -1.0, 1.0])
    return CaseLibrary(folder).add(Volume(array, affine, "MR", "x"), mask, "liver", slices=slices).case


@pytest.mark.parametrize("flip", [False, True])
def test_only_checked_slices_are_drawn(tmp_path: Path, flip: bool) -> None:
    case = checked_case(tmp_path, [(3, 5), (9, 10)], flip)
    packed = Packed().pack(whole(case))
    assert packed.checked is not None
    wanted = [11 - k for k in (3, 4, 9)] if flip else [3, 4, 9]
    assert np.flatnonzero(packed.checked[6]).tolist() == sorted(wanted)
    slices = OrganSlices([packed], crop=32, slices=1, appearance=0.0)
    batch = slices.batch(60, np.random.default_rng(0))
    seen = {round(float(v), 2) for v in batch.image[:, 0, 16, 16]}
    grey = packed.image[:, 12, 12]
    assert seen == {round(float(grey[k]) / 127.5 - 1, 2) for k in wanted}


def test_an_unchecked_organ_is_unknown_on_a_slice_and_not_background(tmp_path: Path) -> None:
    cases = CaseLibrary(tmp_path)
    image, _ = scan()
    liver, spleen = np.zeros(image.shape, bool), np.zeros(image.shape, bool)
    liver[2:10, 4:20], spleen[14:22, 4:20] = True, True
    cases.add(image, liver, "liver")
    cases.add(image, spleen, "spleen", slices=[(0, 6)])
    packed = Packed().pack(whole(cases.cases()[0]))
    assert packed.known_on(2) == [1, 6]
    assert packed.known_on(8) == [6]
    batch = OrganSlices([packed], crop=32, slices=1, appearance=0.0).batch(80, np.random.default_rng(0))
    known = batch.known[:, 1]
    assert 0 < known.sum() < 80
    assert (batch.label[known] == 1).any()
    assert not (batch.label[~known] == 1).any()


def test_what_nobody_checked_takes_no_voxel_from_what_was_checked(tmp_path: Path) -> None:
    cases = CaseLibrary(tmp_path)
    image, ball = scan()
    within = np.zeros(image.shape, bool)
    within[10:14, 10:14, 3:9] = True
    assert ball[within].all()
    cases.add(image, ball, "liver")
    cases.add(image, within, "gallbladder", slices=[(4, 6)])
    label = Packed().pack(whole(cases.cases()[0])).label
    assert [k for k in range(12) if (label[k] == 4).any()] == [4, 5]
    assert ((label == 6).any((1, 2)) == ball.any((0, 1))).all()
    assert (label[8, 10:14, 10:14] == 6).all()


def test_the_locator_learns_from_checked_slabs(tmp_path: Path) -> None:
    case = checked_case(tmp_path, [(0, 4), (7, 8), (9, 12)])
    pieces = coarse_pieces(Packed().pack(whole(case)))
    assert [len(p.label) for p in pieces] == [4, 3]
    assert all(p.organs == (6,) and p.image.shape == p.label.shape for p in pieces)


def test_organs_of_a_slab_are_those_checked_on_all_of_it(tmp_path: Path) -> None:
    cases = CaseLibrary(tmp_path)
    image, ball = scan()
    other = np.roll(ball, 3, 0)
    cases.add(image, ball, "liver")
    cases.add(image, other, "spleen", slices=[(0, 6)])
    pieces = coarse_pieces(Packed().pack(whole(cases.cases()[0])))
    assert {(len(p.label), p.organs) for p in pieces} == {(6, (1, 6)), (12, (6,))}
    long = next(p for p in pieces if len(p.label) == 12)
    assert set(np.unique(long.label)) == {0, 6}


def test_a_part_without_its_organ_is_refused(tmp_path: Path) -> None:
    case = checked_case(tmp_path, [])
    with pytest.raises(CasesError):
        Packed().pack(Part(case, {"liver": np.zeros(12, bool)}))


def test_slices_are_told_as_slicer_counts_them() -> None:
    assert slices_text(((0, 40), (42, 43))) == "0–39, 42"
