"""Several evaluations in one table, over the cases and organs that all of them measured.

    python Testing/Benchmarks/side_by_side.py "whole model=REPORT" "without text=REPORT" … [--group all_13]

Prints Markdown: each patient's mean over the organs of the group, then the mean of the patients; and how
the consensus differs from that of the first report, paired over patients, with a 95 % bootstrap interval.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from progidiff.evaluation.cohorts import SYNAPSE_ORGANS
from progidiff.evaluation.records import CaseRecord, read_report
from progidiff.evaluation.summary import VALUES, paired_difference, patient_means
from progidiff.prompts import organ_table

GROUPS = {
    "synapse_8": tuple(SYNAPSE_ORGANS),
    "all_13": tuple(organ.id for organ in organ_table().organs),
}
_COLUMNS = ("single", "consensus", "oracle", "pairwise")


def table(reports: dict[str, list[CaseRecord]], organs: tuple[str, ...]) -> list[str]:
    """Markdown, a row a report; the first one is what the others are compared with."""
    lines = [
        "| | one proposal | consensus | best (oracle) | alike (pairwise) | consensus against the first |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    first = patient_means(next(iter(reports.values())), organs, VALUES["consensus"])
    for number, (name, records) in enumerate(reports.items()):
        means = {column: patient_means(records, organs, VALUES[column]) for column in _COLUMNS}
        cells = [f"{np.mean(list(means[c].values())):.3f}" if means[c] else "–" for c in _COLUMNS]
        cells.append(difference(means["consensus"], first) if number else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def shared(reports: dict[str, list[CaseRecord]]) -> dict[str, list[CaseRecord]]:
    """The same reports with only what every one of them measured."""
    everywhere = set.intersection(
        *({(r.case, o.organ) for r in records for o in r.organs} for records in reports.values())
    )
    return {
        name: [replace(r, organs=[o for o in r.organs if (r.case, o.organ) in everywhere]) for r in records]
        for name, records in reports.items()
    }


def difference(one: dict[str, float], other: dict[str, float]) -> str:
    """ "+0.012 (-0.003 to +0.020)", or a dash for too few patients."""
    found = paired_difference(one, other)
    return "–" if found is None else f"{found['mean']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reports", nargs="+", metavar="NAME=REPORT", help="outputs of `progidiff evaluate`")
    parser.add_argument("--group", choices=list(GROUPS), default="synapse_8")
    options = parser.parse_args()
    named = (entry.partition("=")[::2] for entry in options.reports)
    reports = {name: read_report(Path(folder))["records"] for name, folder in named}
    print("\n".join(table(shared(reports), GROUPS[options.group])))


if __name__ == "__main__":
    main()
