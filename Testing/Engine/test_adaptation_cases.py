"""The case library: nothing that was saved is ever lost."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from adaptation_samples import library, scan
from progidiff.adaptation import case_library
from progidiff.adaptation.case_library import CaseLibrary, slice_axis
from progidiff.adaptation.settings import AdaptSettings
from progidiff.adaptation.work_folder import digest_of
from progidiff.errors import CasesError, OutputError
from progidiff.volumes.volume import Volume

HERE = Path(__file__).parent


def test_a_case_comes_back_as_it_was_added(tmp_path: Path) -> None:
    image, ball = scan()
    added = CaseLibrary(tmp_path / "new" / "cases").add(image, ball, "liver", by="Dr A", source="knee?")
    (case,) = CaseLibrary(tmp_path / "new" / "cases").cases()
    assert case == added.case
    assert added.outcome == "added"
    assert (case.modality, case.source, case.organs["liver"].by) == ("MR", "knee?", "Dr A")
    assert case.organs["liver"].slices == ((0, 12),)
    back = case.load_image()
    np.testing.assert_array_equal(back.array, image.array)
    np.testing.assert_allclose(back.affine, image.affine)
    assert back.modality == "MR"
    np.testing.assert_array_equal(case.load_mask("liver"), ball)


def test_the_same_image_becomes_one_case_whatever_its_number_type(tmp_path: Path) -> None:
    cases = CaseLibrary(tmp_path)
    image, ball = scan()
    whole = replace(image, array=np.rint(image.array).astype(np.int16))
    first = cases.add(whole, ball, "liver").case
    second = cases.add(
        replace(whole, array=whole.array.astype(np.float64), name="other"), ball, "spleen"
    ).case
    assert first.id == second.id
    assert list(cases.case(first.id).organs) == ["liver", "spleen"]
    moved = whole.affine.copy()
    moved[0, 3] += 1
    assert cases.add(replace(whole, affine=moved), ball, "liver").case.id != first.id


def test_the_same_image_becomes_one_case_however_its_place_was_rounded(tmp_path: Path) -> None:
    cases = CaseLibrary(tmp_path)
    image, ball = scan()
    place = image.affine.copy()
    place[:2, 3] = -100.0005, 250.0015  # as text; NIfTI keeps 32 bits of it
    first = cases.add(replace(image, affine=place), ball, "liver").case
    coarser = replace(image, affine=place.astype(np.float32).astype(np.float64))
    assert not np.array_equal(np.round(coarser.affine, 3), np.round(place, 3))
    second = cases.add(coarser, ball, "spleen")
    assert (second.case.id, list(second.case.organs)) == (first.id, ["liver", "spleen"])


def test_a_modality_that_was_guessed_wrong_can_be_put_right(tmp_path: Path) -> None:
    cases = CaseLibrary(tmp_path)
    image, ball = scan()
    wrong = cases.add(replace(image, modality="CT"), ball, "liver").case
    assert cases.add(replace(image, modality="unknown"), ball, "liver").outcome == "unchanged"
    right = cases.add(image, ball, "liver")
    assert (right.outcome, right.case.id, right.case.modality) == ("replaced", wrong.id, "MR")
    assert cases.cases()[0].load_image().modality == "MR"
    assert cases.add(image, ball, "liver").outcome == "unchanged"
    settings = AdaptSettings()
    assert digest_of("", settings, 1.0, [wrong]) != digest_of("", settings, 1.0, [right.case])


def test_a_newer_mask_replaces_the_older_one_which_is_kept(tmp_path: Path) -> None:
    cases = CaseLibrary(tmp_path)
    image, ball = scan()
    better = ball.copy()
    better[12, 12, 6] = not better[12, 12, 6]
    cases.add(image, ball, "liver")
    assert cases.add(image, ball, "liver").outcome == "unchanged"
    replaced = cases.add(image, better, "liver")
    assert replaced.outcome == "replaced"
    (case,) = cases.cases()
    assert case.organs["liver"].version == 2
    assert [c.version for c in case.earlier] == [1]
    np.testing.assert_array_equal(case.load_mask("liver"), better)
    assert (case.folder / "liver-1.nrrd").is_file()
    assert cases.add(image, ball, "liver", slices=[(0, 6)]).case.organs["liver"].version == 3


def test_checked_slices_are_counted_along_the_patient(tmp_path: Path) -> None:
    image, ball = scan()
    turned = Volume(
        np.ascontiguousarray(image.array.transpose(2, 0, 1)), image.affine[:, [2, 0, 1, 3]], "MR", "turned"
    )
    assert slice_axis(turned.affine) == 0
    mask = ball.transpose(2, 0, 1)
    case = CaseLibrary(tmp_path).add(turned, mask, "liver", slices=[(7, 9), (2, 5), (4, 6)]).case
    assert case.organs["liver"].slices == ((2, 6), (7, 9))
    assert np.flatnonzero(case.checked_slices("liver")).tolist() == [2, 3, 4, 5, 7, 8]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"organ": "knee"}, "not an organ"),
        ({"organ": "liver_tumor"}, "Findings such as liver tumor cannot be taught yet"),
        ({"slices": [(0, 99)]}, "Slices 0 to 98 are not within"),
        ({"slices": [(5, 5)]}, "not within"),
        ({"slices": [(1.5, 3)]}, "no range"),
        ({"slices": [2, 9]}, "no range"),
        ({"slices": [(0, 1)]}, "empty in the slices"),
        ({"mask": np.zeros((24, 24, 12), bool)}, "empty"),
        ({"mask": np.ones((3, 3, 3), bool)}, "voxels"),
    ],
)
def test_what_cannot_be_truth_is_refused_and_leaves_nothing(tmp_path: Path, change: dict, words: str) -> None:
    image, ball = scan()
    given = {"mask": ball, "organ": "liver", "slices": (), **change}
    with pytest.raises(CasesError, match=words):
        CaseLibrary(tmp_path / "cases").add(image, given["mask"], given["organ"], slices=given["slices"])
    assert not (tmp_path / "cases").exists()


def test_remove_an_organ_then_the_case(tmp_path: Path) -> None:
    cases = library(tmp_path, 2, ("liver", "spleen"))
    case, other = cases.cases()
    cases.remove(case.id, "spleen")
    assert list(cases.case(case.id).organs) == ["liver"]
    assert not list(case.folder.glob("spleen*"))
    with pytest.raises(CasesError):
        cases.remove(case.id, "spleen")
    cases.remove(case.id, "liver")
    assert [c.id for c in cases.cases()] == [other.id]
    assert not case.folder.exists()
    for nonsense in (case.id, "../elsewhere", "", "case-../.."):
        with pytest.raises(CasesError):
            cases.remove(nonsense)


@pytest.mark.parametrize("organ", ["", "liver"])
def test_a_library_that_may_not_be_changed_says_so(tmp_path: Path, organ: str) -> None:
    cases = library(tmp_path, 1)
    (case,) = cases.cases()
    (tmp_path / ".lock").unlink()
    (tmp_path / ".lock").mkdir()  # cannot be opened for writing, like any file of a read-only disk
    with pytest.raises(OutputError, match=f"{case.id} cannot be removed"):
        cases.remove(case.id, organ)
    assert cases.cases() == [case]


@pytest.mark.parametrize("content", ["{", "[]", "", None])
def test_a_damaged_case_can_be_removed_and_added_again(tmp_path: Path, content: str | None) -> None:
    cases = library(tmp_path, 2)
    first, second = cases.cases()
    (first.folder / "case.json").unlink()
    if content is not None:
        (first.folder / "case.json").write_text(content)
    assert list(cases.damaged()) == [first.id]
    with pytest.raises(CasesError, match="Remove the whole case"):
        cases.remove(first.id, "liver")
    cases.remove(first.id)
    assert [c.id for c in cases.cases()] == [second.id]
    assert cases.problems() == []
    image, ball = scan(0)
    image2, _ = scan(1)
    for again in (image, image2):
        cases.add(again, ball, "liver")
    assert {c.id for c in cases.cases()} == {first.id, second.id}


def test_a_damaged_case_does_not_hide_the_others(tmp_path: Path) -> None:
    cases = library(tmp_path, 3)
    first, second, third = cases.cases()
    (first.folder / "case.json").write_text("{")
    (second.folder / "liver-1.nrrd").unlink()
    assert [c.id for c in cases.cases()] == [third.id]
    assert len(cases.problems()) == 2
    assert all("case-" in problem for problem in cases.problems())


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("organ", ["liver", "spleen"])
@pytest.mark.parametrize("write", range(4))
def test_a_full_disk_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, organ: str, write: int
) -> None:
    """Every write in turn fails: for a new case (liver), and for another organ of an old one (spleen)."""
    cases = library(tmp_path, 1)
    before = _tree(tmp_path)
    image, ball = scan(0 if organ == "spleen" else 5)
    count, real = [0], os.fsync

    def fsync(handle: int) -> None:
        count[0] += 1
        if count[0] == write + 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    failed = False
    try:
        cases.add(image, ball, organ)
    except OutputError as error:
        failed = True
        assert "No space left" in str(error)
        assert ".unfinished" not in str(error)  # a name that is gone when it is read
    monkeypatch.setattr(os, "fsync", real)
    assert failed == (count[0] > write)
    assert not cases.problems()
    assert {k: v for k, v in _tree(tmp_path).items() if k in before}.keys() == before.keys()
    cases.cases()[0].load_mask("liver")
    assert cases.add(image, ball, organ).outcome in ("added", "unchanged")
    assert not list(tmp_path.rglob(".unfinished*"))


def test_a_killed_process_loses_nothing(tmp_path: Path) -> None:
    """Real processes add cases and are killed at some moment; what they had reported is there, whole."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from adaptation_samples import scan\n"
        "from progidiff.adaptation.case_library import CaseLibrary\n"
        "cases = CaseLibrary(Path(sys.argv[1]))\n"
        "for n in range(1000):\n"
        "    image, ball = scan(n % 40)\n"
        "    ball[0, 0, n % 12] = True\n"
        "    for organ in ('liver', 'spleen'):\n"
        "        added = cases.add(image, ball, organ)\n"
        "        print(added.case.id, organ, added.case.organs[organ].version, flush=True)\n"
    )
    reported: dict[tuple[str, str], int] = {}
    rng = np.random.default_rng(0)
    for _ in range(3):
        worker = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(HERE)},
        )
        assert worker.stdout is not None
        lines = [worker.stdout.readline()]
        time.sleep(float(rng.uniform(0, 0.15)))
        worker.send_signal(signal.SIGKILL)
        lines += worker.stdout.read().splitlines()
        worker.wait()
        worker.stdout.close()
        for line in lines:
            words = line.split()
            if len(words) == 3 and words[2].isdigit():
                reported[words[0], words[1]] = int(words[2])
    assert reported
    cases = CaseLibrary(tmp_path)
    assert not cases.problems()
    for (case_id, organ), version in reported.items():
        case = cases.case(case_id)
        assert case.organs[organ].version >= version
        assert case.load_mask(organ).any()
        assert case.load_image().shape == (24, 24, 12)


def test_unfinished_leftovers_are_removed_after_a_day(tmp_path: Path) -> None:
    cases = library(tmp_path, 1)
    fresh, old = tmp_path / ".unfinished-fresh", tmp_path / ".unfinished-old"
    for folder in (fresh, old):
        folder.mkdir()
        (folder / "image.nrrd").write_bytes(b"half")
    os.utime(old, (time.time() - 90_000,) * 2)
    image, ball = scan(7)
    cases.add(image, ball, "liver")
    assert fresh.exists()
    assert not old.exists()
    assert len(cases.cases()) == 2


def test_case_json_says_who_when_and_what(tmp_path: Path) -> None:
    (case,) = library(tmp_path, 1).cases()
    content = json.loads((case.folder / "case.json").read_text(encoding="utf-8"))
    assert content["schema"] == case_library.SCHEMA
    assert content["source"] == "scan 0"
    assert len(content["image_hash"]) == 64
    (organ,) = content["organs"]
    assert {"organ", "version", "slices", "date", "by", "mask_hash"} == set(organ)
