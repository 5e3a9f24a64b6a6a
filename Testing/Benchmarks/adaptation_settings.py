"""Settings of few-shot adaptation, quickly: only the image encoder learns, only its organ head is measured.

    python Testing/Benchmarks/adaptation_settings.py --data shared/data --output DIR [--seconds 100]

Every row teaches LoRA on the image encoder with the three patients of draw 0 of `adaptation_mr.py`, for equal
time, and measures the organ head's Dice on the same ten test patients. A row takes minutes instead of the
quarter of an hour of a whole cell, so that many settings can be tried; what wins here is then measured there.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from adaptation_methods import PlainUNet
from adaptation_mr import MOST, library, open_experiment
from progidiff.adaptation import lora_training
from progidiff.adaptation.lessons import Lessons
from progidiff.adaptation.settings import AdaptSettings
from progidiff.adaptation.teaching import whole
from progidiff.evaluation.evaluate import plain_target
from progidiff.prompts import organ_table
from progidiff.proposals import dice
from progidiff.segmenter import Segmenter
from progidiff.training.loop import train

SETTINGS: dict[str, dict[str, Any]] = {
    "batch 16, rate 1e-3": {"batch": 16, "encoder_learning_rate": 1e-3},
    "batch 8, rate 1e-3": {"batch": 8, "encoder_learning_rate": 1e-3},
    "batch 16, rate 3e-3": {"batch": 16, "encoder_learning_rate": 3e-3},
    "batch 6, rate 2e-3": {"batch": 6, "encoder_learning_rate": 2e-3},
    "batch 8, rate 2e-3": {"batch": 8, "encoder_learning_rate": 2e-3},
    "batch 8, rate 2e-3, rank 4": {"rank": 4},
    "batch 8, rate 2e-3, rank 16": {"rank": 16},
    "batch 8, rate 2e-3, no random appearance": {"appearance": 0.0},
    "batch 8, rate 2e-3, full random appearance": {"appearance": 1.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=100.0, help="of training a row")
    parser.add_argument("--only", nargs="+", default=list(SETTINGS))
    options = parser.parse_args()
    usual = {"minutes": 15.0, "draws": 1, "proposals": 1, "ct_cases": "0"}
    experiment = open_experiment(argparse.Namespace(**vars(options), **usual))
    order = np.random.default_rng([7, 0]).permutation(sorted(experiment.patients)).tolist()
    by_source = {case.source: case for case in library(experiment).cases()}
    taught = [by_source[patient] for patient in order[:3]]
    test = [experiment.patients[patient] for patient in order[MOST:]]
    segmenter = experiment.load()
    organs = sorted(
        {organ for case in test for organ in case.organs}, key=lambda o: organ_table().by_id(o).label
    )
    print(f"| settings | steps | {' | '.join(organs)} | mean |")
    print("| --- |" + " --- |" * (len(organs) + 2))
    print(row("the model alone", 0, measure(segmenter, test, organs)), flush=True)
    for name in options.only:
        settings = AdaptSettings(**SETTINGS[name])
        steps, tensors = teach(segmenter, taught, settings, options.seconds, options.output / "work" / name)
        segmenter.put_on(tensors, name)
        print(row(name, steps, measure(segmenter, test, organs)), flush=True)
        segmenter.unload_adapter()


def teach(
    segmenter: Segmenter, cases: list[Any], settings: AdaptSettings, seconds: float, work: Path
) -> tuple[int, dict[str, Any]]:
    """Steps done and the low-rank matrices."""
    lessons, steps = Lessons(segmenter.pipeline, settings, work), [0]
    packed = [lessons.pack(whole(case)) for case in cases]
    with lora_training.attached(segmenter.pipeline, settings.rank, settings.encoder, settings.seed):
        stage = lessons.seeing_stage([*packed, *lessons.phantoms], settings.appearance)
        schedule = lessons.schedule("see", 100_000, settings.seed)
        train(
            stage,
            replace(schedule, max_minutes=seconds / 60, ema_decay=0.99),
            work,
            on_progress=lambda report: steps.__setitem__(0, report.step),
            device="cpu" if segmenter.device == "cpu" else "cuda",
        )
        return steps[0], lora_training.state(segmenter.pipeline)


def measure(segmenter: Segmenter, cases: list[Any], organs: list[str]) -> np.ndarray:
    """(organs,) mean Dice of the organ head's masks."""
    found: list[list[float]] = []
    for case in cases:
        image, label = case.load()
        model = PlainUNet(segmenter)
        prepared = model.prepare(image)
        answers = [model.propose(prepared, plain_target(organ)).consensus for organ in organs]
        masks = [answer.mask if answer is not None else np.zeros(label.shape, np.bool_) for answer in answers]
        truths = [label.array == organ_table().by_id(organ).label for organ in organs]
        found.append([dice(mask, truth) for mask, truth in zip(masks, truths, strict=True)])
    return np.mean(found, 0)


def row(name: str, steps: int, values: np.ndarray) -> str:
    """One line of the table."""
    return f"| {name} | {steps} | {' | '.join(f'{v:.3f}' for v in values)} | {values.mean():.4f} |"


if __name__ == "__main__":
    sys.exit(main())
