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
    report = write_report(found.records, found.settings, options.output, command=command)
    for name, cohort in report["cohorts"].items():
        for organ, row in cohort["organs"].items():
            print(name, organ, row["consensus"]["mean"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
