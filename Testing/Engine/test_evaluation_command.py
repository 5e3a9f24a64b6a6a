"""`progidiff evaluate` from the shell's side."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from evaluation_samples import GRID, FakeSegmenter, tiny_cases, write_labels
from progidiff.cli.main import main
from progidiff.volumes import Volume, write_volume


def fake_model(model: str, device: str) -> FakeSegmenter:
    """What the command's segmenter seam loads here."""
    return FakeSegmenter(model_id=model)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three cases as NAME_image / NAME_label pairs; one more has no label. The fake model is loaded."""
    folder = tmp_path / "ct"
    folder.mkdir()
    for case in tiny_cases():
        image, label = case.load()
        write_volume(image, folder / f"{case.id}_image.nii.gz")
        write_volume(label, folder / f"{case.id}_label.nii.gz")
    noise = np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32)
    write_volume(Volume(noise, GRID.affine), folder / "btcv_0009_image.nii.gz")
    (folder / "btcv_labels.json").write_text('{"1": "spleen", "4": "gallbladder", "6": "liver"}')
    monkeypatch.setenv("PROGIDIFF_SEGMENTER", "test_evaluation_command:fake_model")
    monkeypatch.setattr("progidiff.evaluation.report.draw_plots", lambda *_: {})
    return folder


def report_of(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def test_a_data_folder_becomes_a_report(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(data), "--output", str(tmp_path / "out"), "--proposals", "3"]) == 0
    report = report_of(tmp_path / "out")
    assert report["cohorts"]["BTCV CT"]["cases"] == ["btcv_0001", "btcv_0002", "btcv_0003"]
    assert report["cohorts"]["BTCV CT"]["organs"]["liver"]["consensus"]["mean"] == 1.0
    assert "consensus 1.000" in capsys.readouterr().out


def test_a_case_that_cannot_be_measured_is_reported_and_an_exit_code(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "btcv_0002_image.nii.gz").write_bytes(b"no image")
    arguments = ["evaluate", str(data), "--output", str(tmp_path / "out")]
    assert main(arguments) == 1
    report = report_of(tmp_path / "out")
    assert report["cohorts"]["BTCV CT"]["cases"] == ["btcv_0001", "btcv_0003"]
    assert list(report["failures"]) == ["btcv_0002"]
    assert capsys.readouterr().out.count("Not measured: btcv_0002") == 1
    joined = ["evaluate", "--output", str(tmp_path / "all"), "--join", str(tmp_path / "out")]
    assert main(joined) == 1
    for path in data.glob("*_image.nii.gz"):
        path.write_bytes(b"no image")
    assert main(["evaluate", str(data), "--output", str(tmp_path / "none")]) == 1
    printed = capsys.readouterr()
    assert "Not measured: btcv_0003" in printed.out
    assert "No case could be measured" in printed.err
    assert not (tmp_path / "none").exists()


def test_cases_in_which_nothing_was_measured_make_no_report(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The only case that annotates the organ asked for is damaged."""
    (data / "other_labels.json").write_text('{"8": "aorta"}')
    for kind in ("image", "label"):
        (data / f"other_1_{kind}.nii.gz").write_bytes(b"no image")
    arguments = ["evaluate", str(data), "--output", str(tmp_path / "out"), "--organs", "aorta"]
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert "Not measured: other_1" in printed.out
    assert "No organ was measured" in printed.err
    assert not (tmp_path / "out" / "report.json").exists()


def test_cases_and_organs_can_be_chosen(data: Path, tmp_path: Path) -> None:
    (tmp_path / "fold.txt").write_text("btcv_0003\nbtcv_0002\n")
    arguments = ["evaluate", str(data), "--output", str(tmp_path / "out"), "--organs", "Leber, spleen"]
    assert main([*arguments, "--cases", str(tmp_path / "fold.txt"), "--max-cases", "1"]) == 0
    cohort = report_of(tmp_path / "out")["cohorts"]["BTCV CT"]
    assert cohort["cases"] == ["btcv_0002"]
    assert list(cohort["organs"]) == ["spleen", "liver"]


