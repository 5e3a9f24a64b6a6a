"""The words and tables of `report.md`; every figure comes from `report.json`."""

from __future__ import annotations

from collections.abc import Sequence

from progidiff.evaluation.calibration import CALIBRATION_BINS
from progidiff.evaluation.measure import BOX_MARGIN_MM, JITTER_TOLERANCE
from progidiff.evaluation.metrics import EMPTY_MASK_RULE
from progidiff.evaluation.records import Json

_GROUP_NAMES = {"synapse_8": "**mean of the 8 Synapse organs**", "all_13": "**mean of all 13 organs**"}

_HOW = f"""## How it was measured

- **Metrics.** {{implementation}}
- **Empty masks.** {EMPTY_MASK_RULE}
- **Columns.** *single*: mean Dice of the single proposals. *top-ranked*: Dice of the proposal that the model
  itself puts first. *consensus*: Dice of the mean probability at the threshold of highest expected Dice, the
  mask a user gets; HD95 and surface Dice are the consensus's. *oracle*: Dice of the best proposal, chosen
  with the truth in hand, which no user can do: an upper bound. ± is the standard deviation over patients.
- **Means over organs** are taken as in the Synapse protocol: first each patient's mean over the organs that
  count in it, then the mean (± standard deviation) of the patients. Unlike that protocol's public code, which
  gives Dice 1 for an organ invented where there is none and computes HD95 without voxel spacing, the rule
  above holds and distances are millimetres.
- **Control of the oracle.** Any masks that differ have a best one. *jitter oracle* is the best of as many
  random morphological variations of *one* proposal, as different from one another as the real proposals are
  (mean pairwise Dice within {JITTER_TOLERANCE:g}); where that was not reached the case is left out.
  *jittered* is their mean. Real proposals are worth more than noise only where oracle beats jitter oracle.
- **Calibration.** ECE ({CALIBRATION_BINS} bins of equal width) and Brier score of the mean probability, and
  the rank correlation (Spearman) between voxel disagreement and error of the consensus, in a box that reaches
  {BOX_MARGIN_MM:g} mm beyond organ and proposals. A larger box would make all of them look better.
"""

_PUBLISHED = """## Published figures, for orientation

Other data splits, other training sets, other empty-mask rules: orders of magnitude, not a ranking.

| work | data | figure |
| --- | --- | --- |
| U-Net, as reported with TransUNet and Swin-Unet (arXiv 2102.04306, 2105.05537) | BTCV/Synapse, 8 organs, \
18 training cases | Dice 76.9, HD95 39.7 |
| Swin-Unet (arXiv 2105.05537) | the same | Dice 79.1, HD95 21.6 |
| best 2D network we know of | the same | Dice 85.1, HD95 12.5; pancreas 54–72 over all of them |
| nnU-Net; MedNeXt-L | BTCV, 13 organs, 5-fold, 24 training cases | Dice 83.1; 85.0 |
| VoxTell; SAT; SegVol; BiomedParse v2 | CT abdomen, text prompt, zero-shot | Dice 72.9; 68.8; 52.5; 51.8 |
| trained on CT with augmentation; CSDG; SLAug | CHAOS T2-SPIR, 4 organs, no MR label | Dice 80; 86.3; 88.6 |
| trained on MR with all labels | CHAOS T2-SPIR, 4 organs | Dice 90.9 |
"""


def render(report: Json) -> str:
    """Lays out a report.

    Args:
        report: what `report.build_report` made, with the plots' file names in each cohort.
    """
    names = list(dict.fromkeys(model["id"] for model in report["models"]))
    parts = [f"# Evaluation of {', '.join(names)}", _facts(report)]
    for name, cohort in report["cohorts"].items():
        parts.append(_cohort(name, cohort, bool(report["baseline"])))
    parts.append(_HOW.replace("{implementation}", report["implementation"]))
    parts.append(_PUBLISHED)
    if report["failures"]:
        rows = [[case, reason] for case, reason in report["failures"].items()]
        parts.append("## Not measured\n\n" + _table(["case", "why"], rows))
    return "\n".join(part.strip() + "\n" for part in parts)


