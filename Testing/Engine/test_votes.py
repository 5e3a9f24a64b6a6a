"""Votes of all scales: what they add, that old networks stay as they are, and where training begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from progidiff.pipelines.locator import OrganLocator
from progidiff.pipelines.progidiff.image_encoder import ImageEncoder
from progidiff.pipelines.textdiffseg.image_encoder import VolumeEncoder
from progidiff.pipelines.votes import ScaleVotes, expect
from progidiff.training.case_store import PackedCase
from progidiff.training.class_balance import begin_balanced, class_shares, rarity_weights, taught_weight
from progidiff.training.drawing import drawing_stage, seeing_stage
from progidiff.training.stages import StageBuilder
from textdiffseg_samples import tiny_pipeline as tiny_textdiffseg
from tiny_models import tiny_pipeline
from torch import Tensor, nn
from training_samples import configuration, packed


def slice_logits(votes: bool) -> tuple[nn.Module, Callable[[], Tensor]]:
    torch.manual_seed(0)
    encoder = ImageEncoder(3, 13, (8, 8, 16, 16), 8, 4, 32, votes=votes).eval()
    image = torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return encoder, lambda: encoder(image, torch.tensor([1.2, 3.0])).organs


def volume_logits(votes: bool) -> tuple[nn.Module, Callable[[], Tensor]]:
    torch.manual_seed(0)
    encoder = VolumeEncoder(13, (8, 8, 16, 16), 8, 8, 32, 8, votes=votes).eval()
    image = torch.rand(2, 1, 8, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return encoder, lambda: encoder(image, torch.tensor([1.2, 3.0])).organs


def coarse_logits(votes: bool) -> tuple[nn.Module, Callable[[], Tensor]]:
    torch.manual_seed(0)
    locator = OrganLocator(13, (8, 16), 5.0, votes=votes).eval()
    image = torch.rand(2, 1, 9, 13, 21, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return locator, lambda: locator(image)


NETWORKS = [slice_logits, volume_logits, coarse_logits]


@pytest.mark.parametrize("make", NETWORKS)
def test_untrained_votes_change_nothing(make) -> None:
    _, without = make(False)
    _, with_votes = make(True)
    torch.manual_seed(0)
    plain, voting = without(), with_votes()
    assert plain.shape == voting.shape
    network, logits = make(True)
    network.load_state_dict(make(False)[0].state_dict(), strict=False)
    assert torch.equal(logits(), plain)


@pytest.mark.parametrize("make", NETWORKS)
def test_every_scale_is_heard_and_learns(make) -> None:
    network, logits = make(True)
    before = logits().detach()
    logits().sum().backward()
    heads = network.scale_votes.heads
    assert len(heads) == len(network.config.channels)
    for head in heads:
        assert head.weight.grad is not None and head.weight.grad.abs().sum() > 0
        with torch.no_grad():
            head.bias[3] += 0.5
        after = logits().detach()
        change = (after - before).flatten(2)
        assert torch.allclose(change[:, 3], torch.full_like(change[:, 3], 0.5), atol=1e-4)
        assert torch.allclose(change[:, :3], torch.zeros_like(change[:, :3]), atol=1e-6)
        before = after


def test_a_network_of_before_is_loaded_without_votes(tmp_path) -> None:
    encoder, _ = slice_logits(False)
    encoder.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"votes": false', '"crop": 32'))
    assert ImageEncoder.from_pretrained(tmp_path, local_files_only=True).scale_votes is None


def test_coarse_votes_land_where_they_were_seen() -> None:
    """Enlarged votes must not be shifted: an organ to the left stays to the left, in every axis."""
    votes = ScaleVotes((1, 1), 2, dimensions=3)
    with torch.no_grad():
        votes.heads[0].weight.fill_(1.0)
    for axis in (2, 3, 4):
        coarse = torch.zeros(1, 1, 4, 4, 4)
        coarse.select(axis, 0).fill_(1.0)
        summed = votes([coarse, torch.zeros(1, 1, 8, 8, 8)], (16, 16, 16))
        along = summed[0, 0].movedim(axis - 2, 0).flatten(1).mean(1)
        assert along[:4].min() > 0.5 > along[4:].max() and along[8:].abs().max() < 1e-5


# --- where training begins --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "shape"), [(nn.Conv2d(4, 3, 1), (2, 4, 5, 5)), (nn.Conv3d(4, 24, 1), (1, 4, 2, 2, 2))]
)
def test_an_untrained_head_expects_the_usual(head: nn.Conv2d | nn.Conv3d, shape: tuple[int, ...]) -> None:
    shares = torch.tensor([0.9, 0.07, 0.03])
    nn.init.zeros_(head.weight)
    expect(head, shares)
    answer = head(torch.rand(shape)).unflatten(1, (3, -1)).softmax(1)
    assert torch.allclose(answer, shares.view(1, 3, *[1] * (answer.dim() - 2)).expand_as(answer), atol=1e-5)


def test_an_organ_that_never_occurs_is_still_possible() -> None:
    head = nn.Conv2d(4, 3, 1)
    expect(head, torch.tensor([0.9, 0.1, 0.0]))
    assert torch.isfinite(head.bias).all()
    assert torch.isfinite(rarity_weights(torch.tensor([0.9, 0.1, 0.0]))).all()


def test_shares_are_of_cases_whatever_their_size() -> None:
    def case(name: str, edge: int, organ: int) -> PackedCase:
        label = torch.zeros(edge, edge, edge, dtype=torch.uint8)
        label[:, : edge // 2] = organ
        return PackedCase(name, None, label.numpy(), (1.0, 1.0, 1.0), (1, 6), "CT")

    shares = class_shares([case("small", 4, 6), case("large", 16, 1)], 13)
    assert shares.shape == (14,) and shares.sum().item() == pytest.approx(1)
    assert shares[[0, 1, 6]].tolist() == pytest.approx([0.5, 0.25, 0.25])


def test_shares_of_many_cases_are_estimated_from_some() -> None:
    read = []

    class Watched(PackedCase):
        def __getattribute__(self, name: str) -> object:
            if name == "label":
                read.append(object.__getattribute__(self, "id"))
            return object.__getattribute__(self, name)

    label = np.zeros((8, 4, 4), np.uint8)
    label[:, :1] = 6
    cases = [Watched(str(n), None, label, (1.0, 1.0, 1.0), (6,), "CT") for n in range(1001)]
    assert class_shares(cases, 13)[6].item() == pytest.approx(0.25)
    assert 50 <= len(set(read)) <= 100


def test_a_voxel_of_a_rare_organ_counts_more_but_the_organ_less() -> None:
    shares = torch.tensor([0.9, 0.09, 0.01])
    weights = rarity_weights(shares)
    assert weights[0] < weights[1] < weights[2]
    assert (weights * shares)[0] > (weights * shares)[1] > (weights * shares)[2]


def test_an_organ_that_was_not_annotated_is_unknown_not_absent() -> None:
    """Of ten patients one has all organs drawn: the spleen's share is what it is there."""
    label = np.zeros((8, 10, 10), np.uint8)
    label[:, :2] = 6
    part = PackedCase("part", None, label, (5.0, 1.5, 1.5), (6,), "labels")
    whole = replace(
        part, id="whole", label=np.where(np.arange(10) < 1, 1, label).astype(np.uint8), organs=(1, 6)
    )
    shares = class_shares([whole, *[part] * 9], 13)
    assert shares[1].item() == pytest.approx(0.1, rel=0.05)
    assert shares[6].item() == pytest.approx(0.2, rel=0.05) and shares.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("stage", ["locator", "encoder"])
