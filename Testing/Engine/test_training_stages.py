"""Each stage on a phantom, with tiny networks: what learns, what stays frozen, what the losses mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from progidiff.pipelines.progidiff.build import TINY, build_text_encoder, build_unet, build_vae
from progidiff.pipelines.progidiff.control_net import MaskControlNet
from progidiff.pipelines.progidiff.diffusion import make_scheduler
from progidiff.pipelines.progidiff.refiner import MaskRefiner
from progidiff.training.control import ControlStage
from progidiff.training.encoder import EncoderStage
from progidiff.training.generator import GeneratorStage, MaskAutoencoderStage
from progidiff.training.locator import LocatorStage
from progidiff.training.locator_data import CoarsePatches
from progidiff.training.loop import Stage
from progidiff.training.losses import batch_dice_loss, mask_loss, organ_loss
from progidiff.training.refine import RefinerStage
from progidiff.training.slice_data import OrganSlices
from tiny_models import CONTROL, DETAIL, give_weight_to_zeros, tiny_encoder, tiny_locator, tiny_tokenizer
from torch import nn
from training_samples import packed, refiner_after


def slices(count: int = 3) -> OrganSlices:
    return OrganSlices([packed()], TINY.crop, count)


def step(stage: Stage, batch: int = 4, seed: int = 0) -> dict[str, float]:
    """One batch forward and backward; returns the losses."""
    torch.manual_seed(seed)
    losses = stage(batch, np.random.default_rng(seed))
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(value) for value in losses.values())
    return {name: value.item() for name, value in losses.items()}


def learns(module: nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


def control_stage(**options: object) -> ControlStage:
    torch.manual_seed(0)
    unet, tokenizer = build_unet(TINY), tiny_tokenizer()
    return ControlStage(
        build_vae(TINY),
        unet,
        build_text_encoder(TINY, tokenizer),
        tokenizer,
        MaskControlNet.from_generator(unet, CONTROL),
        tiny_encoder(),
        MaskRefiner(DETAIL, TINY.text_width, 4),
        slices(),
        **options,  # type: ignore[arg-type]
    )


def refiner_stage() -> RefinerStage:
    return refiner_after(control_stage())


def test_refiner_stage_trains_the_refiner_alone() -> None:
    stage = refiner_stage()
    assert set(step(stage)) == {"refined"}
    assert learns(stage.refiner)
    others = (stage.vae, stage.unet, stage.text_encoder, stage.controlnet, stage.encoder)
    assert not any(p.requires_grad for part in others for p in part.parameters())
    assert not any(part.training for part in (stage.train(), *others)[1:]) and stage.refiner.training


def test_refiner_stage_learns_from_sampled_masks_that_know_nothing_of_the_truth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[torch.Tensor] = []
    stage = refiner_stage()

    def remember(logits: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        seen.append(logits)
        return logits.requires_grad_()

    monkeypatch.setattr(stage.refiner, "forward", remember)
    drawn = stage.slices.batch(4, np.random.default_rng(0))
    for mask in (drawn.mask, 1 - drawn.mask):
        monkeypatch.setattr(stage.slices, "batch", lambda *_, mask=mask: replace(drawn, mask=mask))
        step(stage)
    torch.testing.assert_close(seen[0], seen[1])


def test_locator_stage() -> None:
    stage = LocatorStage(tiny_locator(), CoarsePatches([packed()], (8, 8, 8), 12.0))
    assert set(step(stage, 2)) == {"organs"} and learns(stage.locator)


class _Constant(nn.Module):
    """A locator that gives every voxel the same logits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(classes))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.logits.view(1, -1, 1, 1, 1).expand(len(image), -1, *image.shape[2:])


