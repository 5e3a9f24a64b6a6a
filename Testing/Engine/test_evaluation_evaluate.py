"""A run over cases: what is measured, what is skipped, what is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation_samples import (
    GRID,
    LIVER,
    SPLEEN,
    FakeSegmenter,
    TinyCase,
    box_mask,
    proposal_of,
    tiny_cases,
    write_labels,
)
from progidiff.errors import CasesError
from progidiff.evaluation import LabelMapPredictor, evaluate
from progidiff.evaluation.calibration import BinnedRate
from progidiff.evaluation.evaluate import plain_target
from progidiff.evaluation.measure import measure_organ
from progidiff.evaluation.records import CaseRecord
from progidiff.evaluation.summary import summarise_cohort
from progidiff.proposals import ProposalSet
from progidiff.volumes import write_volume


def test_every_annotated_organ_is_measured_and_no_other(tmp_path: Path) -> None:
    found = evaluate(FakeSegmenter(), tiny_cases(), tmp_path, proposals=3)
    assert [record.case for record in found.records] == ["btcv_0001", "btcv_0002", "btcv_0003"]
    assert [organ.organ for organ in found.records[0].organs] == ["spleen", "gallbladder", "liver"]
    assert found.records[0].cohort == "BTCV CT"
    assert "hand" in found.records[0].labels_by


def test_the_figures_of_shifted_proposals_are_those_of_their_shifts(tmp_path: Path) -> None:
    liver = evaluate(FakeSegmenter(), tiny_cases()[:1], tmp_path, proposals=3).records[0].by_organ("liver")
    assert liver is not None
    # Shifts of −1, 0 and +1 of 12 voxels: 11/12, 1 and 11/12; best score first; the majority is the truth.
    assert liver.singles == pytest.approx([1.0, 11 / 12, 11 / 12])
    assert liver.single == pytest.approx((1 + 11 / 6) / 3)
    assert (liver.best, liver.dice, liver.hd95_mm, liver.surface_dice) == (1.0, 1.0, 0.0, 1.0)
    assert liver.pairwise == pytest.approx((11 / 12 + 11 / 12 + 10 / 12) / 3)
    assert liver.reference_ml == pytest.approx(12 * 12 * 8 * 0.016)
    assert liver.steps == 4
    # Only four layers of the box are ever wrong or doubtful, and the consensus is right there too.
    assert liver.disagreement_error_rho is None
    assert liver.brier is not None and 0 < liver.brier < 0.1


def test_random_jitter_is_matched_and_beaten_by_a_proposal_that_is_right(tmp_path: Path) -> None:
    liver = evaluate(FakeSegmenter(), tiny_cases()[:1], tmp_path, proposals=3).records[0].by_organ("liver")
    assert liver is not None and liver.jitter_matched
    assert liver.jitter_pairwise == pytest.approx(liver.pairwise, abs=0.01)
    assert liver.jitter_best is not None and liver.best is not None
    assert liver.jitter_best < liver.best


def test_absent_organs_are_not_counted_unless_they_are_invented(tmp_path: Path) -> None:
    case = tiny_cases()[:1]
    right = evaluate(FakeSegmenter(), case, tmp_path / "a").records[0].by_organ("gallbladder")
    wrong = evaluate(FakeSegmenter(invents=("gallbladder",)), case, tmp_path / "b").records[0]
    invented = wrong.by_organ("gallbladder")
    assert right is not None and invented is not None
    assert (right.outcome, right.dice, right.counted) == ("correctly absent", None, False)
    assert (invented.outcome, invented.dice, invented.hd95_mm) == ("false positive", 0.0, None)
    assert invented.single == 0.0
    assert invented.prediction_ml == pytest.approx(27 * 0.016)


def test_a_missed_organ_has_dice_zero_and_no_distance() -> None:
    target = plain_target("liver")
    nothing = ProposalSet(target, GRID, found=False, reason="not seen")
    record = measure_organ(nothing, LIVER, seconds=0.1, rng=np.random.default_rng(0))
    assert (record.outcome, record.dice, record.single, record.best) == ("missed", 0.0, 0.0, 0.0)
    assert record.hd95_mm is None and record.all_empty and record.jitter_best is None


def test_disagreement_that_marks_the_errors_is_seen() -> None:
    target = plain_target("liver")
    wrong = np.roll(LIVER, 2, axis=0)
    mean = ((LIVER.astype(np.float32) + 2 * wrong) / 3).astype(np.float32)
    consensus = proposal_of(mean, target, 0.8)
    drawn = [
        proposal_of(m.astype(np.float32), target, s) for m, s in ((wrong, 0.9), (wrong, 0.8), (LIVER, 0.1))
    ]
    answer = ProposalSet(target, GRID, drawn, consensus, (1 - 4 * mean * (1 - mean))[consensus.region])
    record = measure_organ(answer, LIVER, seconds=0.1, rng=np.random.default_rng(0))
    assert record.disagreement_error_rho == pytest.approx(1.0)
    assert record.disagreement is not None
    curve = BinnedRate.from_json(record.disagreement)
    assert curve.rate[0] == 0.0 and curve.rate[8] == 1.0


def test_a_second_run_measures_nothing_again(tmp_path: Path) -> None:
    first, second = FakeSegmenter(), FakeSegmenter()
    before = evaluate(first, tiny_cases(), tmp_path)
    after = evaluate(second, tiny_cases(), tmp_path)
    assert first.asked and not second.asked
    assert before.records == after.records


def test_an_interrupted_run_keeps_what_it_had(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate(FakeSegmenter(stop_at="btcv_0002"), tiny_cases(), tmp_path)
    resumed = FakeSegmenter()
    assert len(evaluate(resumed, tiny_cases(), tmp_path).records) == 3
    assert {case for case, _, _ in resumed.asked} == {"btcv_0002", "btcv_0003"}
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (FakeSegmenter(model_hash="0" * 64), {}),
        (FakeSegmenter(), {"seed": 1}),
        (FakeSegmenter(), {"steps": 2}),
        (FakeSegmenter(), {"proposals": 2}),
    ],
)
def test_another_model_or_setting_is_measured_anew(
    tmp_path: Path, model: FakeSegmenter, options: dict[str, int]
) -> None:
    case = tiny_cases()[:1]
    evaluate(FakeSegmenter(), case, tmp_path)
    evaluate(model, case, tmp_path, **options)
    assert model.asked
    assert len(list((tmp_path / "cases").glob("btcv_0001.*.json"))) == 2


def test_a_changed_label_is_measured_anew(tmp_path: Path) -> None:
    evaluate(FakeSegmenter(), tiny_cases()[:1], tmp_path)
    mended = TinyCase("btcv_0001", {"liver": LIVER, "spleen": np.roll(SPLEEN, 1, axis=2)})
    again = FakeSegmenter()
    evaluate(again, [mended], tmp_path)
    assert again.asked


def test_one_damaged_case_does_not_cost_the_others(tmp_path: Path) -> None:
    cases = [TinyCase("damaged", {}, broken=True), *tiny_cases()[:1]]
    found = evaluate(FakeSegmenter(), cases, tmp_path)
    assert [record.case for record in found.records] == ["btcv_0001"]
    assert "damaged" in found.failures["damaged"]


def test_no_cases_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CasesError):
        evaluate(FakeSegmenter(), [], tmp_path)


def test_paraphrases_ask_for_one_proposal_in_other_words(tmp_path: Path) -> None:
    segmenter = FakeSegmenter(shifts=(1, 0, -1))
    found = evaluate(segmenter, tiny_cases()[:2], tmp_path, organs=["liver"], paraphrase_cases=1)
    first, second = (record.by_organ("liver") for record in found.records)
    assert first is not None and second is not None
    assert len(first.paraphrases) == 10 and not second.paraphrases
    understood = 10 - len(first.not_understood)
    assert sorted(first.paraphrases)[-understood:] == pytest.approx([11 / 12] * understood)
    assert sum(count == 1 for _, _, count in segmenter.asked) == understood


def test_label_maps_are_measured_without_probabilities(tmp_path: Path) -> None:
    cases = tiny_cases()[:1]
    write_labels(tmp_path / "unet", cases)
    predictor = LabelMapPredictor(tmp_path / "unet")
    liver = evaluate(predictor, cases, tmp_path / "out").records[0].by_organ("liver")
    assert liver is not None
    assert (liver.dice, liver.single, liver.hd95_mm) == (1.0, 1.0, 0.0)
    assert liver.ece is None and liver.jitter_best is None and liver.reliability is None


def test_label_maps_must_be_there_and_fit(tmp_path: Path) -> None:
    cases = tiny_cases()
    write_labels(tmp_path / "unet", cases[:1])
    found = evaluate(LabelMapPredictor(tmp_path / "unet"), cases[:2], tmp_path / "out")
    assert "no prediction for btcv_0002" in found.failures["btcv_0002"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(CasesError, match="no predictions"):
        LabelMapPredictor(tmp_path / "empty")


def test_a_label_map_on_another_grid_is_refused(tmp_path: Path) -> None:
    case = tiny_cases()[0]
    _, label = case.load()
    (tmp_path / "unet").mkdir()
    write_volume(replace(label, array=label.array[:, :, 1:]), tmp_path / "unet" / f"{case.id}.nii.gz")
    found = evaluate(LabelMapPredictor(tmp_path / "unet"), [case], tmp_path / "out")
    assert "not on the grid" in found.failures[case.id]


def test_records_survive_json(tmp_path: Path) -> None:
    record = evaluate(FakeSegmenter(), tiny_cases()[:1], tmp_path).records[0]
    assert CaseRecord.from_json(json.loads(json.dumps(record.to_json(), allow_nan=False))) == record


LESION = box_mask((8, 10, 5), (4, 4, 4))


def tumor_case() -> TinyCase:
    masks = {"liver": LIVER, "spleen": SPLEEN, "liver_tumor": LESION}
    return TinyCase("btcv_0001", masks, findings=("liver_tumor",))


def test_findings_are_measured_only_of_models_that_draw_them(tmp_path: Path) -> None:
    without = evaluate(FakeSegmenter(), [tumor_case()], tmp_path / "a").records[0]
    assert [organ.organ for organ in without.organs] == ["spleen", "gallbladder", "liver"]
    liver = without.by_organ("liver")
    assert liver is not None
    assert (liver.dice, liver.reference_ml) == (1.0, pytest.approx(12 * 12 * 8 * 0.016))
    record = evaluate(FakeSegmenter(findings=("liver_tumor",)), [tumor_case()], tmp_path / "b").records[0]
    assert [organ.organ for organ in record.organs] == ["spleen", "gallbladder", "liver", "liver_tumor"]
    liver, tumor = record.by_organ("liver"), record.by_organ("liver_tumor")
    assert liver is not None
    assert tumor is not None
    assert liver.reference_ml == pytest.approx(12 * 12 * 8 * 0.016)  # a lesion is part of its organ
    assert (tumor.dice, tumor.reference_ml) == (1.0, pytest.approx(4**3 * 0.016))


def test_findings_are_in_the_table_but_in_no_mean(tmp_path: Path) -> None:
    model = FakeSegmenter(findings=("liver_tumor",))
    found = evaluate(model, [tumor_case()], tmp_path / "a", paraphrase_cases=1)
    summary = summarise_cohort(found.records)
    assert "liver_tumor" in summary["organs"]
    assert [row["organs"] for row in summary["groups"].values()] == [["spleen", "gallbladder", "liver"]]
    assert set(summary["paraphrases"]) == {"spleen", "liver"}
    alone = evaluate(model, [tumor_case()], tmp_path / "b", organs=["liver_tumor"])
    assert summarise_cohort(alone.records)["groups"] == {}
