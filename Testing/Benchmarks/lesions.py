"""Findings on phantoms: does a model that draws "liver tumor" find lesions, and leave healthy organs alone?

    python Testing/Benchmarks/lesions.py --model textdiffseg-abdomen-small --output DIR [--phantoms 4]

Every phantom is measured twice: with one lesion in the liver, the pancreas and each kidney, and without any,
where the right answer is "nothing here". Seeds are those that no training draws. Nothing here is a patient's:
the figures say that the vocabulary works, not how the model does on real tumors.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from progidiff.errors import UsageError
from progidiff.evaluation import PhantomCase, evaluate, write_report
from progidiff.evaluation.records import CaseRecord
from progidiff.prompts import organ_table
from progidiff.segmenter_factory import load_segmenter
from progidiff.training.lesions import add_lesion
from progidiff.volumes import Volume

_FIRST_SEED = 930_000


@dataclass(frozen=True)
class LesionPhantom(PhantomCase):
    """A phantom that is asked for findings only.

    Attributes:
        lesions: whether its organs carry any; else the right answer is "nothing here".
    """

    lesions: bool = True

    @property
    def id(self) -> str:
        return f"{super().id}_{'lesions' if self.lesions else 'healthy'}"

    @property
    def organs(self) -> tuple[str, ...]:
        return ()

    @property
    def findings(self) -> tuple[str, ...]:
        return organ_table().finding_ids

    def load(self, findings: bool = False) -> tuple[Volume, Volume]:
        image, organs = super().load()
        label = organs
        for finding in organ_table().findings if self.lesions else ():
            with contextlib.suppress(UsageError):  # too little of the organ: it stays healthy
                image, grown = add_lesion(image, organs, finding.within, self.seed)
                marked = np.where(grown.array == finding.label, grown.array, label.array)
                label = Volume(marked, label.affine, name=label.name)
        return image, label if findings else organs


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="textdiffseg")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--phantoms", type=int, default=4, help="how many of CT and of MR (default 4)")
    parser.add_argument("--proposals", type=int, default=3)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    cases = [
        LesionPhantom(_FIRST_SEED + n, modality, lesions)  # type: ignore[arg-type]
        for modality in ("CT", "MR")
        for n in range(options.phantoms)
        for lesions in (True, False)
    ]
    found = evaluate(
        load_segmenter(options.model, options.device), cases, options.output, proposals=options.proposals
    )
    command = shlex.join(["python", *sys.argv])
    write_report(found.records, found.settings, options.output, command=command)
    text = "\n".join(table(found.records))
    (options.output / "lesions.md").write_text(f"`{command}`\n\n{text}\n", encoding="utf-8")
    print(text)
    return 0


def table(records: list[CaseRecord]) -> list[str]:
    """Markdown: what is found of the lesions that are there, and what is drawn where there are none."""
    lines = [
        "| phantoms | finding | lesions | touched | Dice | healthy, left alone | drawn in healthy, ml |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for modality in ("CT", "MR"):
        for finding in organ_table().findings:
            seen = [
                organ
                for record in records
                for organ in record.organs
                if organ.organ == finding.id and f"_{modality.lower()}_" in record.case
            ]
            sick = [organ for organ in seen if organ.reference_ml]
            healthy = [organ for organ in seen if not organ.reference_ml]
            dice = [organ.dice or 0.0 for organ in sick]
            alone = sum(not organ.prediction_ml for organ in healthy)
            drawn = float(np.mean([organ.prediction_ml for organ in healthy])) if healthy else 0.0
            lines.append(
                f"| {modality} | {finding.name} | {len(sick)} | {sum(d > 0 for d in dice)} | "
                f"{np.mean(dice) if dice else 0.0:.2f} | {alone} of {len(healthy)} | {drawn:.1f} |"
            )
    return lines


if __name__ == "__main__":
    sys.exit(main())
