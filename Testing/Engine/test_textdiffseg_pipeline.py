"""TextDiffSegPipeline: proposals from a stack of slices."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from progidiff.errors import Cancelled, ModelError, UsageError
from progidiff.pipelines.registry import load_pipeline
from progidiff.pipelines.textdiffseg.build import Without, ready_made_bert
from progidiff.pipelines.textdiffseg.pipeline import TextDiffSegPipeline
from textdiffseg_samples import tiny_pipeline
from torch import Tensor

STACK = torch.rand(10, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def pipeline() -> TextDiffSegPipeline:
    return tiny_pipeline()


def draw(
    pipeline: TextDiffSegPipeline, prompt: str = "the liver", seed: int = 0, image: Tensor = STACK
) -> Tensor:
    return pipeline(image, prompt, 1.5, 5.0, num_proposals=1, seed=seed).probabilities[0]


def test_output_has_the_promised_shapes(pipeline: TextDiffSegPipeline) -> None:
    made = pipeline(STACK, "segment the liver", 1.5, 5.0, num_proposals=3, seed=5)
    assert made.probabilities.shape == (3, 10, 32, 32)
    assert made.probabilities.dtype == torch.float32
    assert 0 <= made.probabilities.min() <= made.probabilities.max() <= 1
    assert made.organs.shape == (10, 14, 32, 32)


def test_same_seed_same_proposal(pipeline: TextDiffSegPipeline) -> None:
    several = pipeline(STACK, "the liver", 1.5, 5.0, num_proposals=2, seed=7).probabilities
    assert torch.equal(several[1], draw(pipeline, seed=8))
    assert torch.equal(several[0], draw(pipeline, seed=7))
    assert (several[0] - several[1]).abs().max() > 1e-3


def test_words_and_image_matter(pipeline: TextDiffSegPipeline) -> None:
    liver = draw(pipeline)
    assert (draw(pipeline, "the spleen") - liver).abs().max() > 1e-3
    assert (draw(pipeline, image=-STACK) - liver).abs().max() > 1e-3


def test_without_text_no_word_matters() -> None:
    pipeline = tiny_pipeline(Without(text=True))
    assert torch.equal(draw(pipeline, "the spleen"), draw(pipeline, "left kidney"))


def test_every_ablation_draws_something_else(pipeline: TextDiffSegPipeline) -> None:
    cases = [Without(text=True), Without(label_encoder=True), Without(image_features=True)]
    drawn = [draw(pipeline), *(draw(tiny_pipeline(without)) for without in cases)]
    assert all(d.shape == STACK.shape for d in drawn)
    for n, a in enumerate(drawn):
        assert all((a - b).abs().max() > 1e-3 for b in drawn[n + 1 :])


@pytest.mark.parametrize("slices", [1, 3, 9])
def test_any_number_of_slices(pipeline: TextDiffSegPipeline, slices: int) -> None:
    assert draw(pipeline, image=STACK[:slices]).shape == (slices, 32, 32)


def test_memory_of_a_long_stack_is_bounded(pipeline: TextDiffSegPipeline) -> None:
    """No part ever sees more slices at once than its window, or than memory allows."""
    seen: dict[str, int] = {}

    def watch(name: str):
        def hook(module: torch.nn.Module, given: tuple[Tensor, ...]) -> None:
            seen[name] = max(seen.get(name, 0), given[0].shape[2])

        return hook

    parts = ("image_encoder", "denoiser", "refiner")
    hooks = [getattr(pipeline, p).register_forward_pre_hook(watch(p)) for p in parts]
    long = torch.rand(60, 32, 32) * 2 - 1
    try:
        pipeline.slices_per_batch = 64
        assert draw(pipeline, image=long).shape == (60, 32, 32)
    finally:
        for hook in hooks:
            hook.remove()
    assert seen == dict.fromkeys(parts, pipeline.image_encoder.config.window)


def test_windows_share_one_field_of_noise(pipeline: TextDiffSegPipeline) -> None:
    """A uniform long stack gives one long object, not one a window."""
    features = pipeline.encode_image(torch.zeros(40, 32, 32), 1.5)
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    whole, again = (pipeline.noise(features, 5.0, g) for g in generators)
    assert torch.equal(whole, again)
    assert whole.shape == (40, 4, 8, 8)
    assert abs(float(whole.std()) - 1) < 0.05
    latents = pipeline.predict(whole, torch.tensor(999), features, pipeline.encode_prompt("liver"))
    jumps = latents.diff(dim=0).abs().mean((1, 2, 3))
    assert jumps.max() < 3 * jumps.median(), "seams between windows"


def test_masks_pass_through_the_label_autoencoder(pipeline: TextDiffSegPipeline) -> None:
    latents = pipeline.encode_mask((STACK > 0).float())
    assert latents.shape == (10, 4, 8, 8)
    assert pipeline.decode_mask(latents).shape == STACK.shape


def test_saved_and_loaded_it_draws_the_same(pipeline: TextDiffSegPipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path)
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".bin", ".pt", ".pkl")]
    loaded = load_pipeline(tmp_path)
    assert isinstance(loaded, TextDiffSegPipeline)
    assert loaded.config.findings == "liver_tumor"
    # Loaded weights may lie elsewhere in memory, where a processor rounds in another order.
    torch.testing.assert_close(draw(loaded), draw(pipeline), atol=1e-4, rtol=0)


def test_cancel_and_progress(pipeline: TextDiffSegPipeline) -> None:
    steps: list[tuple[int, int]] = []
    pipeline(STACK, "liver", 1.5, 5.0, 2, 3, on_step=lambda done, total: steps.append((done, total)))
    assert steps == [(n, 6) for n in range(1, 7)]
    with pytest.raises(Cancelled):
        pipeline(STACK, "liver", 1.5, 5.0, cancelled=lambda: True)


@pytest.mark.parametrize(
    ("image", "pixel_mm", "proposals"),
    [(STACK[:, :30], 1.5, 1), (STACK * 9, 1.5, 1), (STACK, 0.0, 1), (STACK, 1.5, 0), (STACK[:0], 1.5, 1)],
)
def test_impossible_requests_are_refused(
    pipeline: TextDiffSegPipeline, image: Tensor, pixel_mm: float, proposals: int
) -> None:
    with pytest.raises(UsageError):
        pipeline(image, "liver", pixel_mm, 5.0, proposals)


def test_a_text_encoder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no-such-bert"):
        ready_made_bert(str(tmp_path / "no-such-bert"))


def test_another_bert_takes_the_small_ones_place(pipeline: TextDiffSegPipeline, tmp_path: Path) -> None:
    pipeline.text_encoder.save_pretrained(tmp_path)
    pipeline.tokenizer.save_pretrained(tmp_path)
    text_encoder, tokenizer = ready_made_bert(str(tmp_path))
    assert text_encoder.config.hidden_size == 16
    assert tokenizer.tokenize("the liver") == pipeline.tokenizer.tokenize("the liver")