def test_a_list_of_cases_may_be_longer_than_the_name_of_a_file(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = ",".join(f"btcv_{number:04}" for number in range(1, 60))
    assert main(["evaluate", str(data), "--output", str(tmp_path / "out"), "--cases", many]) == 1
    assert "no labelled case btcv_0004" in capsys.readouterr().err


def test_cases_of_two_data_sets_with_the_same_ids_are_both_measured(data: Path, tmp_path: Path) -> None:
    """Under the ids that training gives them, so that its list of cases kept aside can be taken."""
    other = Path(shutil.copytree(data, tmp_path / "other"))
    (tmp_path / "kept_aside.txt").write_text("ct-btcv_0001\nother-btcv_0001\n")
    base = ["evaluate", str(data), str(other), "--output", str(tmp_path / "out")]
    assert main([*base, "--cases", str(tmp_path / "kept_aside.txt")]) == 0
    (cohort,) = report_of(tmp_path / "out")["cohorts"].values()
    assert cohort["cases"] == ["ct-btcv_0001", "other-btcv_0001"]
    assert main(["evaluate", str(data), str(data), "--output", str(tmp_path / "twice")]) == 1


def test_cases_that_the_model_learnt_from_are_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("progidiff.pipelines.model_folder.check_model_folder", lambda folder: None)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "training_data.json").write_text('{"cases": ["btcv_0002", "btcv_0077"]}')
    base = ["evaluate", str(data), "--model", str(tmp_path / "model"), "--output"]
    assert main([*base, str(tmp_path / "a"), "--cases", "btcv_0001"]) == 0
    assert "No measure of new patients" not in (tmp_path / "a" / "report.md").read_text(encoding="utf-8")
    assert main([*base, str(tmp_path / "b"), "--cases", "btcv_0002"]) == 0
    assert "the model learnt from btcv_0002\n" in (tmp_path / "b" / "report.md").read_text(encoding="utf-8")
    joined = [
        "evaluate",
        "--output",
        str(tmp_path / "all"),
        "--join",
        str(tmp_path / "a"),
        str(tmp_path / "b"),
    ]
    assert main(joined) == 0
    assert capsys.readouterr().out.count("the model learnt from btcv_0002\n") == 2


def test_cases_are_known_by_the_ids_that_they_had_beside_another_data_set(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained on two data sets with the same ids, measured on one of them."""
    monkeypatch.setattr("progidiff.pipelines.model_folder.check_model_folder", lambda folder: None)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "training_data.json").write_text('{"cases": ["ct-btcv_0001", "mr-btcv_0002"]}')
    (tmp_path / "kept_aside.txt").write_text("ct-btcv_0002\nct-btcv_0003\n")
    base = ["evaluate", str(data), "--model", str(tmp_path / "model"), "--output"]
    assert main([*base, str(tmp_path / "a"), "--cases", str(tmp_path / "kept_aside.txt")]) == 0
    assert report_of(tmp_path / "a")["cohorts"]["BTCV CT"]["cases"] == ["btcv_0002", "btcv_0003"]
    assert "No measure of new patients" not in (tmp_path / "a" / "report.md").read_text(encoding="utf-8")
    assert main([*base, str(tmp_path / "b")]) == 0
    assert "the model learnt from btcv_0001\n" in (tmp_path / "b" / "report.md").read_text(encoding="utf-8")


def test_folds_are_joined_and_a_baseline_put_beside(data: Path, tmp_path: Path) -> None:
    write_labels(tmp_path / "unet", tiny_cases())
    base = ["evaluate", str(data), "--output"]
    assert main([*base, str(tmp_path / "a"), "--cases", "btcv_0001,btcv_0002", "--model", "fold_1"]) == 0
    assert main([*base, str(tmp_path / "b"), "--cases", "btcv_0003", "--model", "fold_2"]) == 0
    assert main([*base, str(tmp_path / "u"), "--predictions", str(tmp_path / "unet")]) == 0
    folds = [str(tmp_path / "a"), str(tmp_path / "b")]
    joined = [
        "evaluate",
        "--output",
        str(tmp_path / "all"),
        "--baseline",
        str(tmp_path / "u"),
        "--join",
        *folds,
    ]
    assert main(joined) == 0
    report = report_of(tmp_path / "all")
    assert [model["id"] for model in report["models"]] == ["fold_1", "fold_2"]
    cohort = report["cohorts"]["BTCV CT"]
    assert len(cohort["cases"]) == 3
    assert cohort["organs"]["liver"]["baseline"] == {"mean": 1.0, "sd": 0.0, "n": 3}


def test_folds_with_other_settings_do_not_join(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["evaluate", str(data), "--output"]
    assert main([*base, str(tmp_path / "a"), "--cases", "btcv_0001"]) == 0
    again = [*base, str(tmp_path / "b"), "--cases", "btcv_0002", "--seed", "1", "--join", str(tmp_path / "a")]
    assert main(again) == 2
    assert "differ in seed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ([], (2, "nothing to measure")),
        (["DATA", "--organs", "unicorn"], (2, "unicorn")),
        (["DATA", "--cases", "btcv_0009"], (1, "no labelled case btcv_0009")),
        (["DATA", "--proposals", "0"], (2, "0 proposals")),
        (["DATA", "--organs", "esophagus,aorta"], (1, "No case annotates esophagus or aorta")),
        (["DATA", "--seed", "-1"], (2, "seed")),
        (["DATA", "--seed", str(10**20)], (2, "seed")),
        (["DATA", "--max-cases", "0"], (2, "--max-cases")),
        (["DATA", "--baseline", "nowhere"], (1, "not the report")),
        (["nowhere"], (1, "no folder")),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    answer: tuple[int, str],
) -> None:
    given = [str(data) if argument == "DATA" else argument for argument in arguments]
    code = main(["evaluate", *given, "--output", str(tmp_path / "out")])
    assert (code, answer[1] in capsys.readouterr().err) == (answer[0], True)
    assert not (tmp_path / "out").exists()
