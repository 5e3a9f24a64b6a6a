"""The report says what was measured: the same in Markdown, JSON and by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluation_samples import FakeSegmenter, TinyCase, tiny_cases, write_labels
from progidiff.errors import CasesError, OutputError
from progidiff.evaluation import Evaluation, LabelMapPredictor, evaluate, write_report
from progidiff.evaluation.cohorts import cohort_of
from progidiff.evaluation.records import CaseRecord, Json, OrganRecord, read_report, write_text
from progidiff.evaluation.summary import paired_difference, statistics, summarise_cohort, summarise_cohorts

EIGHT = ("aorta", "gallbladder", "left_kidney", "right_kidney", "liver", "pancreas", "spleen", "stomach")


@pytest.fixture(autouse=True)
def no_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes a second: only the test of the plots does it."""
    if "plot" not in request.node.name:
        monkeypatch.setattr("progidiff.evaluation.report.draw_plots", lambda *_: {})


def written(evaluation: Evaluation, folder: Path, baseline: Json | None = None) -> tuple[Json, str]:
    write_report(
        evaluation.records,
        evaluation.settings,
        folder,
        command="progidiff evaluate tiny",
        baseline=baseline,
        failures=evaluation.failures,
    )
    return json.loads((folder / "report.json").read_text(encoding="utf-8")), (folder / "report.md").read_text(
        encoding="utf-8"
    )


def record_of(case: str, dices: dict[str, float | None]) -> CaseRecord:
    organs = [
        OrganRecord(
            organ, "compared" if value is not None else "correctly absent", True, 1.0, 1.0, 0.1,
            dice=value, single=value, best=value, singles=[] if value is None else [value],
        )
        for organ, value in dices.items()
    ]  # fmt: skip
    return CaseRecord(
        case,
        case,
        "BTCV CT",
        "real scan",
        "hand",
        "CT",
        [1, 1, 1],
        [1.0, 1.0, 1.0],
        "m",
        "h",
        "",
        0.1,
        organs,
    )


