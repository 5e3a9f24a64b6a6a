"""The ControlNet and the refiner: untrained they change nothing, trained they do."""

from __future__ import annotations

from pathlib import Path

import torch
from progidiff.pipelines.evidence import evidence_of
from progidiff.pipelines.progidiff.build import TINY, build_unet
from progidiff.pipelines.progidiff.control_net import MaskControlNet
from progidiff.pipelines.progidiff.refiner import MaskRefiner
from tiny_models import CONTROL, DETAIL, give_weight_to_zeros


def inputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    size = TINY.latent_size
    return {
        "noisy": torch.randn(2, TINY.latent_channels, size, size, generator=generator),
        "text": torch.randn(2, 6, TINY.text_width, generator=generator),
        "control": torch.randn(2, CONTROL, size, size, generator=generator),
    }


@torch.no_grad()
def steered(unet: torch.nn.Module, control: MaskControlNet | None) -> torch.Tensor:
    given = inputs()
    down, middle = None, None
    if control is not None:
        down, middle = control(
            given["noisy"], 500, given["text"], controlnet_cond=given["control"], return_dict=False
        )
    return unet(
        given["noisy"],
        500,
        given["text"],
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
    ).sample


def test_untrained_it_changes_nothing() -> None:
    torch.manual_seed(0)
    unet = build_unet(TINY).eval()
    control = MaskControlNet.from_generator(unet, CONTROL).eval()
    assert torch.equal(steered(unet, control), steered(unet, None))


def test_once_its_zeros_have_moved_it_steers() -> None:
    torch.manual_seed(0)
    unet = build_unet(TINY).eval()
    control = MaskControlNet.from_generator(unet, CONTROL).eval()
    give_weight_to_zeros(control)
    assert (steered(unet, control) - steered(unet, None)).abs().max() > 1e-3


def test_the_first_gradients_reach_the_zero_convolutions() -> None:
    unet = build_unet(TINY)
    control = MaskControlNet.from_generator(unet, CONTROL)
    given = inputs()
    down, middle = control(
        given["noisy"], 3, given["text"], controlnet_cond=given["control"], return_dict=False
    )
    (sum(d.sum() for d in down) + middle.sum()).backward()
    assert all(block.weight.grad.any() for block in control.controlnet_down_blocks)
    assert control.controlnet_mid_block.weight.grad.any()


def test_it_starts_as_a_copy_that_shares_no_weights() -> None:
    unet = build_unet(TINY)
    control = MaskControlNet.from_generator(unet, CONTROL)
    assert torch.equal(control.conv_in.weight, unet.conv_in.weight)
    control.conv_in.weight.data.add_(1)
    assert not torch.equal(control.conv_in.weight, unet.conv_in.weight)


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    torch.manual_seed(2)
    unet = build_unet(TINY).eval()
    control = MaskControlNet.from_generator(unet, CONTROL).eval()
    give_weight_to_zeros(control)
    control.save_pretrained(tmp_path)
    again = MaskControlNet.from_pretrained(tmp_path).eval()
    assert torch.equal(steered(unet, control), steered(unet, again))


def test_untrained_refiner_changes_nothing() -> None:
    logits, detail = torch.randn(2, 1, 32, 32) * 20, torch.randn(2, DETAIL, 32, 32)
    text = torch.randn(2, TINY.text_width)
    refiner = MaskRefiner(DETAIL, TINY.text_width, 4)
    assert torch.equal(refiner(logits, detail, text), logits)
    give_weight_to_zeros(refiner)
    assert not torch.equal(refiner(logits, detail, text), logits)


def test_a_refiner_that_weighs_evidence_begins_with_the_evidence(tmp_path: Path) -> None:
    logits, detail = torch.randn(2, 1, 32, 32) * 20, torch.randn(2, DETAIL, 32, 32)
    text = torch.randn(2, TINY.text_width)
    probability = torch.rand(2, 1, 32, 32).clamp(1e-3, 1 - 1e-3)
    detail[:, -1:] = evidence_of(probability)
    plain = MaskRefiner(DETAIL, TINY.text_width, 4)
    refiner = plain.weighing_evidence()
    assert torch.allclose(refiner(logits, detail, text).sigmoid(), probability, atol=1e-3)
    give_weight_to_zeros(refiner)
    other = logits.clone()
    other[0] *= -1  # what was drawn counts as well once it has learnt to weigh
    changed = (refiner(logits, detail, text) - refiner(other, detail, text)).abs().flatten(1).amax(1)
    assert changed[0] > 0.1 and changed[1] == 0
    assert torch.equal(plain.first.weight, refiner.first.weight)
    refiner.save_pretrained(tmp_path)
    again = MaskRefiner.from_pretrained(tmp_path)
    assert torch.equal(again(logits, detail, text), refiner(logits, detail, text))


def test_refiner_heeds_the_text() -> None:
    torch.manual_seed(0)
    logits, detail = torch.randn(1, 1, 32, 32), torch.randn(1, DETAIL, 32, 32)
    refiner = MaskRefiner(DETAIL, TINY.text_width, 4)
    give_weight_to_zeros(refiner)
    a, b = (refiner(logits, detail, torch.full((1, TINY.text_width), v)) for v in (1.0, -1.0))
    assert not torch.equal(a, b)
