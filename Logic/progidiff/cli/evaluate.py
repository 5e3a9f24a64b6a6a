"""`progidiff evaluate`: a model and labelled cases in, a report out."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from progidiff.cli.arguments import some_path
from progidiff.cli.ids import listed
from progidiff.errors import CasesError, UsageError
from progidiff.output_folder import check_output
from progidiff.quality import check_numbers

if TYPE_CHECKING:
    from progidiff.evaluation import Evaluation, LabelMapPredictor, Settings
    from progidiff.evaluation.evaluate import EvaluationCase
    from progidiff.evaluation.records import CaseRecord, Json
    from progidiff.segmenter import Segmenter

SUMMARY = "measure a model on labelled cases and write a report"
_FIRST_PHANTOM = 900_000
"""Seed of the first phantom: far from those that training draws."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "data",
        nargs="*",
        type=some_path,
        metavar="DATA",
        help="folder with labelled cases; several may be given",
    )
    add(
        "--output",
        required=True,
        type=some_path,
        metavar="DIR",
        help="folder for the report; a re-run resumes",
    )
    add("--model", default="embedded", metavar="NAME_OR_PATH", help="see `progidiff models`")
    add("--adapter", default="", metavar="PATH", help="folder of an adapter to put on the model")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:<n> (default auto)")
    add("--proposals", type=int, default=5, metavar="N", help="how many proposals per organ (default 5)")
    add("--steps", type=int, metavar="N", help="denoising steps (default: the model's own)")
    add("--seed", type=int, default=0, help="of proposals and of the jitter control (default 0)")
    add("--cases", default="", metavar="IDS", help="case ids joined by commas, or a file with one a line")
    add("--organs", default="", metavar="NAMES", help="organs and findings joined by commas (default: all)")
    add("--max-cases", type=int, metavar="N", help="only the first N cases")
    add("--phantoms", type=int, default=0, metavar="N", help="also measure N phantoms each of CT and MR")
    add("--paraphrases", type=int, default=0, metavar="N", help="try ten wordings on the first N cases")
    add("--tolerance", type=float, default=2.0, metavar="MM", help="of the surface Dice (default 2 mm)")
    add("--labels-by", default="", metavar="TEXT", help="who made the labels, for the report")
    add(
        "--predictions",
        type=some_path,
        metavar="DIR",
        help="measure label maps CASE.nii.gz instead of a model",
    )
    add("--predictions-name", default="", metavar="TEXT", help="what the report calls their maker")
    add("--baseline", type=some_path, metavar="DIR", help="output of another evaluation, to put beside")
    add(
        "--join",
        nargs="+",
        type=some_path,
        default=[],
        metavar="DIR",
        help="outputs of other folds, to include",
    )


def run(options: argparse.Namespace) -> int:
    """Checks what can be checked at once, measures, and writes the report.

    Returns:
        1 if a case could not be measured, which the report then says.
    """
    from progidiff.evaluation import write_report
    from progidiff.evaluation.learnt import learnt_cases
    from progidiff.evaluation.records import read_report
    from progidiff.training.cases import measurable_cases

    _check_options(options)
    check_output(options.output)
    baseline = read_report(options.baseline) if options.baseline else None
    joined = [read_report(folder) for folder in options.join]
    evaluation = _measure(options) if options.data or options.phantoms else _nothing_new(joined)
    records = [*(record for fold in joined for record in fold["records"]), *evaluation.records]
    failures = {**{k: v for fold in joined for k, v in fold["failures"].items()}, **evaluation.failures}
    for case, reason in failures.items():
        print(f"Not measured: {case}: {reason}")
    _require_figures(records)
    taught = set() if options.predictions else learnt_cases(options.model)
    names = {case.id: case.known_as for case in measurable_cases(options.data)} if taught else {}
    learnt = {r.case for r in evaluation.records if names.get(r.case, {r.case}) & taught}
    learnt.update(case for fold in joined for case in fold.get("learnt_from", []))
    report = write_report(
        records,
        _common_settings(evaluation, joined),
        options.output,
        command=shlex.join(["progidiff", *sys.argv[1:]]),
        baseline=baseline,
        failures=failures,
        learnt_from=sorted(learnt),
    )
    _print_summary(report, options.output)
    return 1 if failures else 0


def _check_options(options: argparse.Namespace) -> None:
    check_numbers(options.proposals, options.steps, options.seed)
    if not (options.data or options.phantoms or options.join):
        raise UsageError("There is nothing to measure.", "Give a data folder, --phantoms or --join.")
    if options.max_cases is not None and options.max_cases < 1:
        raise UsageError(f"--max-cases is {options.max_cases}.", "Give a number of 1 or more.")
    if options.phantoms < 0 or options.paraphrases < 0:
        raise UsageError("A number of cases is negative.", "Give 0 or more.")
    if not 0 < options.tolerance < 100:
        raise UsageError(f"The tolerance is {options.tolerance} mm.", "Give some millimetres, such as 2.")


