"""The pipeline with tiny random parts: inputs, outputs, seeds, cancelling, saving."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from diffusers import DDIMScheduler
from progidiff.errors import Cancelled, ModelError, UsageError
from progidiff.pipelines.base import ProposalsOutput
from progidiff.pipelines.progidiff.diffusion import (
    clean_from_output,
    clean_from_velocity,
    make_scheduler,
    training_target,
)
from progidiff.pipelines.progidiff.pipeline import ProGiDiffPipeline
from progidiff.pipelines.progidiff.stable_diffusion import trailing
from tiny_models import tiny_model, tiny_pipeline


@pytest.fixture(scope="module")
def pipeline() -> ProGiDiffPipeline:
    return tiny_pipeline()


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(4, 32, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def draw(pipeline: ProGiDiffPipeline, image: torch.Tensor, **options: object) -> ProposalsOutput:
    given = {"prompt": "segment the liver", "pixel_mm": 2.0, "slice_mm": 5.0, "num_proposals": 2, **options}
    return pipeline(image, **given)  # type: ignore[arg-type]


def test_output_is_as_documented(pipeline: ProGiDiffPipeline, image: torch.Tensor) -> None:
    output = draw(pipeline, image)
    assert output.probabilities.shape == (2, 4, 32, 64)
    assert output.organs.shape == (4, 14, 32, 64)
    for tensor in (output.probabilities, output.organs):
        assert tensor.dtype == torch.float32 and tensor.device.type == "cpu" and tensor.isfinite().all()
    assert output.probabilities.min() >= 0 and output.probabilities.max() <= 1
    assert not output.probabilities.requires_grad


def test_same_seed_same_proposal(pipeline: ProGiDiffPipeline, image: torch.Tensor) -> None:
    first, second = (draw(pipeline, image, seed=7).probabilities for _ in range(2))
    assert torch.equal(first, second)
    torch.manual_seed(12345)  # the global generator has no say
    assert torch.equal(first, draw(pipeline, image, seed=7).probabilities)


def test_a_proposal_does_not_depend_on_the_others(pipeline: ProGiDiffPipeline, image: torch.Tensor) -> None:
    many = draw(pipeline, image, seed=3, num_proposals=3).probabilities
    alone = draw(pipeline, image, seed=5, num_proposals=1).probabilities
    assert torch.equal(many[2], alone[0])
    assert not torch.equal(many[0], many[1])


def test_the_prompt_and_the_image_matter(pipeline: ProGiDiffPipeline, image: torch.Tensor) -> None:
    liver = draw(pipeline, image).probabilities
    assert not torch.equal(liver, draw(pipeline, image, prompt="segment the aorta").probabilities)
    assert not torch.equal(liver, draw(pipeline, -image).probabilities)
    assert not torch.equal(liver, draw(pipeline, image, pixel_mm=1.2).probabilities)


def test_batching_the_slices_changes_nothing(pipeline: ProGiDiffPipeline, image: torch.Tensor) -> None:
    before = pipeline.slices_per_batch
    whole = draw(pipeline, image).probabilities
    pipeline.slices_per_batch = 2
    try:
        parts = draw(pipeline, image).probabilities
    finally:
        pipeline.slices_per_batch = before
    assert torch.allclose(whole, parts, atol=2e-2)  # bf16 kernels differ with the batch


def test_one_slice(pipeline: ProGiDiffPipeline, image: torch.Tensor) -> None:
    assert draw(pipeline, image[:1]).probabilities.shape == (2, 1, 32, 64)


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_steps_are_counted(pipeline: ProGiDiffPipeline, image: torch.Tensor, steps: int) -> None:
    seen: list[tuple[int, int]] = []
    draw(pipeline, image, num_inference_steps=steps, on_step=lambda *n: seen.append(n))
    assert seen == [(n, 2 * steps) for n in range(1, 2 * steps + 1)]


@pytest.mark.parametrize(
    ("steps", "proposals", "asked"),
    [(1, 3, 3), (2, 1, 2), (2, 3, 4), (4, 3, 10)],  # at more than one step the first is for all
)
def test_pure_noise_is_shown_to_the_network_once(
    pipeline: ProGiDiffPipeline, image: torch.Tensor, steps: int, proposals: int, asked: int
) -> None:
    with patch.object(pipeline, "predict", wraps=pipeline.predict) as predict:
        volumes = draw(pipeline, image, num_inference_steps=steps, num_proposals=proposals).probabilities
    assert predict.call_count == asked
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(volumes, 2))


def test_where_the_first_step_keeps_some_signal_every_proposal_asks(image: torch.Tensor) -> None:
    pipeline = tiny_pipeline()
    pipeline.scheduler = trailing(DDIMScheduler(1000, prediction_type="v_prediction"))
    with patch.object(pipeline, "predict", wraps=pipeline.predict) as predict:
        draw(pipeline, image, num_inference_steps=2, num_proposals=3)
    assert predict.call_count == 6


def test_default_steps_are_the_models_own(pipeline: ProGiDiffPipeline, image: torch.Tensor) -> None:
    seen: list[int] = []
    draw(pipeline, image, num_proposals=1, on_step=lambda done, total: seen.append(total))
    assert seen == [2, 2]


def test_one_step_is_finite_with_all_noise_allowed(image: torch.Tensor) -> None:
    """At zero terminal SNR the first step divides by nothing it should not."""
    pipeline = tiny_pipeline()
    pipeline.register_to_config(eta=0.99)
    for steps in (1, 4):
        assert draw(pipeline, image, num_inference_steps=steps).probabilities.isfinite().all()


def test_cancel_between_steps(pipeline: ProGiDiffPipeline, image: torch.Tensor) -> None:
    seen: list[int] = []
    with pytest.raises(Cancelled):
        draw(
            pipeline,
            image,
            num_inference_steps=10,
            on_step=lambda done, total: seen.append(done),
            cancelled=lambda: len(seen) == 3,
        )
    assert seen == [1, 2, 3]


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((5, 32), {}),
        ((0, 32, 32), {}),
        ((5, 30, 32), {}),
        ((1, 5, 32, 32), {}),
        ((5, 32, 32), {"num_proposals": 0}),
        ((5, 32, 32), {"num_inference_steps": -1}),
        ((5, 32, 32), {"num_inference_steps": 1001}),
        ((5, 32, 32), {"pixel_mm": 0.0}),
        ((5, 32, 32), {"slice_mm": -5.0}),
        ((5, 32, 32), {"pixel_mm": float("nan")}),
    ],
)
def test_impossible_requests_are_refused(
    pipeline: ProGiDiffPipeline, shape: tuple[int, ...], options: dict[str, float]
) -> None:
    with pytest.raises(UsageError):
        draw(pipeline, torch.zeros(shape), **options)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 300.0])
def test_images_that_are_not_normalised_are_refused(pipeline: ProGiDiffPipeline, value: float) -> None:
    with pytest.raises(UsageError):
        draw(pipeline, torch.full((3, 32, 32), value))


def test_broken_weights_are_reported_and_not_drawn(image: torch.Tensor) -> None:
    pipeline = tiny_pipeline()
    pipeline.unet.conv_out.bias.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="invalid numbers"):
        draw(pipeline, image)


def test_saved_and_loaded_it_draws_the_same(pipeline: ProGiDiffPipeline, image: torch.Tensor) -> None:
    again = ProGiDiffPipeline.from_pretrained(tiny_model(), local_files_only=True, use_safetensors=True)
    assert again.config.default_steps == 2 and again.config.eta == pytest.approx(0.9)
    assert torch.equal(draw(pipeline, image).probabilities, draw(again, image).probabilities)
    assert torch.equal(draw(pipeline, image).organs, draw(again, image).organs)


def test_only_safetensors_are_written() -> None:
    files = {p.suffix for p in tiny_model().rglob("*") if p.is_file()}
    assert files <= {".json", ".safetensors", ".txt", ".md"}


def test_saving_and_loading_twice_gives_the_same_folder(tmp_path: Path) -> None:
    ProGiDiffPipeline.from_pretrained(tiny_model(), local_files_only=True).save_pretrained(tmp_path)
    for file in tiny_model().rglob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / file.relative_to(tiny_model())).read_bytes()


# --- the relations of the noise schedule ------------------------------------------------------------


def noised() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(3, 4, 4, 4, generator=generator) for _ in range(2))
    return clean, noise, torch.tensor([0, 400, 998])


def test_terminal_noise_holds_no_image() -> None:
    scheduler = make_scheduler()
    assert float(scheduler.alphas_cumprod[-1]) == 0
    scheduler.set_timesteps(1)
    assert scheduler.timesteps.tolist() == [999]


def test_velocity_gives_the_clean_latents_back() -> None:
    clean, noise, timesteps = noised()
    scheduler = make_scheduler()
    noisy = scheduler.add_noise(clean, noise, timesteps)
    velocity = training_target(scheduler, clean, noise, timesteps)
    assert torch.equal(velocity, scheduler.get_velocity(clean, noise, timesteps))
    for recover in (clean_from_velocity, clean_from_output):
        assert torch.allclose(recover(scheduler, noisy, velocity, timesteps), clean, atol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "sample"])
def test_other_predictions_give_the_clean_latents_back(kind: str) -> None:
    clean, noise, timesteps = noised()
    scheduler = type(make_scheduler())(beta_schedule="scaled_linear", prediction_type=kind)
    noisy = scheduler.add_noise(clean, noise, timesteps)
    target = training_target(scheduler, clean, noise, timesteps)
    assert torch.equal(target, noise if kind == "epsilon" else clean)
    assert torch.allclose(clean_from_output(scheduler, noisy, target, timesteps), clean, atol=1e-3)


def test_features_are_cut_like_a_list(pipeline: ProGiDiffPipeline, image: torch.Tensor) -> None:
    features = pipeline.encode_image(image, 2.0)
    part = features[1:3]
    assert torch.equal(part.control, features.control[1:3]) and torch.equal(part.organs, features.organs[1:3])
    assert replace(features).detail is features.detail
