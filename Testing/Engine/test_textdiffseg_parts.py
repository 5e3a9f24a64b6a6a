"""TextDiffSeg's networks, one by one."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from progidiff.pipelines.textdiffseg.blocks import as_stack, as_volume, fold, unfold
from progidiff.pipelines.textdiffseg.image_encoder import VolumeEncoder
from progidiff.pipelines.textdiffseg.label_autoencoder import LabelAutoencoder, shape_channels
from progidiff.pipelines.textdiffseg.refiner import BorderRefiner
from progidiff.pipelines.textdiffseg.text import TOKENS, PromptTokens, encode_text
from progidiff.pipelines.textdiffseg.text_fusion import TextFusion
from progidiff.pipelines.textdiffseg.windows import BLOCK, over_windows, windows
from textdiffseg_samples import tiny_pipeline
from torch import Tensor


def tokens(batch: int = 1, true_tokens: int = 5, width: int = 16) -> PromptTokens:
    mask = torch.arange(TOKENS)[None].expand(batch, -1) < true_tokens
    return PromptTokens(torch.randn(batch, TOKENS, width) * mask[..., None], mask)


def ball(depth: int = 8, edge: int = 32, radius: float = 9.0) -> Tensor:
    k, j, i = torch.meshgrid(*(torch.arange(n) - n / 2 for n in (depth, edge, edge)), indexing="ij")
    return ((2 * k) ** 2 + j**2 + i**2 < radius**2).float()[None, None]


# Blocks and windows


def test_folding_loses_nothing_and_keeps_places() -> None:
    x = torch.randn(2, 3, 4, 8, 8)
    folded = fold(x, (2, 4, 4))
    assert folded.shape == (2, 96, 2, 2, 2)
    assert torch.equal(unfold(folded, (2, 4, 4)), x)
    assert set(folded[1, :, 0, 1, 0].tolist()) == set(x[1, :, :2, 4:, :4].flatten().tolist())


def test_stack_and_volume_are_views_of_the_same() -> None:
    stack = torch.randn(5, 3, 8, 8)
    assert as_volume(stack).shape == (1, 3, 5, 8, 8)
    assert torch.equal(as_stack(as_volume(stack)), stack)


@pytest.mark.parametrize("longest", [1, 8, 24, 32])
@pytest.mark.parametrize("length", [4, 8, 24, 28, 40, 100, 400])
def test_windows_cover_the_stack_overlap_and_stay_short(length: int, longest: int) -> None:
    plan = windows(length, longest)
    assert plan[0].start == 0
    assert plan[-1].stop == length
    assert max(w.stop - w.start for w in plan) <= max(longest, 2 * BLOCK)
    assert all(a.stop - b.start >= BLOCK for a, b in pairwise(plan))
    assert all(w.start % BLOCK == 0 == w.stop % BLOCK for w in plan)


@pytest.mark.parametrize("slices", [1, 7, 24, 61])
def test_blending_windows_of_a_local_function_changes_nothing(slices: int) -> None:
    a, b = torch.randn(slices, 2, 4, 4), torch.randn(slices, 3, 8, 8)
    seen: list[int] = []

    def compute(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(first.shape[2])
        return first * 2, second + 1

    doubled, increased = over_windows(compute, (a, b), longest=16)
    torch.testing.assert_close(doubled, a * 2)
    torch.testing.assert_close(increased, b + 1)
    assert max(seen) <= 16


def test_a_window_counts_less_towards_its_ends() -> None:
    calls = iter([0.0, 1.0])
    (blended,) = over_windows(lambda x: (torch.full_like(x, next(calls)),), (torch.zeros(24, 1, 2, 2),), 16)
    profile = blended[:, 0, 0, 0]
    assert profile[0] == 0
    assert profile[-1] == 1
    assert (profile.diff() >= 0).all()
    assert ((profile > 0.1) & (profile < 0.9)).sum() >= 3


# Text fusion


def test_fusion_follows_its_formula() -> None:
    torch.manual_seed(0)
    fusion, image, text = TextFusion(8, 16, 4), torch.randn(1, 8, 2, 3, 3), tokens()
    fused = fusion(image, text)
    place = image[0, :, 1, 2, 0]
    scores = (fusion.query.weight @ place) @ (text.states[0, :5] @ fusion.key.weight.T).T / 2.0
    expected = place + scores.softmax(0) @ (text.states[0, :5] @ fusion.value.weight.T)
    torch.testing.assert_close(fused[0, :, 1, 2, 0], expected)


def test_attention_differs_between_places_and_ignores_padding() -> None:
    torch.manual_seed(0)
    fusion, image, text = TextFusion(8, 16, 4), torch.randn(1, 8, 2, 3, 3), tokens()
    attention = fusion.attention(image, text)
    torch.testing.assert_close(attention.sum(-1), torch.ones(1, 18))
    assert attention[0, :, 5:].abs().max() == 0
    assert attention[0].std(0)[:5].min() > 1e-3, "every place attends to the same words"
    padded = PromptTokens(text.states + 7.0 * ~text.mask[..., None], text.mask)
    torch.testing.assert_close(fusion(image, padded), fusion(image, text))


def test_one_token_alone_would_make_attention_constant() -> None:
    attention = TextFusion(8, 16, 4).attention(torch.randn(1, 8, 2, 3, 3), tokens(true_tokens=1))
    assert attention[..., 0].std() == 0


def test_prompts_become_tokens_of_fixed_number() -> None:
    pipeline = tiny_pipeline()
    text = encode_text(pipeline.tokenizer, pipeline.text_encoder, ["liver", "segment the liver " * 30])
    assert text.states.shape == (2, TOKENS, 16)
    assert text.mask.sum(1).tolist() == [3, TOKENS]  # [CLS] liver [SEP]; the long one is cut
    assert text.states[0, 3:].abs().max() == 0
    torch.testing.assert_close(text.mean[0], text.states[0, :3].mean(0))


# Image encoder, labels, refiner


@pytest.mark.parametrize("features", [True, False])
def test_image_encoder_gives_four_outputs(features: bool) -> None:
    encoder = VolumeEncoder(13, (8, 8, 8, 8), 8, 8, 32, 8, features=features)
    made = encoder(torch.randn(2, 1, 8, 32, 32), torch.tensor([1.2, 3.0]))
    assert made.control.shape == (2, 8, 8, 8, 8)
    assert made.detail.shape == (2, 8, 8, 16, 16)
    assert made.organs.shape == (2, 14, 8, 32, 32)
    assert made.lesion.shape == (2, 1, 8, 32, 32)
    assert bool(made.detail.any()) == features


def test_image_encoder_knows_the_size_of_a_pixel() -> None:
    encoder = VolumeEncoder(13, (8, 8, 8, 8), 8, 8)
    image = torch.randn(1, 1, 4, 32, 32)
    small, large = (encoder(image, torch.tensor([mm])).control for mm in (1.2, 3.0))
    assert (small - large).abs().max() > 1e-3


def test_label_encoder_compresses_and_decodes_back_to_size() -> None:
    autoencoder = LabelAutoencoder(4, (8, 8))
    latents = autoencoder.encode(ball())
    assert latents.shape == (1, 4, 8, 8, 8)
    assert autoencoder.decode(latents).shape == (1, 1, 8, 32, 32)
    assert autoencoder.latent_channels == 4


def test_without_label_encoder_the_mask_itself_is_the_latent() -> None:
    autoencoder = LabelAutoencoder(4, (8, 8), learned=False)
    assert autoencoder.latent_channels == 16
    assert sum(p.numel() for p in autoencoder.parameters()) == 1
    assert torch.equal(autoencoder.decode(autoencoder.encode(ball())) > 0, ball() > 0.5)


def test_shape_channels_tell_the_depth_inside() -> None:
    channels = shape_channels(ball())[0, :, 4]  # the middle slice
    wide = channels[-1]
    assert wide[8, 8] > wide[8, 5] > wide[8, 3] > wide[8, 0]
    assert channels[0, 8, 8] == 1
    assert channels[0, 0, 0] == -1


def test_refiner_starts_by_changing_nothing() -> None:
    logits, detail = torch.randn(1, 1, 4, 16, 16), torch.randn(1, 8, 4, 8, 8)
    refiner = BorderRefiner(8, 16, 8)
    assert torch.equal(refiner(logits, detail, tokens()), logits)
    torch.nn.init.normal_(refiner.last.weight)
    one, other = (refiner(logits, detail, tokens()) for _ in range(2))
    assert (one - other).abs().max() > 1e-4, "the words make no difference"


# Evidence


def asking(organ: int, meant: float) -> VolumeEncoder:
    """An encoder whose words always choose one organ, and a lesion in it with log odds `meant`."""
    encoder = VolumeEncoder(13, (8, 8, 8, 8), 8, 8, 32, 8, text_width=16)
    assert encoder.query is not None and encoder.gate is not None
    for layer in (encoder.query, encoder.gate):
        torch.nn.init.zeros_(layer.weight)
    with torch.no_grad():
        encoder.query.bias.copy_(torch.where(torch.arange(14) == organ, 50.0, 0.0))
        encoder.gate.bias.fill_(meant)
    return encoder


def test_words_choose_the_organ_or_a_lesion_in_it() -> None:
    organs, lesion = torch.zeros(1, 14, 4, 8, 8), torch.full((1, 1, 4, 8, 8), -9.0)
    organs[:, 6, 1:3] = 9.0  # liver, with a lesion in one of its slices; and a lesion outside
    lesion[:, :, 2:] = 9.0
    whole = asking(6, -20.0).evidence(organs, lesion, tokens())
    part = asking(6, 20.0).evidence(organs, lesion, tokens())
    assert whole is not None and part is not None
    assert [bool(whole[0, 0, k].mean() > 0) for k in range(4)] == [False, True, True, False]
    assert [bool(part[0, 0, k].mean() > 0) for k in range(4)] == [False, False, True, False]
    other = asking(1, -20.0).evidence(organs, lesion, tokens())
    assert other is not None and other.max() < 0


def test_evidence_stands_beside_the_features_voxel_by_voxel() -> None:
    encoder = asking(6, -20.0)
    organs = torch.randn(1, 14, 4, 16, 16)
    lesion, text = torch.randn(1, 1, 4, 16, 16), tokens()
    evidence = encoder.evidence(organs, lesion, text)
    assert evidence is not None
    condition = encoder.condition(torch.zeros(1, 8, 4, 4, 4), organs, lesion, text)
    refinable = encoder.refinable(torch.zeros(1, 8, 4, 8, 8), organs, lesion, text)
    assert condition.shape[1] == encoder.condition_channels
    assert refinable.shape[1] == encoder.refinable_channels
    torch.testing.assert_close(unfold(condition[:, 8:], (1, 4, 4)), evidence)
    torch.testing.assert_close(unfold(refinable[:, 8:], (1, 2, 2)), evidence)


def test_without_features_no_evidence_reaches_any_part() -> None:
    encoder = VolumeEncoder(13, (8, 8, 8, 8), 8, 8, 32, 8, features=False, text_width=16)
    assert encoder.evidence(torch.randn(1, 14, 4, 8, 8), torch.randn(1, 1, 4, 8, 8), tokens()) is None
    assert encoder.condition_channels == 8


@pytest.mark.parametrize("slices", [1, 2, 4])
def test_stacks_thinner_than_the_box_are_encoded(slices: int) -> None:
    mask = torch.zeros(1, 1, slices, 16, 16)
    mask[..., 4:12, 4:12] = 1.0
    channels = shape_channels(mask)
    assert channels.shape == (1, 8, slices, 8, 8)
    thick = shape_channels(torch.cat([torch.zeros(1, 1, 8, 16, 16), mask, torch.zeros(1, 1, 8, 16, 16)], 2))
    assert torch.allclose(channels, thick[:, :, 8:-8])  # beyond its ends a stack goes on as nothing
