"""From the records of single cases to the figures of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add

import numpy as np

from progidiff.evaluation.calibration import BinnedRate, rank_correlation
from progidiff.evaluation.cohorts import SYNAPSE_ORGANS
from progidiff.evaluation.records import CaseRecord, Json, OrganRecord

Value = Callable[[OrganRecord], float | None]
_BOOTSTRAP_SAMPLES = 10_000

# What the tables show of a record. The oracle is the best of N *given the truth*: nobody can pick it blindly.
VALUES: dict[str, Value] = {
    "single": lambda r: r.single,
    "top_ranked": lambda r: (r.singles[0] if r.singles else 0.0) if r.counted else None,
    "consensus": lambda r: r.dice,
    "consensus_at_half": lambda r: r.dice_at_half,
    "oracle": lambda r: r.best,
    "hd95_mm": lambda r: r.hd95_mm,
    "surface_dice": lambda r: r.surface_dice,
    "pairwise": lambda r: r.pairwise,
    "ece": lambda r: r.ece,
    "brier": lambda r: r.brier,
    "disagreement_error_rho": lambda r: r.disagreement_error_rho,
    "seconds": lambda r: r.seconds,
}


def summarise_cohorts(records: Sequence[CaseRecord], baseline: Sequence[CaseRecord] = ()) -> dict[str, Json]:
    """Figures by cohort, real scans before phantoms; cohorts are never averaged together.

    Of the baseline only cases count that `records` have too: means over other patients do not compare.
    """
    names = dict.fromkeys(r.cohort for r in sorted(records, key=lambda r: r.kind == "phantom"))
    measured = {(r.cohort, r.case) for r in records}
    beside = [r for r in baseline if (r.cohort, r.case) in measured]
    return {
        name: summarise_cohort(
            [r for r in records if r.cohort == name], [r for r in beside if r.cohort == name]
        )
        for name in names
    }


def summarise_cohort(records: Sequence[CaseRecord], baseline: Sequence[CaseRecord] = ()) -> Json:
    """All figures of one cohort as plain JSON; see `report` for what they mean. Findings enter no mean."""
    from progidiff.prompts import organ_table

    organs = _organs(records)
    findings = organ_table().finding_ids
    groups = _groups([organ for organ in organs if organ not in findings])
    return {
        "kind": records[0].kind,
        "labels_by": sorted({r.labels_by for r in records}),
        "modalities": sorted({r.modality for r in records}),
        "cases": [r.case for r in records],
        "organs": {organ: _summarise_organ(records, baseline, organ) for organ in organs},
        "groups": {name: _summarise_group(records, baseline, members) for name, members in groups.items()},
        "control": _control(records, organs),
        "calibration": _calibration(records),
        "ranking": _ranking(records),
        "paraphrases": _paraphrases(records, organs),
        "seconds_prepare": statistics([r.seconds_prepare for r in records]),
    }


def statistics(values: Sequence[float | None]) -> Json:
    """Mean, sample standard deviation (None for fewer than two) and number of the values that exist."""
    known = [float(v) for v in values if v is not None]
    return {
        "mean": float(np.mean(known)) if known else None,
        "sd": float(np.std(known, ddof=1)) if len(known) > 1 else None,
        "n": len(known),
    }


def paired_difference(a: dict[str, float], b: dict[str, float]) -> Json | None:
    """Mean of a − b over the patients in both, with a 95 % percentile bootstrap interval over patients.

    None for fewer than three patients: an interval from two would be a pretence.
    """
    shared = [case for case in a if case in b]
    if len(shared) < 3:
        return None
    differences = np.array([a[case] - b[case] for case in shared])
    rng = np.random.default_rng(0)
    drawn = rng.choice(differences, size=(_BOOTSTRAP_SAMPLES, len(shared))).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"mean": float(differences.mean()), "low": float(low), "high": float(high), "n": len(shared)}


def patient_means(records: Sequence[CaseRecord], organs: Sequence[str], value: Value) -> dict[str, float]:
    """Each patient's mean over the organs that count in it: the first step of a group's mean."""
    means = {}
    for record in records:
        values = [value(r) for organ in organs if (r := record.by_organ(organ)) and r.counted]
        known = [v for v in values if v is not None]
        if known:
            means[record.case] = float(np.mean(known))
    return means


def _organs(records: Sequence[CaseRecord]) -> list[str]:
    """The organs, and findings, that were measured in any case, in the organ table's order."""
    from progidiff.prompts import organ_table

    measured = {organ.organ for record in records for organ in record.organs}
    return [o.id for o in (*organ_table().organs, *organ_table().findings) if o.id in measured]


def _groups(organs: Sequence[str]) -> dict[str, list[str]]:
    """The organ groups that can be averaged: a group with a missing organ would flatter or punish."""
    from progidiff.prompts import organ_table

    groups: dict[str, list[str]] = {}
    if not organs:
        return groups
    if set(SYNAPSE_ORGANS) <= set(organs):
        groups["synapse_8"] = list(SYNAPSE_ORGANS)
    everything = [organ.id for organ in organ_table().organs]
    groups["all_13" if set(everything) <= set(organs) else f"measured_{len(organs)}"] = list(organs)
    return groups


