"""The three trainings: low-rank layers alone, on the cases alone, do learn."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adaptation_samples import SETTINGS, library, tiny_segmenter
from progidiff.adaptation import lora_training
from progidiff.adaptation.fitting import Fit
from progidiff.adaptation.lessons import Lessons
from progidiff.adaptation.progress import AdaptProgress, Meter
from progidiff.adaptation.settings import AdaptSettings
from progidiff.adaptation.teaching import split
from progidiff.errors import Cancelled
from safetensors import safe_open
from safetensors.torch import load_file


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


TRAINED = {
    "find": {"locator"},
    "see": {"image_encoder"},
    "draw": {"controlnet", "image_encoder", "refiner"},
}


@pytest.mark.parametrize("kind", TRAINED)
def test_the_held_out_loss_falls(tmp_path: Path, kind: str) -> None:
    settings = replace(
        SETTINGS,
        rank=4,
        batch=4,
        locator_batch=4,
        learning_rate=1e-2,
        locator_learning_rate=1e-2,
        encoder_learning_rate=1e-2,
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
    assert parts == TRAINED[kind]


@pytest.mark.parametrize("kind_of_model", ["ProGiDiff", "TextDiffSeg"])
def test_seeing_gives_gradients_to_the_encoders_low_rank_layers_only(
    tmp_path: Path, kind_of_model: str
) -> None:
    from textdiffseg_samples import tiny_pipeline

    pipeline = tiny_segmenter().pipeline if kind_of_model == "ProGiDiff" else tiny_pipeline()
    lessons = Lessons(pipeline, SETTINGS, tmp_path)
    _, _, teaching, _ = lessons_and_cases(tmp_path, SETTINGS)
    with lora_training.attached(pipeline, 2):
        stage = lessons.seeing_stage(teaching, 0.0)
        losses = stage(2, np.random.default_rng(0))
        assert set(losses) == {"organs"}
        losses["organs"].backward()
        moved = {
            f"{part}.{name}"
            for part, network in pipeline.components.items()
            if isinstance(network, torch.nn.Module)
            for name, parameter in network.named_parameters()
            if parameter.grad is not None
        }
    assert any(".lora_B." in name for name in moved)
    assert all(name.startswith("image_encoder.") and ".lora_" in name for name in moved)
    assert not any("lora" in name for name, _ in pipeline.image_encoder.named_parameters())
    assert not any(parameter.requires_grad for parameter in pipeline.image_encoder.parameters())


def test_seeing_that_did_not_help_leaves_the_model_as_it_was_for_drawing(tmp_path: Path) -> None:
    settings = replace(SETTINGS, encoder_learning_rate=1e3)  # makes everything worse
    segmenter, lessons, teaching, judging = lessons_and_cases(tmp_path, settings)
    meter = Meter(None, 60.0)
    with lora_training.attached(segmenter.pipeline, settings.rank):
        start = lora_training.state(segmenter.pipeline)
        fitted = lessons.train("see", teaching, judging, 4, meter, lambda: False)
        end = lora_training.state(segmenter.pipeline)
    assert fitted is not None
    assert fitted.steps == 0
    assert max(loss for _, loss in fitted.losses) > fitted.losses[0][1]
    assert all(end[name].equal(start[name]) for name in start)


def test_drawing_begins_where_seeing_ended(tmp_path: Path) -> None:
    settings = replace(SETTINGS, rank=4, batch=4, encoder_learning_rate=1e-2, appearance=0.0)
    segmenter, lessons, teaching, judging = lessons_and_cases(tmp_path, settings)

    def train(kind: str, steps: int) -> Fit:
        fitted = lessons.train(kind, teaching, judging, steps, Meter(None, 60.0), lambda: False)
        assert fitted is not None
        return fitted

    with lora_training.attached(segmenter.pipeline, settings.rank):
        begun_alone = lessons._held_out_loss("draw", judging)
        assert begun_alone is not None
        untaught = begun_alone()
        assert train("see", 20).steps > 0
        seen = begun_alone()
        assert train("draw", 1).losses[0][1] == seen != untaught


def test_the_held_out_loss_is_taken_on_the_same_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from progidiff.training.slice_data import OrganSlices, SliceBatch

    _, lessons, _, judging = lessons_and_cases(tmp_path, SETTINGS)
    drawn: list[tuple[float, SliceBatch]] = []
    own = OrganSlices.batch

    def batch(slices: OrganSlices, size: int, rng: np.random.Generator) -> SliceBatch:
        drawn.append((slices.appearance, own(slices, size, rng)))
        return drawn[-1][1]

    monkeypatch.setattr(OrganSlices, "batch", batch)
    loss = lessons._held_out_loss("see", judging)
    assert loss is not None
    assert loss() == loss()
    assert len(drawn) == 8
    assert {appearance for appearance, _ in drawn} == {0.0}
    images = [batch.image for _, batch in drawn]
    assert all(a.equal(b) for a, b in zip(images[:4], images[4:], strict=True))
    assert not any(images[0].equal(other) for other in images[1:4])


def test_a_cancelled_seeing_continues_as_if_nothing_had_been(tmp_path: Path) -> None:
    settings = replace(SETTINGS, batch=4, encoder_learning_rate=1e-2, appearance=0.0)
    segmenter, lessons, teaching, judging = lessons_and_cases(tmp_path, settings)

    def train(cancelled: Callable[[], bool]) -> Fit:
        fitted = lessons.train("see", teaching, judging, 8, Meter(None, 60.0), cancelled)
        assert fitted is not None
        return fitted

    asked = iter(range(1000))
    with lora_training.attached(segmenter.pipeline, settings.rank), pytest.raises(Cancelled):
        train(lambda: next(asked) >= 6)  # in the second round of two
    record = tmp_path / "work" / "see" / "rounds.json"
    before = json.loads(record.read_text(encoding="utf-8"))
    assert before["step"] == 4
    with safe_open(tmp_path / "work" / "see" / "checkpoint.safetensors", "pt") as file:
        reached = int(file.metadata()["step"])
    assert 4 < reached < 8
    with lora_training.attached(segmenter.pipeline, settings.rank):
        fitted = train(lambda: False)
        kept = lora_training.state(segmenter.pipeline)
    assert [list(entry) for entry in fitted.losses[:2]] == before["losses"]
    assert [step for step, _ in fitted.losses] == [0, 4, 8]
    best = load_file(tmp_path / "work" / "see" / "best.safetensors")
    assert best
    for name, tensor in best.items():
        layer, _, matrix = name.removesuffix(".adapter.weight").rpartition(".")
        assert kept[f"image_{layer}.{matrix}"].equal(tensor)


def test_textdiffseg_sees_through_the_same_path(tmp_path: Path) -> None:
    from textdiffseg_samples import packed_case, tiny_pipeline

    settings = replace(SETTINGS, rank=4, encoder_learning_rate=1e-2, appearance=0.0)
    pipeline = tiny_pipeline()
    lessons = Lessons(pipeline, settings, tmp_path)
    with lora_training.attached(pipeline, settings.rank):
        assert set(lessons.seconds_per_step([packed_case()])) == {"find", "see", "draw"}
        start = lora_training.state(pipeline)
        fitted = lessons.train(
            "see", [packed_case()], [packed_case(seed=1)], 12, Meter(None, 60.0), lambda: False
        )
        end = lora_training.state(pipeline)
    assert fitted is not None
    assert fitted.steps > 0
    assert fitted.losses[-1][1] < fitted.losses[0][1]
    assert {name.split(".")[0] for name in end if not end[name].equal(start[name])} == {"image_encoder"}


def test_nothing_to_teach_is_no_training(tmp_path: Path) -> None:
    segmenter, lessons, teaching, judging = lessons_and_cases(tmp_path, SETTINGS)
    with lora_training.attached(segmenter.pipeline, 2):
        thin = [replace(teaching[0], spacing=(1.0, 10.0, 10.0))]  # the slab is too thin for the locator
        assert lessons.train("find", thin, [], 5, Meter(None, 1.0), lambda: False) is None
        for kind in ("see", "draw"):
            assert lessons.train(kind, teaching, judging, 0, Meter(None, 1.0), lambda: False) is None


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
    for kind in ("see", "draw"):
        stage: Any = lessons._stage(kind, teaching, lessons.phantoms, 0.0)
        phantoms = sum(
            s for (c, _), s in zip(stage.slices.pairs, stage.slices.share, strict=True) if c >= len(teaching)
        )
        assert phantoms == pytest.approx(1 / 6)
