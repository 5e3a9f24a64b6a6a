"""Low-rank weights: in and out of the model without a trace."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adaptation_samples import scan, tiny_segmenter
from peft import LoraConfig, inject_adapter_in_model
from progidiff.adaptation import lora, lora_training
from progidiff.adaptation.before_after import target_of
from progidiff.errors import AdapterError
from torch import nn


def random_adapter(segmenter: Any, size: float = 0.3) -> dict[str, torch.Tensor]:
    """What a training might have made: both matrices of every layer are non-zero."""
    with lora_training.attached(segmenter.pipeline, rank=2):
        tensors = lora_training.state(segmenter.pipeline)
    generator = torch.Generator().manual_seed(1)
    return {n: size * torch.randn(t.shape, generator=generator) for n, t in tensors.items()}


def answer(segmenter: Any, prepared: Any) -> np.ndarray:
    found = segmenter.propose(prepared, target_of("liver"), 1)
    return found.proposals[0].probability


def test_every_convolution_and_attention_projection_is_adapted() -> None:
    pipeline = tiny_segmenter().pipeline
    names = lora.PARTS
    targets = {part: lora_training.target_layers(part, getattr(pipeline, part)) for part in names}
    convolutions = sum(isinstance(m, nn.Conv3d) for m in pipeline.locator.modules())
    assert len(targets["locator"]) == convolutions > 0
    assert any("to_q" in name for name in targets["controlnet"])
    assert "controlnet_cond_embedding.0" in targets["controlnet"]
    first = lora_training.target_layers("image_encoder", pipeline.image_encoder, "first")
    assert set(first) < set(targets["image_encoder"])
    assert {name.split(".")[0] for name in first} == {"stem", "down"}


def test_training_layers_change_nothing_at_first_and_leave_no_trace() -> None:
    segmenter = tiny_segmenter()
    pipeline = segmenter.pipeline
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    before = pipeline.image_encoder(image, torch.ones(2)).control
    weights = {n: (id(p), p.clone()) for n, p in pipeline.controlnet.named_parameters()}
    with lora_training.attached(pipeline, rank=2):
        trainable = [n for n, p in pipeline.controlnet.named_parameters() if p.requires_grad]
        assert trainable
        assert all("lora_" in n for n in trainable)
        assert not any(p.requires_grad for p in pipeline.unet.parameters())
        torch.testing.assert_close(pipeline.image_encoder(image, torch.ones(2)).control, before)
    after = dict(pipeline.controlnet.named_parameters())
    assert list(after) == list(weights)
    assert all(id(after[n]) == i and torch.equal(after[n], p) for n, (i, p) in weights.items())
    assert torch.equal(pipeline.image_encoder(image, torch.ones(2)).control, before)


@pytest.mark.parametrize(
    "layer", [nn.Linear(6, 5), nn.Conv2d(6, 5, 3), nn.Conv3d(6, 5, 3), nn.Conv2d(6, 5, 1)]
)
def test_the_sum_of_weights_is_what_peft_computes(layer: nn.Module) -> None:
    torch.manual_seed(0)
    reference = nn.Sequential(layer)
    inject_adapter_in_model(LoraConfig(r=3, lora_alpha=3, target_modules=["0"]), reference, "adapter")
    for matrix in ("lora_A", "lora_B"):
        nn.init.normal_(getattr(reference[0], matrix)["adapter"].weight)
    wanted = layer.weight + reference[0].get_delta_weight("adapter")

    class Holder:
        refiner = nn.Sequential(layer)

    tensors = {
        f"refiner.0.{m}": getattr(reference[0], m)["adapter"].weight.data for m in ("lora_A", "lora_B")
    }
    own = layer.weight.data.clone()
    kept = lora.add_to(Holder(), tensors)  # type: ignore[arg-type]
    torch.testing.assert_close(layer.weight.data, wanted.data)
    lora.put_back(Holder(), kept)  # type: ignore[arg-type]
    assert torch.equal(layer.weight.data, own)


def test_trained_layers_and_summed_weights_compute_the_same() -> None:
    """Also where a convolution is dilated, as the refiner's second one."""
    pipeline = tiny_segmenter().pipeline
    tensors = random_adapter(tiny_segmenter())
    logits, detail, text = torch.randn(2, 1, 32, 32), torch.randn(2, 8, 32, 32), torch.randn(2, 16)
    torch.nn.init.normal_(pipeline.refiner.last.weight)
    with lora_training.attached(pipeline, rank=2):
        lora_training.load_state(pipeline, tensors)
        trained = pipeline.refiner(logits, detail, text)
    lora.add_to(pipeline, tensors)
    torch.testing.assert_close(pipeline.refiner(logits, detail, text), trained, atol=1e-4, rtol=1e-4)


def test_the_state_goes_back_into_fresh_training_layers() -> None:
    segmenter = tiny_segmenter()
    tensors = random_adapter(segmenter)
    with lora_training.attached(segmenter.pipeline, rank=2, seed=5):
        lora_training.load_state(segmenter.pipeline, tensors)
        back = lora_training.state(segmenter.pipeline)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[n], tensors[n]) for n in tensors)


def test_with_the_adapter_off_every_bit_is_as_before() -> None:
    segmenter = tiny_segmenter()
    image, _ = scan()
    prepared = segmenter.prepare(image)
    before = answer(segmenter, prepared)
    segmenter.put_on(random_adapter(segmenter), "adapter-1")
    adapted = answer(segmenter, prepared)  # the old features are not used
    assert not np.array_equal(adapted, before)
    np.testing.assert_array_equal(adapted, answer(segmenter, segmenter.prepare(image)))
    assert segmenter.propose(prepared, target_of("liver"), 1).proposals[0].provenance.adapter == "adapter-1"
    segmenter.unload_adapter()
    np.testing.assert_array_equal(answer(segmenter, prepared), before)
    np.testing.assert_array_equal(answer(segmenter, segmenter.prepare(image)), before)
    assert segmenter.adapter == ""


def test_one_adapter_takes_the_place_of_another_within_a_second() -> None:
    segmenter = tiny_segmenter()
    one, other = random_adapter(segmenter, 0.1), random_adapter(segmenter, 0.4)
    segmenter.put_on(one, "one")
    alone = segmenter.pipeline.controlnet.conv_in.weight.clone()
    segmenter.put_on(other, "other")
    start = time.monotonic()
    segmenter.put_on(one, "one")
    assert time.monotonic() - start < 1.0
    assert torch.equal(segmenter.pipeline.controlnet.conv_in.weight, alone)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: t.pop("refiner.first.lora_A"),
        lambda t: t.update({"refiner.first.lora_B": torch.ones(3, 2)}),
        lambda t: t.update({"refiner.first.lora_B": torch.ones(3)}),
        lambda t: t.update(
            {"refiner.nose.lora_A": torch.ones(2, 2), "refiner.nose.lora_B": torch.ones(2, 2)}
        ),
        lambda t: t.update(
            {"unet.conv_in.lora_A": torch.ones(2, 2), "unet.conv_in.lora_B": torch.ones(2, 2)}
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_change_nothing(spoil: Any, tmp_path: Path) -> None:
    segmenter = tiny_segmenter()
    own = {n: p.clone() for n, p in segmenter.pipeline.refiner.named_parameters()}
    tensors = random_adapter(segmenter)
    spoil(tensors)
    with pytest.raises(AdapterError):
        segmenter.put_on(tensors, "broken")
    assert segmenter.adapter == ""
    assert all(torch.equal(p, own[n]) for n, p in segmenter.pipeline.refiner.named_parameters())
