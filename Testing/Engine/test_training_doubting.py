"""Doubt in training: crops are read in many ways, and only what is drawn from the reading has to bear it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from progidiff.pipelines.progidiff.build import TINY, build_text_encoder, build_unet, build_vae
from progidiff.pipelines.progidiff.control_net import MaskControlNet
from progidiff.pipelines.progidiff.image_encoder import ImageEncoder, ImageFeatures
from progidiff.pipelines.progidiff.refiner import MaskRefiner
from progidiff.training.control import ControlStage
from progidiff.training.doubting import doubted_crops
from progidiff.training.refine import RefinerStage
from progidiff.training.slice_data import OrganSlices
from tiny_models import CONTROL, DETAIL, give_weight_to_zeros, tiny_tokenizer
from training_samples import packed, refiner_after

PIXELS = torch.tensor([0.8, 1.2, 1.6, 2.0])


def features(crops: int = 4) -> ImageFeatures:
    return ImageFeatures(
        torch.ones(crops, 2, 8, 8), torch.ones(crops, 2, 64, 64), torch.zeros(crops, 14, 64, 64)
    )


def control_stage(doubt: float) -> ControlStage:
    """With an encoder that a text can ask for evidence, and weights that let it through."""
    torch.manual_seed(0)
    unet, tokenizer = build_unet(TINY), tiny_tokenizer()
    encoder = ImageEncoder(3, 13, (8, 8, 8, 8), CONTROL, DETAIL, TINY.crop, TINY.text_width)
    stage = ControlStage(
        build_vae(TINY),
        unet,
        build_text_encoder(TINY, tokenizer),
        tokenizer,
        MaskControlNet.from_generator(unet, encoder.condition_channels),
        encoder,
        MaskRefiner(encoder.refinable_channels, TINY.text_width, 4),
        OrganSlices([packed()], TINY.crop, 3),
        doubt=doubt,
    )
    give_weight_to_zeros(stage.controlnet)
    give_weight_to_zeros(stage.refiner)
    return stage


def refiner_stage(doubt: float) -> RefinerStage:
    return refiner_after(control_stage(0.0), doubt)


def losses(stage: ControlStage | RefinerStage) -> dict[str, float]:
    torch.manual_seed(1)
    return {name: value.item() for name, value in stage(4, np.random.default_rng(1)).items()}


def test_no_doubt_is_no_change() -> None:
    seen = features()
    assert doubted_crops(seen, PIXELS, 0.0) is seen


def test_every_crop_and_organ_has_a_doubt_of_its_own_up_to_the_most() -> None:
    torch.manual_seed(0)
    seen = features()
    draws = torch.stack([doubted_crops(seen, PIXELS, 3.0).organs for _ in range(60)])
    spread = draws.flatten(3).std(3)  # (draws, crops, organs) within one crop
    assert spread.min() > 0 and 1.0 < float(draws.std()) < 2.4  # the amounts are uniform: √3 over all
    amounts = draws.flatten(2).std(2).flatten()
    assert amounts.min() < 0.5 and 2.2 < amounts.max() < 4.0
    assert not torch.allclose(draws[0, 0], draws[0, 1]) and not torch.allclose(draws[0, :, 0], draws[0, :, 1])


def test_fine_crops_see_the_same_readers_nearer() -> None:
    """12 mm are more pixels where pixels are small, so neighbours differ less."""
    torch.manual_seed(0)
    seen = features()
    steps = torch.stack([doubted_crops(seen, PIXELS, 3.0).organs.diff(dim=-1) for _ in range(60)])
    rough = steps.transpose(0, 1).flatten(1).std(1)
    assert rough.tolist() == sorted(rough.tolist())


def test_nothing_but_the_opinion_changes_and_gradients_reach_it() -> None:
    seen = features()
    seen.organs.requires_grad_()
    other = doubted_crops(seen, PIXELS, 2.0)
    assert other.control is seen.control and other.detail is seen.detail
    other.organs.sum().backward()
    assert torch.equal(seen.organs.grad, torch.ones_like(seen.organs))


def test_what_is_drawn_is_doubted_but_not_what_the_organ_head_learns() -> None:
    sure, doubting = losses(control_stage(0.0)), losses(control_stage(3.0))
    assert sure["organs"] == doubting["organs"] and sure["evidence"] == doubting["evidence"]
    assert all(sure[name] != doubting[name] for name in ("latents", "refined", "decoded"))


def test_the_refiner_learns_under_the_same_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doubt that draws no random numbers, or the sampled masks would differ by those alone."""

    def turned(seen: ImageFeatures, _: torch.Tensor, most: float) -> ImageFeatures:
        return replace(seen, organs=seen.organs + most * torch.arange(14.0).view(-1, 1, 1))

    monkeypatch.setattr("progidiff.training.refine.doubted_crops", turned)
    assert losses(refiner_stage(0.0))["refined"] != losses(refiner_stage(3.0))["refined"]


@pytest.mark.parametrize("stage", [control_stage, refiner_stage])
def test_both_stages_learn_under_doubt(stage: object) -> None:
    made = stage(3.0)  # type: ignore[operator]
    total = torch.stack(list(made(4, np.random.default_rng(0)).values())).sum()
    total.backward()
    assert torch.isfinite(total) and any(
        p.grad is not None and p.grad.any() for p in made.refiner.parameters()
    )
