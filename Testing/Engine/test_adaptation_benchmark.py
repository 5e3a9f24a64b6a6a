"""The benchmark of adaptation, on a tiny model and invented patients: each cell runs, resumes, is told."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adaptation_samples import SETTINGS, scan, tiny_segmenter
from progidiff.adaptation import adapt as adapt_file
from progidiff.adaptation.settings import TRAININGS, AdaptSettings
from progidiff.volumes.volume import Volume

sys.path.append(str(Path(__file__).parent.parent / "Benchmarks"))

import adaptation_methods
import adaptation_mr
import adaptation_report
from adaptation_mr import BiasedCase, Experiment, bias_field, n4


@dataclass(frozen=True)
class Patient:
    seed: int
    organs: tuple[str, ...] = ("liver",)
    findings: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return f"p{self.seed:02d}"

    def load(self, findings: bool = False) -> tuple[Volume, Volume]:
        image, ball = scan(self.seed)
        return replace(image, name=self.id), Volume((6 * ball).astype(np.uint8), image.affine, "MR", self.id)


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    monkeypatch.setattr(adapt_file, "make_phantom", lambda *_: Patient(90).load())
    changes = {
        k: getattr(SETTINGS, k) for k in ("rank", "batch", "locator_batch", "phantoms", "proposals", "rounds")
    }
    changes |= {"most_steps": 2, "patch": (8, 8, 8)}
    patients = {p.id: p for p in map(Patient, range(7))}
    return Experiment(tmp_path, patients, [Patient(80)], tiny_segmenter, 0.01, 1, 1, changes)


def test_draws_share_their_test_patients_and_the_bound_tests_all(experiment: Experiment) -> None:
    cells = {cell.name: cell for cell in experiment.cells()}
    assert {cells[f"lora-k{k}-d0"].test for k in (1, 2, 3, 5)} == {cells["lora-k5-d0"].test}
    assert all(not set(c.teach) & set(c.test) for c in cells.values())
    assert [cells[f"full-k{k}-d0"].k for k in (1, 2, 3, 5)] == [1, 2, 3, 5]
    tested = [p for f in range(3) for p in cells[f"lora-all-f{f}"].test]
    assert sorted(tested) == sorted(experiment.patients)
    assert len(cells) == len(experiment.cells())


@pytest.mark.parametrize("name", adaptation_mr.VARIANTS)
def test_variants_change_settings_that_there_are(name: str) -> None:
    changed = replace(AdaptSettings(), **adaptation_mr.VARIANTS[name])
    assert changed != AdaptSettings()
    assert sum(changed.share(training) for training in TRAININGS) == pytest.approx(1.0)


def test_cells_run_once_and_end_in_a_report(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["base", "lora-k3-d0", "full-k1-d0", "unet-k1-d0", "scratch-k1-d0", "ct-adapter", "ct-bias"]
    for name in names:
        adaptation_mr.run_cell(experiment, name)
    monkeypatch.setattr(adaptation_mr, "train_and_measure", lambda *_: pytest.fail("measured twice"))
    adaptation_mr.run_cell(experiment, "lora-k3-d0")
    cell = json.loads((experiment.output / "cells" / "lora-k3-d0.json").read_text(encoding="utf-8"))
    assert {r["case"] for r in cell["records"]} == set(cell["test"])
    assert cell["learnt"]["training"]["steps"]["draw"] <= 2
    for name, seeing in (("full-k1-d0", True), ("unet-k1-d0", False), ("scratch-k1-d0", False)):
        learnt = json.loads((experiment.output / "cells" / f"{name}.json").read_text(encoding="utf-8"))[
            "learnt"
        ]
        assert list(learnt["planned"]) == ["find", "see", "draw"]
        assert (learnt["planned"]["see"] > 0) == seeing
        assert learnt["planned"]["draw"] > 0
    ct = json.loads((experiment.output / "cells" / "ct-adapter.json").read_text(encoding="utf-8"))
    assert ct["identical"]
    assert ct["compared"] == ["liver"]
    text = adaptation_report.write_report(experiment.output, "here").read_text(encoding="utf-8")
    for words in (
        "the model alone | 0",
        "LoRA (this project) | 3",
        "plain U-Net from scratch | 1",
        "bit-identical",
        "N4",
    ):
        assert words in text
    assert (experiment.output / "dice.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads((experiment.output / "report.json").read_text(encoding="utf-8"))["lora 3"]["runs"] == 1


def test_a_full_training_changes_the_weights_and_scratch_begins_anew(experiment: Experiment) -> None:
    own = tiny_segmenter().pipeline.image_encoder.stem.weight
    library = adaptation_mr.library(experiment)
    cases = library.cases()[:1]
    settings = replace(SETTINGS, **experiment.settings)
    segmenter = tiny_segmenter()
    adaptation_methods.learn(segmenter, "scratch", cases, experiment.output / "w", settings, 0.01)
    assert not np.allclose(segmenter.pipeline.image_encoder.stem.weight.numpy(), own.numpy(), atol=0.05)
    answer = adaptation_methods.PlainUNet(segmenter)
    prepared: Any = answer.prepare(scan()[0])
    from progidiff.adaptation.before_after import target_of

    found = answer.propose(prepared, target_of("liver"))
    assert not found.found or len(found.proposals) == 1


def test_a_bias_field_is_strong_smooth_and_the_same_for_a_case() -> None:
    first, again = bias_field((30, 20, 10), "a", 0.5), bias_field((30, 20, 10), "a", 0.5)
    np.testing.assert_array_equal(first, again)
    assert first.max() / first.min() > 2
    assert np.abs(np.diff(np.log(first), axis=0)).max() < 0.6
    image, label = BiasedCase(Patient(1)).load()
    assert image.modality == "CT"
    assert image.shape == label.shape
    assert -125 <= image.array.min() <= image.array.max() <= 275


def test_n4_flattens_a_field() -> None:
    rng = np.random.default_rng(0)
    flat = np.full((24, 24, 8), 0.4) + rng.normal(0, 0.01, (24, 24, 8))
    biased = (flat * np.linspace(0.6, 1.4, 24)[:, None, None]).astype(np.float32)
    biased[:4] = 0.0
    mended = n4(biased)
    assert mended[6:].std() / mended[6:].mean() < 0.6 * biased[6:].std() / biased[6:].mean()
