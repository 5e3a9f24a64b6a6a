"""Tables of the benchmarks: what stands in them is what the records say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from progidiff.evaluation.records import CaseRecord, OrganRecord
from textdiffseg_samples import tiny_pipeline

sys.path.append(str(Path(__file__).parent.parent / "Benchmarks"))

import choices
import lesions
import side_by_side


def record(case: str, organs: list[OrganRecord]) -> CaseRecord:
    return CaseRecord(
        case=case,
        key="k",
        cohort="c",
        kind="phantom",
        labels_by="",
        modality="CT",
        shape=[1, 1, 1],
        spacing_mm=[1.0, 1.0, 1.0],
        model="m",
        model_hash="h",
        device="cpu",
        seconds_prepare=0.0,
        organs=organs,
    )


def liver_tumor(outcome: str, reference: float, prediction: float, dice: float | None) -> OrganRecord:
    return OrganRecord(
        "liver_tumor", outcome, True, reference, prediction, 2.0, dice=dice, single=dice, best=dice
    )


def test_lesions_that_are_there_and_organs_that_have_none_are_counted_apart() -> None:
    records = [
        record("phantom_ct_1_lesions", [liver_tumor("compared", 5.0, 4.0, 0.6)]),
        record("phantom_ct_2_lesions", [liver_tumor("missed", 5.0, 0.0, 0.0)]),
        record("phantom_ct_1_healthy", [liver_tumor("false positive", 0.0, 3.0, 0.0)]),
        record("phantom_ct_2_healthy", [liver_tumor("correctly absent", 0.0, 0.0, None)]),
        record("phantom_mr_1_lesions", [liver_tumor("compared", 5.0, 5.0, 0.9)]),
    ]
    (row,) = [line for line in lesions.table(records) if line.startswith("| CT | liver tumor")]
    assert row == "| CT | liver tumor | 2 | 1 | 0.30 | 1 of 2 | 1.5 |"


def test_a_row_of_choices_leaves_out_what_does_not_count() -> None:
    records = [
        record(
            "a", [liver_tumor("compared", 5.0, 4.0, 0.6), liver_tumor("correctly absent", 0.0, 0.0, None)]
        ),
        record("b", [liver_tumor("missed", 5.0, 0.0, 0.0)]),
    ]
    assert choices.row("as it ships", records) == "| as it ships | 0.300 | 0.300 | 0.300 | – | 2.0 |"


@pytest.mark.parametrize("name", ["without refiner", "without coarse pass", "without fresh noise"])
def test_a_choice_changes_the_model_it_is_given(name: str) -> None:
    pipeline = tiny_pipeline()

    class Model:
        pass

    model = Model()
    model.pipeline = pipeline  # type: ignore[attr-defined]
    before = (float(pipeline.refiner.last.weight.detach().abs().sum()), dict(pipeline.config))
    choices.CHOICES[name][1](model)  # type: ignore[arg-type]
    assert (float(pipeline.refiner.last.weight.detach().abs().sum()), dict(pipeline.config)) != before


def test_reports_side_by_side_are_compared_with_the_first_over_patients() -> None:
    def of(*dice: float) -> list[CaseRecord]:
        return [
            record(str(n), [OrganRecord("liver", "compared", True, 5.0, 5.0, 1.0, dice=d, single=d - 0.1)])
            for n, d in enumerate(dice)
        ]

    reports = {"whole": of(0.5, 0.6, 0.7), "without": of(0.4, 0.5, 0.6)}
    _, _, whole, without = side_by_side.table(reports, ("liver",))
    assert whole == "| whole | 0.500 | 0.600 | – | – |  |"
    assert without == "| without | 0.400 | 0.500 | – | – | -0.100 (-0.100 to -0.100) |"


def test_side_by_side_takes_only_what_every_report_has_measured() -> None:
    def liver_and_spleen(*cases: str) -> list[CaseRecord]:
        organs = [OrganRecord(o, "compared", True, 5.0, 5.0, 1.0, dice=0.5) for o in ("liver", "spleen")]
        return [record(case, organs) for case in cases]

    liver = [record("b", [OrganRecord("liver", "compared", True, 5.0, 5.0, 1.0, dice=0.5)])]
    shared = side_by_side.shared({"all": liver_and_spleen("a", "b"), "few": liver})
    kept = {name: [(r.case, o.organ) for r in records for o in r.organs] for name, records in shared.items()}
    assert kept == {"all": [("b", "liver")], "few": [("b", "liver")]}