def _measure(options: argparse.Namespace) -> Evaluation:
    from progidiff.evaluation import evaluate

    organs = _organ_ids(options.organs)
    cases, model = _cases(options), _model(options)
    _require_annotated(organs, cases, model.findings)
    return evaluate(
        model,
        cases,
        options.output,
        proposals=options.proposals,
        steps=options.steps,
        seed=options.seed,
        organs=organs,
        tolerance_mm=options.tolerance,
        paraphrase_cases=options.paraphrases,
        labels_by=options.labels_by,
        on_case=_print_case,
    )


def _model(options: argparse.Namespace) -> Segmenter | LabelMapPredictor:
    if options.predictions:
        from progidiff.evaluation import LabelMapPredictor

        return LabelMapPredictor(options.predictions, options.predictions_name)
    from progidiff.segmenter_factory import load_segmenter

    return load_segmenter(options.model, options.device, options.adapter)


def _cases(options: argparse.Namespace) -> list[EvaluationCase]:
    """The labelled cases of the data folders that were asked for, then the phantoms."""
    from progidiff.evaluation import PhantomCase
    from progidiff.training.cases import measurable_cases

    chosen = measurable_cases(options.data, listed(options.cases))[: options.max_cases]
    seeds = range(_FIRST_PHANTOM, _FIRST_PHANTOM + options.phantoms)
    return [*chosen, *(PhantomCase(s, "CT") for s in seeds), *(PhantomCase(s, "MR") for s in seeds)]


def _require_annotated(organs: Sequence[str], cases: Sequence[EvaluationCase], drawn: Sequence[str]) -> None:
    """Raises CasesError unless a case annotates something that is asked for and that the model draws."""
    annotated = {o for case in cases for o in (*case.organs, *(set(case.findings) & set(drawn)))}
    if organs and cases and not annotated & set(organs):
        raise CasesError(
            f"No case annotates {' or '.join(organs)}, or the model does not draw it.",
            "Choose others with --organs, or other cases.",
        )


def _require_figures(records: Sequence[CaseRecord]) -> None:
    """Raises CasesError where cases were read but nothing in them was measured."""
    if records and not any(record.organs for record in records):
        raise CasesError(
            "No organ was measured in any case.", "Choose others with --organs, or read the reasons above."
        )


def _organ_ids(text: str) -> list[str]:
    from progidiff.prompts import organ_table
    from progidiff.prompts.organ_table import name_key

    organs = []
    for name in listed(text):
        finding = (f for f in organ_table().findings if name_key(name) in (name_key(f.id), name_key(f.name)))
        organ = organ_table().by_name(name) or next(finding, None)
        if organ is None:
            known = ", ".join(o.name for o in (*organ_table().organs, *organ_table().findings))
            raise UsageError(f"“{name}” is not an organ of the table.", f"Choose from: {known}.")
        organs.append(organ.id)
    return organs


def _nothing_new(joined: Sequence[Json]) -> Evaluation:
    from progidiff.evaluation import Evaluation, Settings

    settings = joined[0]["settings"]
    return Evaluation(Settings(**{**settings, "organs": tuple(settings["organs"])}), [], {})


def _common_settings(evaluation: Evaluation, joined: Sequence[Json]) -> Settings:
    """The settings of all parts; parts measured differently make no common table."""
    own = {**asdict(evaluation.settings), "organs": list(evaluation.settings.organs)}
    for fold in joined:
        different = sorted(name for name in own if fold["settings"][name] != own[name])
        if different:
            raise UsageError(
                f"The evaluations to join differ in {', '.join(different)}.",
                "Measure all of them with the same settings.",
            )
    return evaluation.settings


def _print_case(record: CaseRecord, known: bool) -> None:
    dices = [organ.dice for organ in record.organs if organ.dice is not None]
    mean = f"{sum(dices) / len(dices):.3f}" if dices else "–"
    seconds = record.seconds_prepare + sum(organ.seconds for organ in record.organs)
    how = "measured before" if known else f"{seconds:.0f} s"
    print(f"{record.case}: consensus Dice {mean} over {len(dices)} organs ({how})", flush=True)


def _print_summary(report: Json, output: Path) -> None:
    for name, cohort in report["cohorts"].items():
        for group, row in cohort["groups"].items():
            mean, single = row["consensus"]["mean"], row["single"]["mean"]
            if mean is not None:
                print(
                    f"{name}, {group}: consensus {mean:.3f}, single {single:.3f}, n = {row['consensus']['n']}"
                )
    if report["learnt_from"]:
        print(f"No measure of new patients: the model learnt from {', '.join(report['learnt_from'])}")
    print(f"Report in {output / 'report.md'}")