def _of(records: Sequence[CaseRecord], organ: str) -> list[OrganRecord]:
    return [r for record in records if (r := record.by_organ(organ))]


def _summarise_organ(records: Sequence[CaseRecord], baseline: Sequence[CaseRecord], organ: str) -> Json:
    found = _of(records, organ)
    counted = [r for r in found if r.counted]
    summary: Json = {
        "measured": len(found),
        "counted": len(counted),
        "outcomes": {
            outcome: sum(r.outcome == outcome for r in found)
            for outcome in ("compared", "missed", "false positive", "correctly absent")
        },
        "false_positive_ml": [r.prediction_ml for r in found if r.outcome == "false positive"],
        "all_empty": sum(r.all_empty for r in counted),
        "distinct": statistics([r.distinct for r in counted]),
    }
    summary.update({name: statistics([value(r) for r in counted]) for name, value in VALUES.items()})
    summary["baseline"] = statistics([r.dice for r in _of(baseline, organ) if r.counted])
    return summary


def _summarise_group(
    records: Sequence[CaseRecord], baseline: Sequence[CaseRecord], organs: Sequence[str]
) -> Json:
    means = {name: patient_means(records, organs, value) for name, value in VALUES.items()}
    means["baseline"] = patient_means(baseline, organs, VALUES["consensus"])
    summary: Json = {"organs": list(organs)}
    summary.update({name: statistics(list(values.values())) for name, values in means.items()})
    summary["missing_hd95"] = sum(
        r.hd95_mm is None for organ in organs for r in _of(records, organ) if r.counted
    )
    summary["consensus_minus_single"] = paired_difference(means["consensus"], means["single"])
    summary["consensus_minus_baseline"] = paired_difference(means["consensus"], means["baseline"])
    return summary


def _control(records: Sequence[CaseRecord], organs: Sequence[str]) -> Json:
    """Best of N against best of N jittered masks, over the sets whose jitter differs as much."""
    rows = {organ: _control_row(_of(records, organ)) for organ in organs}
    everything = [r for organ in organs for r in _of(records, organ)]
    oracle = patient_means(records, organs, lambda r: r.best if r.jitter_matched else None)
    jittered = patient_means(records, organs, lambda r: r.jitter_best if r.jitter_matched else None)
    return {
        "organs": {organ: row for organ, row in rows.items() if row["tried"]},
        "all": _control_row(everything),
        "oracle_minus_jitter": paired_difference(oracle, jittered),
    }


def _control_row(records: Sequence[OrganRecord]) -> Json:
    matched = [r for r in records if r.jitter_matched]
    return {
        "tried": sum(r.jitter_best is not None for r in records),
        "matched": len(matched),
        "pairwise": statistics([r.pairwise for r in matched]),
        "jitter_pairwise": statistics([r.jitter_pairwise for r in matched]),
        "single": statistics([r.single for r in matched]),
        "jitter_single": statistics([r.jitter_single for r in matched]),
        "oracle": statistics([r.best for r in matched]),
        "jitter_oracle": statistics([r.jitter_best for r in matched]),
        "wins": sum((r.best or 0.0) > (r.jitter_best or 0.0) for r in matched),
    }


def _pooled(curves: Sequence[Json | None]) -> BinnedRate | None:
    known = [BinnedRate.from_json(curve) for curve in curves if curve is not None]
    return reduce(add, known) if known else None


def _calibration(records: Sequence[CaseRecord]) -> Json:
    """Curves pooled over all voxels of the boxes of all organs and patients."""
    everything = [r for record in records for r in record.organs]
    reliability = _pooled([r.reliability for r in everything])
    disagreement = _pooled([r.disagreement for r in everything])
    return {
        "pooled_ece": reliability.calibration_error if reliability else None,
        "reliability": reliability.to_json() if reliability else None,
        "disagreement": disagreement.to_json() if disagreement else None,
    }


def _ranking(records: Sequence[CaseRecord]) -> Json:
    """How well the model's own score orders proposals: within one answer, and over all answers."""
    counted = [r for record in records for r in record.organs if r.counted and r.scores]
    within = [rank_correlation(np.array(r.scores), np.array(r.singles)) for r in counted]
    scores = np.array([s for r in counted for s in r.scores])
    dices = np.array([d for r in counted for d in r.singles])
    return {"within_answers": statistics(within), "over_all": rank_correlation(scores, dices)}


def _paraphrases(records: Sequence[CaseRecord], organs: Sequence[str]) -> Json:
    """Mean and worst over the held-out wordings, and the wordings that were not understood."""
    rows = {}
    for organ in organs:
        tried = [r for r in _of(records, organ) if r.paraphrases]
        if tried:
            table = np.array([r.paraphrases for r in tried])
            rows[organ] = {
                "n": len(tried),
                "mean": float(table.mean()),
                "worst_wording": float(table.mean(axis=0).min()),
                "worst_per_patient": float(table.min(axis=1).mean()),
                "not_understood": sorted({wording for r in tried for wording in r.not_understood}),
            }
    return rows
