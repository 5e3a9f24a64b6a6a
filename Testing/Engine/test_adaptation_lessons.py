"""The two trainings: low-rank layers alone, on the cases alone, do learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from adaptation_samples import SETTINGS, library, tiny_segmenter
from progidiff.adaptation import lora_training
from progidiff.adaptation.lessons import Lessons
from progidiff.adaptation.progress import AdaptProgress, Meter
from progidiff.adaptation.settings import AdaptSettings
from progidiff.adaptation.teaching import split


def lessons_and_cases(tmp_path: Path, settings: AdaptSettings) -> tuple[Any, Lessons, list, list]:
    segmenter = tiny_segmenter()
    lessons = Lessons(segmenter.pipeline, settings, tmp_path / "work")
    parts = split(library(tmp_path / "cases", 3).cases())
    return (
        segmenter,
        lessons,
        [lessons.pack(p) for p in parts.train],
        [lessons.pack(p) for p in parts.held_out],
    )


@pytest.mark.parametrize("kind", ["find", "draw"])
def test_the_held_out_loss_falls(tmp_path: Path, kind: str) -> None:
    settings = replace(
        SETTINGS,
        rank=4,
        batch=4,
        locator_batch=4,
        learning_rate=1e-2,
        locator_learning_rate=1e-2,
        appearance=0.0,
    )
    segmenter, lessons, teaching, judging = lessons_and_cases(tmp_path, settings)
    reports: list[AdaptProgress] = []
    meter = Meter(reports.append, 60.0)
    meter.begin(kind)
    with lora_training.attached(segmenter.pipeline, settings.rank):
        start = lora_training.state(segmenter.pipeline)
        fitted = lessons.train(kind, teaching, judging, 30, meter, lambda: False)
        end = lora_training.state(segmenter.pipeline)
    assert fitted is not None
    assert fitted.losses[-1][1] < 0.95 * fitted.losses[0][1]
    parts = {name.split(".")[0] for name in end if not end[name].equal(start[name])}
    assert parts == ({"locator"} if kind == "find" else {"controlnet", "image_encoder", "refiner"})


def test_nothing_to_teach_is_no_training(tmp_path: Path) -> None:
    segmenter, lessons, teaching, judging = lessons_and_cases(tmp_path, SETTINGS)
    with lora_training.attached(segmenter.pipeline, 2):
        thin = [replace(teaching[0], spacing=(1.0, 10.0, 10.0))]  # the slab is too thin for the locator
        assert lessons.train("find", thin, [], 5, Meter(None, 1.0), lambda: False) is None
        assert lessons.train("draw", teaching, judging, 0, Meter(None, 1.0), lambda: False) is None


def test_phantoms_are_mixed_in_against_forgetting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from adaptation_samples import scan
    from progidiff.adaptation import lessons as file
    from progidiff.volumes.volume import Volume

    def phantom(seed: int, modality: str, *_: Any) -> tuple[Volume, Volume]:
        image, ball = scan(seed)
        return replace(image, modality=modality), Volume((6 * ball).astype("uint8"), image.affine)  # type: ignore[arg-type]

    monkeypatch.setattr(file, "make_phantom", phantom)
    _, lessons, teaching, _ = lessons_and_cases(tmp_path, replace(SETTINGS, phantoms=2))
    assert [p.domain for p in lessons.phantoms] == ["phantom"] * 4
    stage: Any = lessons.drawing_stage([*teaching, *lessons.phantoms], 0.0)
    phantoms = sum(
        s for (c, _), s in zip(stage.slices.pairs, stage.slices.share, strict=True) if c >= len(teaching)
    )
    assert phantoms == pytest.approx(1 / 6)
