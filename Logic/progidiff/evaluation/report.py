"""Writes an evaluation down: `report.json` for programs, `report.md` and plots for people."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from progidiff import __version__
from progidiff.errors import CasesError
from progidiff.evaluation.evaluate import Settings
from progidiff.evaluation.markdown import render
from progidiff.evaluation.metrics import implementation
from progidiff.evaluation.plots import draw_plots
from progidiff.evaluation.records import CaseRecord, Json, rounded, write_json, write_text
from progidiff.evaluation.summary import summarise_cohorts


def write_report(
    records: Sequence[CaseRecord],
    settings: Settings,
    output: Path,
    *,
    command: str,
    baseline: Json | None = None,
    failures: dict[str, str] | None = None,
    learnt_from: Sequence[str] = (),
) -> Json:
    """Writes ``report.json``, ``report.md`` and ``plots/`` into a folder.

    Args:
        records: the measured cases; folds of a cross-validation may be joined, each with its own model.
        settings: what they were measured with.
        command: the command line, to be repeated.
        baseline: `records.read_report` of another model's evaluation, put beside.
        failures: case id → why it was not measured.
        learnt_from: those of the cases that the model was trained on.

    Returns:
        What ``report.json`` says.

    Raises:
        CasesError: there is nothing to report, or a case occurs twice.
        OutputError: the folder cannot be written.
    """
    _check(records)
    report = build_report(records, settings, command, baseline, failures or {}, learnt_from)
    for name, cohort in report["cohorts"].items():
        members = [record for record in records if record.cohort == name]
        cohort["plots"] = draw_plots(name, cohort, members, output / "plots", _slug(name))
    write_json(report, output / "report.json")
    write_text(render(report), output / "report.md")
    return report


def build_report(
    records: Sequence[CaseRecord],
    settings: Settings,
    command: str,
    baseline: Json | None,
    failures: dict[str, str],
    learnt_from: Sequence[str],
) -> Json:
    """All facts and figures of a report as plain JSON."""
    beside = baseline["records"] if baseline else []
    return {
        "created": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command,
        "software": software_versions(),
        "models": _models(records),
        "steps": sorted({o.steps for r in records for o in r.organs if o.steps}),
        "baseline": _models(beside) if baseline else [],
        "settings": asdict(settings),
        "implementation": implementation(settings.tolerance_mm),
        "cohorts": rounded(summarise_cohorts(records, beside)),
        "failures": failures,
        "learnt_from": list(learnt_from),
        "cases": [record.to_json() for record in records],
    }


def software_versions() -> dict[str, str]:
    """Versions of what computed the figures."""
    import monai
    import torch

    return {
        "progidiff": __version__,
        "Python": platform.python_version(),
        "torch": str(torch.__version__),
        "MONAI": str(monai.__version__),
    }


def _check(records: Sequence[CaseRecord]) -> None:
    if not records:
        raise CasesError("No case could be measured.", "Read the reasons above and check the data folder.")
    names = [record.case for record in records]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CasesError(
            f"{', '.join(twice)} would count twice.", "Join only evaluations of different cases."
        )


def _models(records: Sequence[CaseRecord]) -> list[Json]:
    """Each model with the cases it answered for: several in a cross-validation."""
    models: dict[tuple[str, str, str], Json] = {}
    for record in records:
        entry = models.setdefault(
            (record.model, record.model_hash, record.device),
            {"id": record.model, "hash": record.model_hash, "device": record.device, "cases": []},
        )
        entry["cases"].append(record.case)
    return list(models.values())


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
