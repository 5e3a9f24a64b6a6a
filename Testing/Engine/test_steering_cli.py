"""`progidiff vary` and `progidiff constrain`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from progidiff.cli.main import build_parser, main
from progidiff.volumes import read_label, write_volume
from progidiff.volumes.volume import Volume, axial_grid

HERE = Path(__file__).parent
GRID = axial_grid((20, 18, 12), (2.0, 2.0, 5.0), np.zeros(3))


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROGIDIFF_SEGMENTER", "steering_fake:load")
    monkeypatch.syspath_prepend(str(HERE))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a scan, and a label map of two organs (6 and 1)."""
    scan = np.random.default_rng(0).integers(-1000, 1000, GRID.shape).astype(np.int16)
    label = np.zeros(GRID.shape, np.uint8)
    label[4:12, 4:12, 2:9] = 6
    label[15:18, 3:6, 2:9] = 1
    write_volume(Volume(scan, GRID.affine), tmp_path / "scan.nii.gz")
    write_volume(Volume(label, GRID.affine), tmp_path / "label.nii.gz")
    return tmp_path


def run(command: str, files: Path, *more: str) -> int:
    fixed = ["--prompt", "the liver", "--output", str(files / "out"), "--proposals", "2"]
    return main([command, str(files / "scan.nii.gz"), *fixed, *more])


def ras(i: int, j: int, k: int) -> list[str]:
    return [str(value) for value in (GRID.affine @ [i, j, k, 1])[:3]]


def result(files: Path) -> tuple[dict, np.ndarray]:
    described = json.loads((files / "out" / "proposals.json").read_text(encoding="utf-8"))
    return described["organs"][0], read_label(files / "out" / "consensus.nii.gz").array == 6


def test_vary_writes_a_result_with_its_record(files: Path) -> None:
    assert run("vary", files, "--mask", str(files / "label.nii.gz"), "--label", "6", "--strength", "0.3") == 0
    organ, _ = result(files)
    record = organ["proposals"][0]["provenance"]
    assert (record["method"], record["parent"], record["strength"]) == ("varied", "label", 0.3)


def test_of_several_organs_in_a_map_the_one_of_the_prompt_is_meant(files: Path) -> None:
    assert run("vary", files, "--mask", str(files / "label.nii.gz"), "--slices", "11", "11") == 0
    _, consensus = result(files)
    label = read_label(files / "label.nii.gz").array == 6
    assert np.array_equal(consensus[:, :, :11], label[:, :, :11])
    assert run("constrain", files, "--inside-mask", str(files / "label.nii.gz")) == 0
    said = result(files)[0]["proposals"][0]["provenance"]["constraints"]
    assert said == f"{8 * 8 * 7} voxels inside"  # the liver's voxels alone