def test_weights_of_rare_organs_do_not_make_the_locator_see_them_everywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the weights, the best answer without any clue is how often each class occurs."""
    monkeypatch.setattr("progidiff.training.losses.batch_dice_loss", lambda *_: torch.tensor(0.0))
    patches = CoarsePatches([packed()], (8, 8, 8), 12.0)
    label = torch.zeros(1, 10, 10, 10, dtype=torch.int64)
    label[:, 0] = 6
    label[:, 1, 0] = 11
    known = torch.ones(1, 14, dtype=torch.bool)
    monkeypatch.setattr(patches, "batch", lambda *_: (torch.zeros(1, 1, 10, 10, 10), label, known))
    weight = torch.ones(14)
    weight[[6, 11]] = torch.tensor([3.0, 20.0])
    stage = LocatorStage(_Constant(14), patches, weight)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(stage.parameters(), 0.3)
    for n in range(200):
        step(stage, 1, n)
        optimizer.step()
        optimizer.zero_grad()
    probability = stage.locator.logits.softmax(0)
    assert probability[[0, 6, 11]].tolist() == pytest.approx([0.89, 0.1, 0.01], abs=0.004)


def test_encoder_stage_learns_the_organs() -> None:
    torch.manual_seed(0)
    stage = EncoderStage(tiny_encoder(), slices())
    optimizer = torch.optim.Adam(stage.parameters(), 0.01)
    losses = []
    for n in range(25):
        losses.append(step(stage, 4, n)["organs"])
        optimizer.step()
        optimizer.zero_grad()
    assert np.mean(losses[-5:]) < 0.95 * np.mean(losses[:5])


def test_autoencoder_stage_and_its_scale() -> None:
    stage = MaskAutoencoderStage(build_vae(TINY), slices(1))
    assert set(step(stage)) == {"mask", "size"} and learns(stage.vae)
    stage.set_scaling_factor(16)
    masks = stage.slices.batch(64, np.random.default_rng(7)).mask
    with torch.no_grad():
        latents = stage.vae.encode(masks * 2 - 1).latent_dist.mean * stage.vae.config.scaling_factor
    assert 0.5 < float(latents.std()) < 2


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_generator_stage_needs_no_image(prediction: str) -> None:
    blind = OrganSlices([replace(packed(), image=None)], TINY.crop, slices=1, appearance=0)
    stage = GeneratorStage(
        build_vae(TINY),
        build_unet(TINY),
        build_text_encoder(TINY, tiny_tokenizer()),
        tiny_tokenizer(),
        blind,
        make_scheduler(prediction),
    )
    assert set(step(stage)) == {"latents", "text"}
    assert learns(stage.unet) and learns(stage.text_encoder) and not learns(stage.vae)


def test_control_stage_leaves_the_generator_frozen() -> None:
    stage = control_stage()
    assert set(step(stage)) == {"latents", "decoded", "refined", "organs"}
    assert learns(stage.controlnet) and learns(stage.encoder) and learns(stage.refiner)
    assert not learns(stage.unet) and not learns(stage.vae) and not learns(stage.text_encoder)
    assert not any(p.requires_grad for p in stage.unet.parameters())


def test_without_mask_losses_only_the_latents_teach_the_drawing() -> None:
    """The refiner still learns from what is decoded, but tells nobody before it."""
    stage = control_stage(mask_losses=False)
    assert set(step(stage)) == {"latents", "refined", "organs"}
    assert learns(stage.controlnet) and learns(stage.refiner)
    torch.nn.init.normal_(stage.refiner.last.weight)  # begins at zero, which would hide its gradients
    for mask_losses in (True, False):
        stage.mask_losses = mask_losses
        stage.zero_grad()
        stage(4, np.random.default_rng(0))["refined"].backward()
        assert learns(stage.refiner)
        assert learns(stage.controlnet) == learns(stage.encoder) == mask_losses


def test_an_encoder_that_has_learnt_keeps_what_it_sees() -> None:
    """Only its projection to the ControlNet learns, which the encoder stage does not teach."""
    stage = control_stage(train_encoder=False)
    for part in (stage.controlnet, stage.refiner):
        give_weight_to_zeros(part)  # zeros would hide gradients
    assert set(step(stage)) == {"latents", "decoded", "refined"}
    taught = {name for name, p in stage.encoder.named_parameters() if p.grad is not None}
    assert taught == {"to_control.weight", "to_control.bias"} and learns(stage.encoder.to_control)
    assert learns(stage.controlnet) and learns(stage.refiner)


def test_control_stage_with_the_generator_unfrozen() -> None:
    stage = control_stage(train_generator=True)
    step(stage)
    assert learns(stage.unet) and learns(stage.controlnet) and not learns(stage.vae)


def test_slices_are_as_the_fine_pass_sees_them() -> None:
    batch = slices().batch(6, np.random.default_rng(0))
    assert batch.image.shape == (6, 3, 32, 32) and batch.label.shape == (6, 32, 32)
    assert batch.mask.shape == (6, 1, 32, 32) and batch.known.all()
    assert batch.image.min() >= -1 and batch.image.max() <= 1
    assert batch.mask.min() >= 0 and batch.mask.max() <= 1 and batch.mask.any()
    for mask, label, organ in zip(batch.mask[:, 0], batch.label, batch.organ, strict=True):
        assert ((mask > 0.5) == (label == organ)).float().mean() > 0.97


def test_the_same_generator_draws_the_same_crops() -> None:
    first, second = (slices().batch(3, np.random.default_rng(5)) for _ in range(2))
    assert torch.equal(first.label, second.label) and torch.equal(first.organ, second.organ)


def test_what_was_not_annotated_is_not_punished() -> None:
    """An organ that a data set does not know may be drawn in its background."""
    label = torch.zeros(1, 4, 4, dtype=torch.int64)
    logits = torch.zeros(1, 3, 4, 4)
    logits[:, 2] = 10.0  # sure of organ 2 everywhere
    unknown, known = torch.tensor([[True, True, False]]), torch.ones(1, 3, dtype=torch.bool)
    assert organ_loss(logits, label, known) > organ_loss(logits, label, unknown) + 5


@pytest.mark.parametrize("right", [True, False])
def test_losses_reward_the_right_mask(right: bool) -> None:
    target = torch.zeros(2, 1, 8, 8)
    target[..., 2:6] = 1
    logits = (target * 2 - 1) * (20.0 if right else -20.0)
    loss = float(mask_loss(logits, target))
    dice = float(batch_dice_loss(logits.sigmoid(), target, torch.ones(2, 1, dtype=torch.bool)))
    assert (loss < 0.01 and dice < 0.01) if right else (loss > 5 and dice > 0.9)


def test_a_weight_makes_what_is_left_out_cost_more_than_what_is_too_much() -> None:
    target = torch.zeros(1, 1, 8, 8)
    target[..., 2:6] = 1
    smaller, larger = target.clone(), target.clone()
    smaller[..., 2] = 0
    larger[..., 6] = 1

    def loss(mask: torch.Tensor, weight: float) -> float:
        return float(mask_loss((mask * 2 - 1) * 3, target, weight))

    assert loss(smaller, 3.0) > loss(larger, 3.0) + 0.5
    assert abs(loss(smaller, 1.0) - loss(larger, 1.0)) < 0.1