def _facts(report: Json) -> str:
    settings = report["settings"]
    steps = " or ".join(str(n) for n in report["steps"]) or "no"
    chosen = "asked for" if settings["steps"] else "the model's default"
    software = ", ".join(f"{name} {version}" for name, version in report["software"].items())
    lines = [
        f"- measured {report['created']} by `{report['command']}`",
        f"- {settings['proposals']} proposals an organ, denoising steps: {steps} ({chosen}), seed "
        f'{settings["seed"]}, prompt "segment the ORGAN"',
        *(_model_line("model", model) for model in report["models"]),
        *(_model_line("baseline", model) for model in report["baseline"]),
        f"- {software}",
    ]
    if learnt := report["learnt_from"]:
        lines.append(f"- **No measure of new patients**: the model learnt from {', '.join(learnt)}")
    return "\n".join(lines)


def _model_line(role: str, model: Json) -> str:
    where = f" on {model['device']}" if model["device"] else ""
    count = len(model["cases"])
    return f"- {role}: {model['id']} (`{model['hash'][:16]}`){where}, {count} case{'s' if count > 1 else ''}"


def _cohort(name: str, cohort: Json, with_baseline: bool) -> str:
    cases = cohort["cases"]
    kind = "phantoms, not patients" if cohort["kind"] == "phantom" else "real scans"
    heading = f"## {name}: {len(cases)} case{'s' if len(cases) > 1 else ''} ({kind})"
    parts = [
        heading,
        f"Labels: {'; '.join(cohort['labels_by'])}. Modality: {', '.join(cohort['modalities'])}. "
        f"Cases: {', '.join(cases)}.",
        _main_table(cohort, with_baseline),
        _differences(cohort),
        _plots(cohort),
        _control(cohort["control"]),
        _proposal_table(cohort),
        _absent(cohort),
        _paraphrases(cohort["paraphrases"]),
    ]
    return "\n\n".join(part for part in parts if part)


def _main_table(cohort: Json, with_baseline: bool) -> str:
    header = ["organ", "n", "single", "top-ranked", "consensus", "oracle"]
    header += ["baseline"] if with_baseline else []
    header += ["HD95 mm", "no HD95", "surface Dice"]
    rows = []
    for organ, row in cohort["organs"].items():
        missing = row["counted"] - row["hd95_mm"]["n"]
        rows.append(_main_row(organ.replace("_", " "), row, row["counted"], missing, with_baseline))
    groups = {name: row for name, row in cohort["groups"].items() if len(row["organs"]) > 1}
    for name, row in groups.items():
        label = _GROUP_NAMES.get(name, f"**mean of the {len(row['organs'])} measured organs**")
        rows.append(_main_row(label, row, row["consensus"]["n"], row["missing_hd95"], with_baseline))
    return _table(header, rows)


def _baseline(row: Json) -> str:
    """The baseline's mean; where it was measured on fewer cases, on how many."""
    n = row["baseline"]["n"]
    return _mean_sd(row["baseline"]) + (f" (n = {n})" if 0 < n < row["consensus"]["n"] else "")


def _main_row(name: str, row: Json, count: int, missing: int, with_baseline: bool) -> list[str]:
    cells = [name, str(count)]
    cells += [_mean(row[key]) for key in ("single", "top_ranked")]
    cells += [_mean_sd(row["consensus"]), _mean(row["oracle"])]
    cells += [_baseline(row)] if with_baseline else []
    return [*cells, _mean_sd(row["hd95_mm"], 1), str(missing), _mean(row["surface_dice"])]


def _differences(cohort: Json) -> str:
    """Paired differences over patients: what is better, and whether the patients agree on it."""
    lines = []
    for name, row in cohort["groups"].items():
        group = _GROUP_NAMES.get(name, "mean of the measured organs").strip("*")
        for key, words in (
            ("consensus_minus_single", "consensus − single proposal"),
            ("consensus_minus_baseline", "consensus − baseline"),
        ):
            if row[key]:
                lines.append(f"- {words}, {group}: {_difference(row[key])}")
    difference = cohort["control"]["oracle_minus_jitter"]
    if difference:
        lines.append(f"- oracle − jitter oracle, all organs: {_difference(difference)}")
    if not lines:
        return ""
    return "Paired over patients, with a 95 % bootstrap interval:\n\n" + "\n".join(lines)


def _difference(row: Json) -> str:
    return f"{row['mean']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f}, n = {row['n']})"


def _plots(cohort: Json) -> str:
    words = {
        "dice": "Dice by organ",
        "calibration": "Calibration of the mean probability",
        "disagreement": "Error against disagreement",
    }
    return "\n\n".join(f"![{words[kind]}](plots/{file})" for kind, file in cohort["plots"].items())