@pytest.mark.parametrize("command", [["vary", "--mask"], ["constrain", "--inside-mask"]])
def test_a_map_of_several_other_organs_asks_for_the_label(
    files: Path, capfd: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert run(command[0], files, command[1], str(files / "label.nii.gz"), "--prompt", "the aorta") == 2
    assert "several values, but not 8, the number of aorta" in capfd.readouterr().err


def test_the_record_says_how_the_image_was_read(files: Path) -> None:
    assert run("vary", files, "--mask", str(files / "label.nii.gz")) == 0
    described = json.loads((files / "out" / "proposals.json").read_text(encoding="utf-8"))
    assert described["input"]["modality"] == "CT"


def test_vary_on_a_range_of_slices_keeps_the_others(files: Path) -> None:
    mask = ["--mask", str(files / "label.nii.gz"), "--label", "6"]
    assert run("vary", files, *mask, "--slices", "0", "4") == 0
    _, consensus = result(files)
    label = read_label(files / "label.nii.gz").array == 6
    assert np.array_equal(consensus[:, :, 5:], label[:, :, 5:])
    assert not np.array_equal(consensus, label)


@pytest.mark.parametrize("number", ["-1e1", "-1.5E+0", "-.5"])
def test_negative_coordinates_in_any_notation_are_no_options(number: str) -> None:
    options = build_parser().parse_args(
        ["constrain", "scan.nii.gz", "--prompt", "liver", "--output", "out", "--inside", number, "0", "0"]
    )
    assert options.inside == [[float(number), 0, 0]]


def test_constrain_keeps_points_and_masks(files: Path) -> None:
    painted = np.zeros(GRID.shape, np.uint8)
    painted[18, 16, 10] = 3
    write_volume(Volume(painted, GRID.affine), files / "painted.nii.gz")
    marks = ["--inside", *ras(1, 1, 1), "--inside", *ras(2, 1, 1), "--outside", *ras(9, 9, 6)]
    assert run("constrain", files, *marks, "--inside-mask", str(files / "painted.nii.gz")) == 0
    organ, consensus = result(files)
    assert consensus[1, 1, 1] and consensus[2, 1, 1] and consensus[18, 16, 10]
    assert not consensus[9, 9, 6]
    assert organ["proposals"][0]["provenance"]["constraints"] == "3 voxels inside, 1 voxel outside"


def test_constrain_keeps_what_is_finished(files: Path) -> None:
    finished = np.zeros(GRID.shape, np.uint8)
    finished[:, :, :5] = 1
    write_volume(Volume(finished, GRID.affine), files / "finished.nii.gz")
    mask = ["--mask", str(files / "label.nii.gz"), "--label", "6"]
    assert run("constrain", files, *mask, "--fixed", str(files / "finished.nii.gz")) == 0
    label = read_label(files / "label.nii.gz").array == 6
    assert np.array_equal(result(files)[1][:, :, :5], label[:, :, :5])


@pytest.mark.parametrize("marks", ["fixed", "inside-mask"])
def test_the_label_holds_for_marks_in_a_map_of_several_organs(files: Path, marks: str) -> None:
    label = ["--mask", str(files / "label.nii.gz"), "--label", "6"]
    assert run("constrain", files, *label, f"--{marks}", str(files / "label.nii.gz")) == 0
    organ, _ = result(files)
    said = organ["proposals"][0]["provenance"]["constraints"]
    assert str(8 * 8 * 7) in said  # the liver's voxels alone


def test_marks_of_one_value_count_whole_whatever_the_label(files: Path) -> None:
    painted = np.zeros(GRID.shape, np.uint8)
    painted[18, 16, 10] = 1
    write_volume(Volume(painted, GRID.affine), files / "painted.nii.gz")
    label = ["--mask", str(files / "label.nii.gz"), "--label", "6"]
    assert run("constrain", files, *label, "--outside-mask", str(files / "painted.nii.gz")) == 0
    assert "1 voxel outside" in result(files)[0]["proposals"][0]["provenance"]["constraints"]


def test_a_label_that_the_marks_do_not_have_is_said(files: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("constrain", files, "--fixed", str(files / "label.nii.gz"), "--label", "7") == 2
    assert "label.nii.gz marks nothing" in capfd.readouterr().err


def test_a_mask_on_another_grid_is_brought_to_the_volume(files: Path) -> None:
    fine = axial_grid((40, 36, 24), (1.0, 1.0, 2.5), np.zeros(3))
    finished = np.zeros(fine.shape, np.uint8)
    finished[8:24, 8:24, 4:18] = 1
    write_volume(Volume(finished, fine.affine), files / "fine.nii.gz")
    everything = np.ones(GRID.shape, np.uint8)
    write_volume(Volume(everything, GRID.affine), files / "all.nii.gz")
    marks = ["--mask", str(files / "fine.nii.gz"), "--fixed", str(files / "all.nii.gz")]
    assert run("constrain", files, *marks) == 0
    expected = np.zeros(GRID.shape, bool)
    expected[4:12, 4:12, 2:9] = True
    assert np.array_equal(result(files)[1], expected)


def test_a_thin_mark_on_a_finer_grid_is_not_lost(files: Path) -> None:
    fine = axial_grid((60, 54, 36), (2 / 3, 2 / 3, 5 / 3), np.zeros(3))
    line = np.zeros(fine.shape, np.uint8)
    line[3:30, 9, 12] = 1  # beside the places where the coarse grid looks
    write_volume(Volume(line, fine.affine), files / "line.nii.gz")
    assert run("constrain", files, "--inside-mask", str(files / "line.nii.gz")) == 0
    _, consensus = result(files)
    assert consensus[1:10, 3, 4].all()


@pytest.mark.parametrize(
    ("command", "more", "words"),
    [
        ("vary", ["--label", "7"], "marks nothing"),
        ("vary", ["--strength", "2"], "between 0 and 1"),
        ("vary", ["--seed", str(10**20)], "seed"),
        ("constrain", ["--seed", "-1"], "seed"),
        ("vary", ["--prompt", "liver and spleen"], "several organs"),
        ("vary", ["--roi", "0", "0", "9999", "1", "1", "1"], "no voxel of the volume"),
        ("constrain", ["--inside", "0", "0", "9999"], "outside the volume"),
        ("constrain", [], "no constraints"),
        ("constrain", ["--inside", *ras(1, 1, 1), "--outside", *ras(1, 1, 1)], "both inside and outside"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_drawn(
    files: Path, capfd: pytest.CaptureFixture[str], command: str, more: list[str], words: str
) -> None:
    mask = ["--mask", str(files / "label.nii.gz")]
    assert run(command, files, *mask, *more) == 2
    assert words in capfd.readouterr().err
    assert not (files / "out").exists()
