"""What each choice made when sampling is worth: the same cases with one thing changed at a time.

    python Testing/Benchmarks/choices.py DATA --model NAME --cases IDS --output DIR [--organs IDS]

Prints a Markdown table and keeps it as `choices.md`; what an earlier run has measured is not measured again.
What differs in training (frozen or not, v or x0) needs a model of its own for each row: train it with the
configuration in question and name it by --model.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from progidiff.cli.ids import listed
from progidiff.evaluation import evaluate
from progidiff.evaluation.records import CaseRecord
from progidiff.pipelines.doubt import doubted
from progidiff.segmenter import OrganCrop, Segmenter
from progidiff.training.cases import measurable_cases

_DOUBT = 1.0  # logits

Change = Callable[[Segmenter], None]


def as_it_is(segmenter: Segmenter) -> None:
    """Changes nothing."""


def without_refiner(segmenter: Segmenter) -> None:
    """The decoded latents are the mask."""
    for parameter in segmenter.pipeline.refiner.last.parameters():
        torch.nn.init.zeros_(parameter)


def without_coarse_pass(segmenter: Segmenter) -> None:
    """The locator only finds the window."""
    segmenter.pipeline.register_to_config(coarse_weight=0.0)


def without_fresh_noise(segmenter: Segmenter) -> None:
    """Deterministic steps (DDIM, Song et al., 2021): proposals differ by their first noise alone."""
    segmenter.pipeline.register_to_config(eta=0.0)


def slices_apart(segmenter: Segmenter) -> None:
    """Every slice gets a noise of its own, as if slices were single images."""
    pipeline: Any = segmenter.pipeline
    pipeline.noise = partial(_independent_noise, pipeline)


def _independent_noise(
    pipeline: Any, features: Any, slice_mm: float, generator: torch.Generator
) -> torch.Tensor:
    slices, _, height, width = features.control.shape
    shape = (slices, pipeline.unet.config.in_channels, height, width)
    return torch.randn(shape, generator=generator).to(pipeline.device)


def first_step_apart(segmenter: Segmenter) -> None:
    """Every proposal asks the network in its first step too, where its noise says nothing of the mask."""
    pipeline: Any = segmenter.pipeline
    pipeline.first_sight = lambda *_: None


def with_doubt(segmenter: Segmenter) -> None:
    """Every proposal reads the image in its own way, as varied ones do."""
    draw = segmenter._draw

    def doubtful(crop: OrganCrop, text: Any, first: Any, origin: Any, *rest: Any) -> Any:
        seen = doubted(crop.features, _DOUBT, crop.slice_spacing, origin.seed)
        return draw(replace(crop, features=seen), text, None, origin, *rest)

    segmenter._draw = doubtful  # type: ignore[method-assign]


CHOICES: dict[str, tuple[int | None, Change]] = {
    "as it ships": (None, as_it_is),
    "1 step": (1, as_it_is),
    "4 steps": (4, as_it_is),
    "8 steps": (8, as_it_is),
    "without refiner": (None, without_refiner),
    "without coarse pass": (None, without_coarse_pass),
    "without fresh noise": (None, without_fresh_noise),
    "noise of each slice apart": (None, slices_apart),
    "first step of each proposal apart": (None, first_step_apart),
    "with doubt": (None, with_doubt),
}


def row(name: str, records: list[CaseRecord]) -> str:
    """One line of the table: means over all organs of all cases."""
    organs = [organ for record in records for organ in record.organs if organ.counted]

    def mean(what: str) -> str:
        values = [v for organ in organs if (v := getattr(organ, what)) is not None]
        return f"{np.mean(values):.3f}" if values else "–"

    seconds = np.mean([organ.seconds for organ in organs])
    figures = " | ".join(mean(what) for what in ("single", "dice", "best", "pairwise"))
    return f"| {name} | {figures} | {seconds:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--cases", required=True, help="case ids joined by commas, or a file")
    parser.add_argument("--organs", default="", help="organ ids joined by commas; all that are annotated")
    parser.add_argument("--proposals", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=list(CHOICES), choices=list(CHOICES))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    cases = measurable_cases([options.data], listed(options.cases))
    lines = [
        "| | one proposal | consensus | best | alike (pairwise Dice) | seconds an organ |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in options.only:
        steps, change = CHOICES[name]
        segmenter = Segmenter.load(options.model, options.device)
        change(segmenter)
        found = evaluate(
            segmenter,
            cases,
            options.output / name.replace(" ", "-"),
            proposals=options.proposals,
            steps=steps,
            organs=[o for o in options.organs.split(",") if o],
        )
        lines.append(row(name, found.records))
        print(lines[-1], flush=True)
        (options.output / "choices.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