def table_row(markdown: str, organ: str) -> list[str]:
    """The cells of the first table row that begins with `organ`."""
    line = next(line for line in markdown.splitlines() if line.startswith(f"| {organ} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_ct_and_mr_of_one_data_set_are_not_averaged() -> None:
    names = [cohort_of(f"amos_{n}", "real scan", modality).name for n, modality in ((1, "CT"), (507, "MR"))]
    assert names == ["AMOS CT", "AMOS MR"]


def test_markdown_says_what_json_says(tmp_path: Path) -> None:
    report, markdown = written(evaluate(FakeSegmenter(), tiny_cases(), tmp_path, proposals=3), tmp_path)
    liver = report["cohorts"]["BTCV CT"]["organs"]["liver"]
    cells = table_row(markdown, "liver")
    assert cells[1] == "3"
    assert cells[2] == f"{liver['single']['mean']:.3f}" == "0.944"
    assert cells[4] == "1.000 ± 0.000"
    assert cells[5] == f"{liver['oracle']['mean']:.3f}"
    assert "progidiff evaluate tiny" in markdown
    assert "ffffffffffffffff" in markdown
    assert report["implementation"] in markdown
    assert "drawn by hand" in markdown
    assert "btcv_0001, btcv_0002, btcv_0003" in markdown
    assert "correctly absent" in markdown


def test_every_plot_that_is_named_is_there(tmp_path: Path) -> None:
    report, markdown = written(evaluate(FakeSegmenter(), tiny_cases(), tmp_path), tmp_path)
    plots = report["cohorts"]["BTCV CT"]["plots"]
    assert set(plots) == {"dice", "calibration", "disagreement"}
    for file in plots.values():
        assert f"(plots/{file})" in markdown
        assert (tmp_path / "plots" / file).read_bytes().startswith(b"\x89PNG")


def test_the_mean_over_organs_is_taken_patient_by_patient() -> None:
    whole = record_of("a", dict.fromkeys(EIGHT, 0.8))
    without_gallbladder = record_of("b", {organ: None if organ == "gallbladder" else 0.4 for organ in EIGHT})
    row = summarise_cohort([whole, without_gallbladder])["groups"]["synapse_8"]
    # (0.8 + 0.4) / 2, not (8 · 0.8 + 7 · 0.4) / 15: every patient weighs the same.
    assert row["consensus"]["mean"] == pytest.approx(0.6)
    assert row["consensus"]["sd"] == pytest.approx(0.2828, abs=1e-4)
    assert row["consensus"]["n"] == 2


def test_a_group_with_a_missing_organ_is_not_called_by_its_name() -> None:
    groups = summarise_cohort([record_of("a", dict.fromkeys(EIGHT[1:], 0.5))])["groups"]
    assert list(groups) == ["measured_7"]


def test_real_scans_phantoms_and_cohorts_are_kept_apart(tmp_path: Path) -> None:
    cases = [*tiny_cases()[:1], TinyCase("chaos_t2_01", tiny_cases()[0].masks, ("liver", "spleen"))]
    evaluation = evaluate(FakeSegmenter(), cases, tmp_path)
    phantom = evaluate(FakeSegmenter(), [TinyCase("p", cases[0].masks)], tmp_path).records[0]
    phantom.kind, phantom.cohort = "phantom", "CT phantoms"
    evaluation.records.insert(0, phantom)
    report, markdown = written(evaluation, tmp_path)
    assert list(report["cohorts"]) == ["BTCV CT", "CHAOS T2-SPIR MR", "CT phantoms"]
    assert [cohort["cases"] for cohort in report["cohorts"].values()] == [
        ["btcv_0001"],
        ["chaos_t2_01"],
        ["p"],
    ]
    assert "## CT phantoms: 1 case (phantoms, not patients)" in markdown


def test_a_baseline_stands_beside(tmp_path: Path) -> None:
    cases = tiny_cases()
    write_labels(tmp_path / "unet", [TinyCase(c.id, cases[0].masks) for c in cases])
    written(evaluate(LabelMapPredictor(tmp_path / "unet", "U-Net"), cases, tmp_path / "b"), tmp_path / "b")
    report, markdown = written(
        evaluate(FakeSegmenter(), cases, tmp_path), tmp_path, read_report(tmp_path / "b")
    )
    cohort = report["cohorts"]["BTCV CT"]
    # The baseline gives the first patient's labels for all three; the second one's liver is 2 of 12 off.
    assert cohort["organs"]["liver"]["baseline"]["mean"] == pytest.approx((1 + 10 / 12 + 1) / 3)
    assert table_row(markdown, "liver")[6].startswith("0.944")
    assert report["baseline"][0]["id"] == "U-Net"
    difference = cohort["groups"]["measured_3"]["consensus_minus_baseline"]
    assert difference["n"] == 3 and difference["mean"] > 0


def test_a_baseline_of_fewer_cases_says_of_how_many(tmp_path: Path) -> None:
    write_labels(tmp_path / "unet", tiny_cases())
    baseline = evaluate(LabelMapPredictor(tmp_path / "unet", "U-Net"), tiny_cases()[:1], tmp_path / "b")
    written(baseline, tmp_path / "b")
    _, markdown = written(
        evaluate(FakeSegmenter(), tiny_cases(), tmp_path / "a"), tmp_path / "a", read_report(tmp_path / "b")
    )
    assert "(n = 1)" in table_row(markdown, "liver")[6]


def test_a_baseline_counts_on_the_same_cases_only() -> None:
    records = [record_of("a", {"liver": 0.9}), record_of("b", {"liver": 0.7})]
    others = [*(record_of(case, {"liver": 0.8}) for case in "ab"), record_of("c", {"liver": 0.2})]
    cohort = summarise_cohorts(records, others)["BTCV CT"]
    assert cohort["organs"]["liver"]["baseline"] == {"mean": 0.8, "sd": 0.0, "n": 2}
    assert all(group["baseline"]["n"] == 2 for group in cohort["groups"].values())


def test_folds_join_and_keep_their_models_but_no_case_counts_twice(tmp_path: Path) -> None:
    cases = tiny_cases()
    first = evaluate(FakeSegmenter(model_hash="1" * 64), cases[:2], tmp_path)
    second = evaluate(FakeSegmenter(model_hash="2" * 64), cases[2:], tmp_path)
    first.records += second.records
    report, _ = written(first, tmp_path)
    assert [(m["hash"][0], len(m["cases"])) for m in report["models"]] == [("1", 2), ("2", 1)]
    first.records += second.records
    with pytest.raises(CasesError, match="btcv_0003 would count twice"):
        written(first, tmp_path)


def test_failures_are_in_the_report(tmp_path: Path) -> None:
    cases = [TinyCase("damaged", {}, broken=True), *tiny_cases()[:1]]
    _, markdown = written(evaluate(FakeSegmenter(), cases, tmp_path), tmp_path)
    assert "| damaged | damaged is damaged. Copy it again. |" in markdown


def test_nothing_measured_is_no_report(tmp_path: Path) -> None:
    evaluation = evaluate(FakeSegmenter(), [TinyCase("damaged", {}, broken=True)], tmp_path)
    with pytest.raises(CasesError):
        written(evaluation, tmp_path)
    assert not (tmp_path / "report.json").exists()


def test_statistics_skip_what_does_not_exist() -> None:
    assert statistics([1.0, None, 3.0]) == {"mean": 2.0, "sd": pytest.approx(2**0.5), "n": 2}
    assert statistics([None]) == {"mean": None, "sd": None, "n": 0}


def test_paired_difference_uses_the_patients_in_both() -> None:
    a, b = {"1": 0.9, "2": 0.8, "3": 0.7, "4": 0.1}, {"1": 0.8, "2": 0.7, "3": 0.6, "5": 0.9}
    assert paired_difference(a, b) == pytest.approx({"mean": 0.1, "low": 0.1, "high": 0.1, "n": 3})
    assert paired_difference({"1": 0.9, "2": 0.8}, b) is None


def test_a_file_that_is_no_report_is_refused(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(CasesError, match="not the report"):
        read_report(tmp_path)


def test_an_unwritable_place_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_text("x", tmp_path / "file" / "report.md")