def _control(control: Json) -> str:
    if not control["all"]["tried"]:
        return ""
    header = ["organ", "matched", "pairwise Dice", "of the jitter", "single", "jittered", "oracle"]
    header += ["jitter oracle", "oracle wins"]
    rows = [_control_cells(organ.replace("_", " "), row) for organ, row in control["organs"].items()]
    rows.append(_control_cells("**all**", control["all"]))
    return "### Does the best proposal beat random jitter?\n\n" + _table(header, rows)


def _control_cells(name: str, row: Json) -> list[str]:
    keys = ("pairwise", "jitter_pairwise", "single", "jitter_single", "oracle", "jitter_oracle")
    means = [_mean(row[key]) for key in keys]
    return [name, f"{row['matched']} of {row['tried']}", *means, f"{row['wins']} of {row['matched']}"]


def _proposal_table(cohort: Json) -> str:
    """How different the proposals are, how well calibrated, how fast."""
    if not cohort["calibration"]["reliability"]:
        return ""
    header = [
        "organ",
        "pairwise Dice",
        "distinct",
        "all empty",
        "at 0.5",
        "ECE",
        "Brier",
        "ρ disagreement–error",
        "s",
    ]
    rows = []
    for organ, row in cohort["organs"].items():
        cells = [organ.replace("_", " "), _mean(row["pairwise"]), _mean(row["distinct"], 1)]
        cells += [f"{row['all_empty']} of {row['counted']}", _mean(row["consensus_at_half"])]
        cells += [_mean(row["ece"], 4), _mean(row["brier"], 4), _mean(row["disagreement_error_rho"], 2)]
        rows.append([*cells, _mean(row["seconds"], 1)])
    ranking, ece = cohort["ranking"], cohort["calibration"]["pooled_ece"]
    words = (
        f"Over all voxels of all boxes: ECE {ece:.4f}. "
        "The model's own score against the real Dice (Spearman): "
        f"{_mean(ranking['within_answers'], 2)} within one answer, {_number(ranking['over_all'], 2)} over "
        f"all answers. Preparing a scan took {_mean(cohort['seconds_prepare'], 1)} s on average; *s* is the "
        "time for all proposals of one organ after that. *at 0.5*: Dice of the mean probability cut at one "
        "half, for comparison with the consensus. *all empty*: answers without a single voxel."
    )
    return "### The proposals\n\n" + _table(header, rows) + "\n\n" + words


def _absent(cohort: Json) -> str:
    """Organs that the labels say are not there."""
    rows = []
    for organ, row in cohort["organs"].items():
        right, wrong = row["outcomes"]["correctly absent"], row["outcomes"]["false positive"]
        if right or wrong:
            volumes = ", ".join(f"{ml:.1f}" for ml in row["false_positive_ml"]) or "–"
            rows.append([organ.replace("_", " "), str(right), str(wrong), volumes])
    if not rows:
        return ""
    header = ["organ", "correctly absent", "invented", "invented volume, ml"]
    return "### Organs that are annotated and not there\n\n" + _table(header, rows)


def _paraphrases(rows: Json) -> str:
    if not rows:
        return ""
    header = ["organ", "n", "mean", "worst wording", "worst per patient", "not understood"]
    body = []
    for organ, row in rows.items():
        cells = [organ.replace("_", " "), str(row["n"])]
        cells += [_number(row[key]) for key in ("mean", "worst_wording", "worst_per_patient")]
        body.append([*cells, "; ".join(f"“{w}”" for w in row["not_understood"]) or "–"])
    keys = ("mean", "worst_wording", "worst_per_patient")
    means = [_number(sum(row[key] for row in rows.values()) / len(rows)) for key in keys]
    body.append(["**mean over organs**", "", *means, ""])
    words = (
        "Dice of one proposal from the same noise for each of ten held-out wordings of the prompt, through "
        "the prompt parser. *worst wording*: the wording with the lowest mean over patients; *worst per "
        "patient*: each patient's own worst, averaged. A wording that is not understood counts as Dice 0."
    )
    return "### Other words for the same organ\n\n" + words + "\n\n" + _table(header, body)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _mean(row: Json, digits: int = 3) -> str:
    return _number(row["mean"], digits)


def _mean_sd(row: Json, digits: int = 3) -> str:
    spread = "" if row["sd"] is None else f" ± {row['sd']:.{digits}f}"
    return _mean(row, digits) + spread
