"""`progidiff cases`, `adapt` and `adapters`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from adaptation_samples import SETTINGS, library, scan, tiny_segmenter
from progidiff import segmenter_factory
from progidiff.adaptation import adapt as adapt_file
from progidiff.adaptation import settings as settings_file
from progidiff.adaptation.before_after import Measured
from progidiff.adaptation.case_library import CaseLibrary
from progidiff.cli.cases import slice_ranges
from progidiff.cli.main import main
from progidiff.errors import UsageError
from progidiff.volumes import write_volume
from progidiff.volumes.volume import Volume


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """An image and a label map of liver (6) and spleen (1)."""
    image, ball = scan()
    label = np.where(ball, 6, 0).astype(np.uint8)
    label[:3, :3, :] = 1
    write_volume(image, tmp_path / "image.nii.gz")
    write_volume(Volume(label, image.affine, "MR", "label"), tmp_path / "label.nii.gz")
    return str(tmp_path / "image.nii.gz"), str(tmp_path / "label.nii.gz")


def test_add_list_remove(files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--cases", str(tmp_path / "cases")]
    add = [
        "cases",
        "add",
        *files,
        "--organ",
        "Liver",
        "--organ",
        "Milz",
        "--slices",
        "3-10",
        "--by",
        "me",
        *where,
    ]
    assert main(add) == 0
    (case,) = CaseLibrary(tmp_path / "cases").cases()
    assert list(case.organs) == ["liver", "spleen"]
    assert case.organs["liver"].slices == ((3, 11),)
    assert case.load_mask("spleen").sum() == 9 * 12
    assert main(["cases", "list", *where]) == 0
    printed = capsys.readouterr().out
    assert case.id in printed
    assert "3–10" in printed  # as typed
    assert main(["cases", "remove", case.id, "--organ", "spleen", *where]) == 0
    assert main(["cases", "remove", case.id, *where]) == 0
    assert main(["cases", "remove", case.id, *where]) == 1
    assert CaseLibrary(tmp_path / "cases").cases() == []


def test_a_damaged_case_is_removed_and_added_again(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--cases", str(tmp_path / "cases")]
    add = ["cases", "add", *files, "--organ", "liver", *where]
    assert main(add) == 0
    (case,) = CaseLibrary(tmp_path / "cases").cases()
    (case.folder / "case.json").write_text("{")
    assert main(add) == 1
    assert "Remove the whole case and add it again" in capsys.readouterr().err
    assert main(["cases", "remove", case.id, *where]) == 0
    assert main(add) == 0
    assert len(CaseLibrary(tmp_path / "cases").cases()) == 1


@pytest.mark.parametrize("label", ["0", "-1"])
def test_the_background_is_no_label(files: tuple[str, str], tmp_path: Path, label: str) -> None:
    """All but the organ would be kept as a checked organ to learn from."""
    where = ["--cases", str(tmp_path / "library")]
    with pytest.raises(SystemExit) as stopped:
        main(["cases", "add", *files, "--organ", "liver", "--label", label, *where])
    assert stopped.value.code == 2 and not (tmp_path / "library").exists()


def test_a_label_can_be_named(files: tuple[str, str], tmp_path: Path) -> None:
    where = ["--cases", str(tmp_path / "cases")]
    assert main(["cases", "add", *files, "--organ", "pancreas", "--label", "1", *where]) == 0
    assert CaseLibrary(tmp_path / "cases").cases()[0].load_mask("pancreas").sum() == 9 * 12


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--organ", "knee"], 2, "not an organ"),
        (["--organ", "pancreas"], 1, "no voxel of pancreas"),
        (["--organ", "pancreas", "--label", "9"], 1, "empty"),
        (["--organ", "liver", "--organ", "pancreas"], 1, "no voxel of pancreas"),
        (["--organ", "liver", "--slices", "9-3"], 2, "no range"),
        (["--organ", "liver", "--slices", "3-99"], 1, "not within"),
    ],
)
def test_what_cannot_be_added_is_said(
    files: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    code: int,
    words: str,
) -> None:
    assert main(["cases", "add", *files, "--cases", str(tmp_path / "cases"), *more]) == code
    assert words in capsys.readouterr().err


def add_of_one_value(value: int, tmp_path: Path, *more: str) -> int:
    """Adds a mask that has this value alone."""
    image, ball = scan()
    write_volume(image, tmp_path / "image.nii.gz")
    write_volume(Volume(ball.astype(np.uint8) * value, image.affine, "MR", "m"), tmp_path / "one.nii.gz")
    paths = [str(tmp_path / "image.nii.gz"), str(tmp_path / "one.nii.gz")]
    return main(["cases", "add", *paths, "--cases", str(tmp_path / "cases"), *more])


@pytest.mark.parametrize(
    ("value", "more"),
    [(1, ["liver"]), (6, ["liver"]), (255, ["liver"]), (1, ["spleen"]), (6, ["spleen", "--label", "6"])],
)
def test_one_organ_may_have_a_binary_mask(value: int, more: list[str], tmp_path: Path) -> None:
    assert add_of_one_value(value, tmp_path, "--organ", *more) == 0
    (case,) = CaseLibrary(tmp_path / "cases").cases()
    assert case.load_mask(more[0]).sum() == scan()[1].sum()


@pytest.mark.parametrize(
    ("value", "organs", "words"),
    [
        (6, ["liver", "spleen"], "no voxel of spleen"),
        (1, ["liver", "spleen"], "no voxel of liver"),
        (255, ["liver", "spleen"], "no voxel of liver"),
        (6, ["spleen"], "is the number of liver"),
        (14, ["liver"], "is the number of liver tumor"),
    ],
)
def test_a_mask_of_one_value_is_not_taken_for_another_organ(
    value: int, organs: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [part for organ in organs for part in ("--organ", organ)]
    assert add_of_one_value(value, tmp_path, *more) == 1
    assert words in capsys.readouterr().err
    assert CaseLibrary(tmp_path / "cases").cases() == []


def test_an_organ_includes_its_findings(tmp_path: Path) -> None:
    image, ball = scan()
    label = np.where(ball, 6, 0).astype(np.uint8)
    label[tuple(np.argwhere(ball)[ball.sum() // 2])] = 14
    write_volume(image, tmp_path / "image.nii.gz")
    write_volume(Volume(label, image.affine, "MR", "label"), tmp_path / "label.nii.gz")
    paths = [str(tmp_path / "image.nii.gz"), str(tmp_path / "label.nii.gz")]
    assert main(["cases", "add", *paths, "--organ", "liver", "--cases", str(tmp_path / "cases")]) == 0
    (case,) = CaseLibrary(tmp_path / "cases").cases()
    assert case.load_mask("liver").sum() == ball.sum()


def test_a_mask_of_another_grid_is_refused(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, ball = scan()
    moved = image.affine.copy()
    moved[0, 3] += 5
    write_volume(Volume(ball.astype(np.uint8), moved, "MR", "m"), tmp_path / "moved.nii.gz")
    code = main(
        [
            "cases",
            "add",
            files[0],
            str(tmp_path / "moved.nii.gz"),
            "--organ",
            "liver",
            "--cases",
            str(tmp_path / "c"),
        ]
    )
    assert code == 1
    assert "grid" in capsys.readouterr().err


def test_slices_are_counted_from_zero_as_in_slicer() -> None:
    assert slice_ranges("12-40, 44") == [(12, 41), (44, 45)]
    assert slice_ranges("0-3") == [(0, 4)]
    assert slice_ranges("") == []
    for nonsense in ("a", "3-", "-3", "5-4"):
        with pytest.raises(UsageError):
            slice_ranges(nonsense)


def test_adapt_and_manage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmenter_factory, "load_segmenter", lambda *_: tiny_segmenter())
    monkeypatch.setattr(settings_file, "AdaptSettings", lambda **_: SETTINGS)
    monkeypatch.setattr(
        adapt_file, "measure_cases", lambda s, *_: Measured({"liver": 0.5 + 0.3 * bool(s.adapter)}, [])
    )
    monkeypatch.setattr(adapt_file, "measure_phantom", lambda *_: Measured({"spleen": 0.9}, []))
    monkeypatch.setattr(adapt_file, "make_phantom", lambda *_: (None, None))
    library(tmp_path / "cases", 2)
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    order = ["adapt", "--cases", str(tmp_path / "cases"), "--output", str(adapters / "one"), "--name", "ours"]
    assert main(order) == 0
    printed = capsys.readouterr().out
    assert "0.500" in printed
    assert "0.800" in printed
    assert "got better" in printed
    assert main(order) == 1  # nothing is overwritten
    assert main(["adapters", "compare", str(adapters / "one"), str(adapters / "one")]) == 2
    copy = str(tmp_path / "copy")
    assert main(["adapters", "export", str(adapters / "one"), copy]) == 0
    capsys.readouterr()
    assert main(["adapters", "compare", str(adapters / "one"), copy]) == 0
    printed = capsys.readouterr().out
    assert printed.count("0.500 → 0.800") == 4  # liver and mean of both
    assert printed.count("0.900 → 0.900") == 2
    assert "was held out" in printed
    assert "their Dice can be compared" in printed
    assert main(["adapters", "list", "--folder", str(adapters)]) == 0
    assert "ours" in capsys.readouterr().out
    assert main(["adapters", "rename", str(adapters / "one"), "theirs"]) == 0
    assert json.loads((adapters / "one" / "adapter.json").read_text(encoding="utf-8"))["name"] == "theirs"
    assert main(["adapters", "export", str(adapters / "one"), str(tmp_path / "one.zip")]) == 0
    assert main(["adapters", "show", str(adapters / "one")]) == 0
    assert "# theirs" in capsys.readouterr().out
    assert main(["adapters", "delete", str(adapters / "one")]) == 0
    assert main(["adapters", "show", str(adapters / "one")]) == 1


def test_without_cases_no_model_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapt", "--cases", str(tmp_path), "--output", str(tmp_path / "a")]) == 1
    assert "no cases" in capsys.readouterr().err


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "-inf", "1e300", "1441"])
def test_minutes_that_cannot_be_trained_are_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, minutes: str
) -> None:
    monkeypatch.setattr(segmenter_factory, "load_segmenter", lambda *_: tiny_segmenter())
    library(tmp_path / "cases", 1)
    order = ["adapt", "--cases", str(tmp_path / "cases"), "--output", str(tmp_path / "a")]
    assert main([*order, f"--minutes={minutes}"]) == 2
    assert "--minutes is" in capsys.readouterr().err