def test_a_run_begins_with_the_shares_of_its_cases(tmp_path, stage: str) -> None:
    cases = [packed()]
    module, parts = StageBuilder(tmp_path, configuration(), cases).build(stage)
    shares = class_shares(cases, 13)
    (network,) = parts.values()
    head = network.head if stage == "locator" else network.to_organs
    prior = head.bias.detach().view(14, -1)[:, 0]
    assert torch.allclose(prior.exp(), shares.clamp(min=1e-4), rtol=1e-4)
    weight = module.class_weight if stage == "locator" else taught_weight(network)
    assert torch.equal(weight, rarity_weights(shares))
    assert network.scale_votes is not None


@pytest.mark.parametrize("kind", [ImageEncoder, VolumeEncoder])
def test_a_saved_encoder_is_taught_on_with_the_weights_it_began_with(tmp_path, kind: type) -> None:
    """Few-shot teaching sees other cases, in which other organs are rare."""
    encoder, one_organ = kind(), replace(packed(), organs=(1,))
    assert taught_weight(encoder) is None
    begin_balanced(encoder, [packed()])
    began = taught_weight(encoder)
    encoder.save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path, local_files_only=True)
    assert torch.equal(taught_weight(loaded), began)
    assert not torch.allclose(began, rarity_weights(class_shares([one_organ], 13)))


@pytest.mark.parametrize("make", [tiny_pipeline, tiny_textdiffseg])
@pytest.mark.parametrize("teach", [seeing_stage, drawing_stage])
def test_teaching_counts_voxels_as_the_encoder_notes(make, teach) -> None:
    """With all weight on background, what the head makes of organs does not count."""
    pipeline = make()
    encoder = pipeline.image_encoder
    stage = teach(pipeline, [packed()], 0.0)

    def loss(weight: tuple[float, ...] | None) -> float:
        encoder.register_to_config(class_weight=weight)
        torch.manual_seed(0)
        return stage(2, np.random.default_rng(0))["organs"].item()

    alike, background, organs = loss((1.0,) * 14), loss((1.0, *[0.0] * 13)), loss((0.0, *[1.0] * 13))
    assert min(background, organs) < alike < max(background, organs)
