"""TextDiffSeg learns: lesions, pieces of volumes, the joint loss."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from progidiff.adaptation.lessons import Lessons
from progidiff.adaptation.lora import add_to, put_back
from progidiff.adaptation.lora_training import attached, state
from progidiff.adaptation.settings import AdaptSettings
from progidiff.errors import UsageError
from progidiff.pipelines.textdiffseg.build import Without
from progidiff.pipelines.textdiffseg.text import encode_text
from progidiff.prompts import organ_table, parse_prompt
from progidiff.training.drawing import drawing_stage
from progidiff.training.encoder import VolumeEncoderStage
from progidiff.training.lesions import add_lesion, finding_in, lesion_cover
from progidiff.training.loop import Schedule, train
from progidiff.training.phantom import make_phantom
from progidiff.training.textdiffseg import TextDiffSegStage
from progidiff.training.volume_data import OrganVolumes, VolumeBatch
from progidiff.training.wording import Wording, finding_captions, train_bert_tokenizer
from textdiffseg_samples import packed_case, tiny_pipeline

LIVER, LIVER_TUMOR = 6, 14


def volumes(**options: object) -> OrganVolumes:
    cases = [packed_case("CT"), packed_case("MR", 1)]
    return OrganVolumes(cases, 32, (8,), **{"lesions": 0.0, **options})  # type: ignore[arg-type]


# Lesions


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_lesion_grows_inside_its_organ_and_nowhere_else(modality: str) -> None:
    image, label = make_phantom(3, modality, (64, 64, 16), (5.4, 5.4, 12.0))  # type: ignore[arg-type]
    with_lesion, marked = add_lesion(image, label, "liver", seed=1)
    lesion = marked.array == LIVER_TUMOR
    assert lesion.sum() >= 8
    assert (label.array[lesion] == LIVER).all()
    outside = label.array != LIVER
    assert np.array_equal(with_lesion.array[outside], image.array[outside])
    change = np.abs(with_lesion.array - image.array)
    assert change[lesion].mean() > 0.05 * image.array.std()
    assert np.array_equal(with_lesion.affine, image.affine)
    again, _ = add_lesion(image, label, "liver", seed=1)
    assert np.array_equal(again.array, with_lesion.array)


def test_no_lesion_in_a_sliver_or_in_an_organ_without_findings() -> None:
    inside = np.zeros((8, 8, 8), bool)
    inside[4, 4, 4] = True
    assert lesion_cover(inside, (3.0, 3.0, 3.0), np.random.default_rng(0)) is None
    image, label = make_phantom(3, "CT", (32, 32, 8), (10.8, 10.8, 24.0))
    with pytest.raises(UsageError, match="aorta"):
        add_lesion(image, label, "aorta", seed=1)


def test_every_finding_belongs_to_its_organ_and_is_asked_for_by_name() -> None:
    for finding in organ_table().findings:
        assert finding_in(organ_table().by_id(finding.within).label) is finding
        captions = finding_captions(finding, np.random.default_rng(0), 40)
        assert len(set(captions)) > 20
        asked = [parse_prompt(c.strip("? "), organ_table().finding_ids) for c in captions]
        assert all([t.organ for t in targets] == [finding.id] for targets in asked)


# Words


def test_the_vocabulary_takes_any_word_apart() -> None:
    tokenizer = train_bert_tokenizer(200, ["segment the liver", "the spleen"] * 50)
    assert tokenizer.tokenize("liver") == ["liver"]
    assert tokenizer.unk_token not in tokenizer.tokenize("Qwxyz-Leberzirrhose, splean?")


def test_the_vocabulary_is_the_same_in_every_process() -> None:
    """Else the same seed would not give the same model."""
    code = (
        "import json; from progidiff.training.wording import train_bert_tokenizer as train; "
        "texts = ['segment the liver', 'Nebennieren', 'œsophage', 'the spleen, please'] * 9; "
        "print(json.dumps(train(150, texts).get_vocab(), sort_keys=True))"
    )
    made = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            timeout=120,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(made) == 1
    assert len(json.loads(made.pop())) > 150


def test_captions_of_all_structures() -> None:
    drawn = Wording().draw(torch.tensor([LIVER, LIVER_TUMOR, 17]), np.random.default_rng(0))
    assert len(drawn) == 3
    assert all(drawn)


# Pieces


def test_pieces_show_what_is_asked_for() -> None:
    batch = volumes(appearance=0.0).batch(6, np.random.default_rng(0))
    assert batch.image.shape == (6, 1, 8, 32, 32)
    assert batch.mask.shape == (6, 1, 8, 32, 32)
    assert set(batch.asked.tolist()) <= {1, LIVER}
    assert -1 <= batch.image.min() <= batch.image.max() <= 1
    for n, organ in enumerate(batch.asked.tolist()):
        agreement = ((batch.label[n] == organ) == (batch.mask[n, 0] > 0.5)).float().mean()
        assert agreement > 0.97
    assert batch.mask.flatten(1).sum(1).min() > 0
    assert batch.known[:, :, [0, 1, LIVER]].all()
    assert batch.known.sum() == 6 * 8 * 3


def test_lesions_are_asked_for_and_the_organ_keeps_them() -> None:
    data, rng = volumes(lesions=1.0, appearance=0.0), np.random.default_rng(0)
    batches = [data.batch(4, rng) for _ in range(6)]
    asked = torch.cat([b.asked for b in batches])
    lesions = torch.cat([b.mask for b in batches])[asked == LIVER_TUMOR]
    labels = torch.cat([b.label for b in batches])[asked == LIVER_TUMOR]
    assert len(lesions) >= 3
    assert bool((lesions.flatten(1).sum(1) > 0).any())
    inside = torch.cat([label[lesion[0] > 0.5] for label, lesion in zip(labels, lesions, strict=True)])
    assert (inside == LIVER).float().mean() > 0.95


def test_every_grown_lesion_is_shown_to_the_encoder_asked_for_or_not() -> None:
    data, rng = volumes(lesions=1.0, appearance=0.0), np.random.default_rng(0)
    batches = [data.batch(4, rng) for _ in range(6)]
    grown = [bool(lesion.any()) for b in batches for lesion in b.lesion]
    asked = [int(number) == LIVER_TUMOR for b in batches for number in b.asked]
    assert all(g for g, a in zip(grown, asked, strict=True) if a)
    assert sum(grown) > sum(asked) > 0
    stage = VolumeEncoderStage(tiny_pipeline().image_encoder, data)
    stage(4, np.random.default_rng(0))["lesion"].backward()
    assert bool(stage.encoder.to_lesion[0].weight.grad.any())
    assert "lesion" not in VolumeEncoderStage(stage.encoder, volumes())(2, rng), "nobody looked for any"


def test_of_partly_checked_cases_only_checked_slices_count() -> None:
    flags = np.zeros(24, bool)
    flags[10:14] = True
    case = replace(packed_case(), organs=(LIVER,), checked={LIVER: flags})
    data = OrganVolumes([case], 32, (8,), appearance=0.0)
    batch = data.batch(3, np.random.default_rng(0))
    assert not batch.checked.all()
    stage = TextDiffSegStage(tiny_pipeline(), data, ("text_encoder",))
    stage.eval()
    spoilt = replace(
        batch, mask=torch.where(batch.checked[:, None, :, None, None], batch.mask, 1 - batch.mask)
    )
    kept, changed = (joint_loss(stage, b) for b in (batch, spoilt))
    for name in ("decoded", "refined"):  # the label encoder sees the spoilt slices, so only nearly the same
        assert changed[name] == pytest.approx(kept[name], rel=0.15)


def joint_loss(stage: TextDiffSegStage, batch: VolumeBatch) -> dict[str, float]:
    torch.manual_seed(0)
    with torch.no_grad():
        text = encode_text(stage.tokenizer, stage.text_encoder, ["the liver"] * len(batch.asked))
        return {name: float(value) for name, value in stage.losses(batch, text).items()}


# The joint loss


def test_losses_fall_on_a_toy() -> None:
    stage = TextDiffSegStage(tiny_pipeline(), volumes(appearance=0.0))
    optimizer = torch.optim.Adam(stage.parameters(), lr=1e-2)
    batch = stage.volumes.batch(2, np.random.default_rng(0))
    torch.manual_seed(0)
    totals = []
    for _ in range(14):
        text = encode_text(stage.tokenizer, stage.text_encoder, ["the liver", "the spleen"])
        losses = stage.losses(batch, text)
        parts = {"denoising", "decoded", "refined", "organs", "evidence", "labels", "size", "text"}
        assert set(losses) == parts
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
        totals.append(float(total.detach()))
    assert np.mean(totals[-3:]) < 0.8 * np.mean(totals[:2])


def test_every_part_learns_end_to_end() -> None:
    stage = TextDiffSegStage(tiny_pipeline(), volumes())
    torch.stack(list(stage(2, np.random.default_rng(0)).values())).sum().backward()
    parts = ("label_autoencoder", "text_encoder", "image_encoder", "text_fusion", "denoiser", "refiner")
    for name in parts:
        gradients = [p.grad for p in getattr(stage, name).parameters() if p.grad is not None]
        assert any(bool(g.any()) for g in gradients), f"{name} does not learn"


def test_the_segmentation_loss_reaches_the_label_encoder() -> None:
    stage = TextDiffSegStage(tiny_pipeline(), volumes())
    torch.manual_seed(0)  # of the noise levels: at the highest nothing is left of the latents
    losses = stage(4, np.random.default_rng(0))
    losses["refined"].backward()
    assert bool(stage.label_autoencoder.encoder[0].weight.grad.any())


@pytest.mark.parametrize(
    "without", [Without(text=True), Without(label_encoder=True), Without(image_features=True)]
)
def test_ablations_train(without: Without) -> None:
    stage = TextDiffSegStage(tiny_pipeline(without), volumes())
    losses = stage(2, np.random.default_rng(0))
    assert ("text" in losses) != without.text
    assert ("labels" in losses) != without.label_encoder
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert torch.isfinite(total)


def test_words_alone_teach_which_organ_and_whether_a_lesion_in_it_is_meant() -> None:
    stage = TextDiffSegStage(tiny_pipeline(), volumes(lesions=1.0))
    optimizer = torch.optim.Adam(stage.parameters(), 3e-3)
    with torch.no_grad():
        before = float(stage.words_loss(np.random.default_rng(9)))
    for step in range(150):
        loss = stage.words_loss(np.random.default_rng(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    stage.eval()
    with torch.no_grad():
        assert float(stage.words_loss(np.random.default_rng(9))) < 0.5 * before


def test_frozen_parts_stay_frozen_and_without_dropout() -> None:
    frozen = ("text_encoder", "label_autoencoder", "text_fusion")
    stage = TextDiffSegStage(tiny_pipeline(), volumes(), frozen).train()
    assert not stage.text_encoder.training
    assert stage.denoiser.training
    trained = {name.split(".")[0] for name, p in stage.named_parameters() if p.requires_grad}
    assert trained == {"image_encoder", "denoiser", "refiner"}
    losses = {"denoising", "decoded", "refined", "organs", "evidence", "words"}
    assert set(stage(2, np.random.default_rng(0))) == losses


# Adaptation


def test_low_rank_layers_learn_and_come_off_again() -> None:
    pipeline = tiny_pipeline()
    image = torch.rand(4, 32, 32) * 2 - 1
    before = pipeline(image, "liver", 1.5, 5.0, 1).probabilities
    with attached(pipeline, rank=2) as layers:
        assert set(layers) == {"denoiser", "image_encoder", "refiner", "locator"}
        stage = drawing_stage(pipeline, [packed_case()], 0.0)
        learning = {n for n, p in stage.named_parameters() if p.requires_grad}
        assert learning
        assert all("lora" in name for name in learning)
        optimizer = torch.optim.Adam([p for p in stage.parameters() if p.requires_grad], lr=1e-2)
        torch.stack(list(stage(2, np.random.default_rng(0)).values())).sum().backward()
        optimizer.step()
        tensors = state(pipeline)
    assert torch.equal(pipeline(image, "liver", 1.5, 5.0, 1).probabilities, before)
    kept = add_to(pipeline, tensors)
    assert not torch.equal(pipeline(image, "liver", 1.5, 5.0, 1).probabilities, before)
    put_back(pipeline, kept)
    assert torch.equal(pipeline(image, "liver", 1.5, 5.0, 1).probabilities, before)


def test_adaptation_draws_fewer_pieces_and_forgets_no_words(tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    lessons = Lessons(pipeline, AdaptSettings(phantoms=0), tmp_path)
    with attached(pipeline, rank=2):
        stage = lessons.drawing_stage([packed_case()], 0.0)
        schedule = Schedule(steps=1, batch=1, learning_rate=1e-2, precision="no")
        losses = train(stage, schedule, tmp_path / "draw", device="cpu")
    assert set(losses) == {"denoising", "decoded", "refined", "organs", "evidence"}
    assert lessons._drawn_at_once == AdaptSettings().volume_batch
