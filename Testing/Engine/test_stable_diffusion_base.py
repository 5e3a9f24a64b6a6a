"""Stable Diffusion as the base, from a folder in its very layout with tiny random parts."""

from __future__ import annotations

import json
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from progidiff.errors import ModelError, UsageError
from progidiff.pipelines.progidiff.diffusion import clean_from_output
from progidiff.pipelines.progidiff.stable_diffusion import load_base_part, load_stable_diffusion
from progidiff.segmenter import Segmenter
from progidiff.training.assemble import _prediction_words, assemble
from progidiff.training.configuration import Configuration
from progidiff.training.generator import GeneratorStage
from progidiff.training.run import TrainingRun
from progidiff.training.stages import StageBuilder
from safetensors.torch import load_file
from tiny_models import tiny_stable_diffusion
from training_samples import configuration, phantom


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A copy of the tiny base, to be damaged."""
    return Path(shutil.copytree(tiny_stable_diffusion(), tmp_path / "base"))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(self: socket.socket, address: object) -> None:
        raise AssertionError(f"tried to reach {address}")

    monkeypatch.setattr(socket.socket, "connect", connect)


def with_base(*stages: str, **changes: object) -> Configuration:
    """The smoke test's configuration on the tiny base, in crops of 64 pixels."""
    smoke = configuration()
    return replace(
        smoke,
        base=str(tiny_stable_diffusion()),
        generator=replace(smoke.generator, crop=64),
        stages={name: smoke.stages[name] for name in ("locator", "control", *stages)},
        **{"prediction": "epsilon", **changes},  # type: ignore[arg-type]
    )


def trained(folder: Path, given: Configuration, **options: object) -> TrainingRun:
    run = TrainingRun(folder, given, device="cpu", **options)  # type: ignore[arg-type]
    for stage in run.stages:
        run.train(stage)
    return run


def damage(base: Path, part: str, **config: object) -> None:
    path = base / part / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **config}))


# --- loading ----------------------------------------------------------------------------------------


def test_the_parts_are_loaded_and_fit() -> None:
    parts = load_stable_diffusion(str(tiny_stable_diffusion()))
    assert parts.unet.config.in_channels == parts.vae.config.latent_channels == 4
    assert parts.vae.config.in_channels == 3 and parts.vae.config.scaling_factor == pytest.approx(0.18215)
    for part in (parts.vae, parts.unet, parts.text_encoder):
        assert {p.dtype for p in part.parameters()} == {torch.float32}


def test_the_schedule_is_the_bases_own_but_sampled_from_its_end() -> None:
    scheduler = load_base_part(str(tiny_stable_diffusion()), "scheduler")
    assert scheduler.config.prediction_type == "epsilon"
    assert float(scheduler.alphas_cumprod[-1]) == pytest.approx(0.00466, abs=1e-4)  # Stable Diffusion's
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [999, 749, 499, 249]


def test_noise_that_is_known_gives_the_mask_back_even_at_the_end() -> None:
    scheduler = load_base_part(str(tiny_stable_diffusion()), "scheduler")
    clean, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    timesteps = torch.tensor([999, 10])
    noisy = scheduler.add_noise(clean, noise, timesteps)
    assert torch.allclose(clean_from_output(scheduler, noisy, noise, timesteps), clean, atol=1e-3)


@pytest.mark.parametrize("part", ["vae", "unet", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part(base: Path, part: str) -> None:
    shutil.rmtree(base / part)
    with pytest.raises(ModelError, match=part):
        load_stable_diffusion(str(base))


def test_pickled_weights_are_not_an_alternative(base: Path) -> None:
    file = base / "unet" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(ModelError, match="unet"):
        load_stable_diffusion(str(base))


def test_truncated_weights(base: Path) -> None:
    file = base / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(ModelError, match="vae"):
        load_stable_diffusion(str(base))


def test_weights_in_half_precision_alone(base: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(base / "unet")
    shutil.rmtree(base / "unet")
    unet.half().save_pretrained(base / "unet", variant="fp16")
    assert (base / "unet" / "diffusion_pytorch_model.fp16.safetensors").is_file()
    loaded = load_stable_diffusion(str(base)).unet
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def test_a_base_that_needs_more_than_text(base: Path) -> None:
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 16, 32, 32),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
        in_channels=9,
    )
    unet.save_pretrained(base / "unet")
    with pytest.raises(ModelError, match="9 channels"):
        load_stable_diffusion(str(base))


def test_an_unknown_prediction_type(base: Path) -> None:
    path = base / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "prediction_type": "flow"}))
    with pytest.raises(ModelError, match="flow"):
        load_stable_diffusion(str(base))


def test_a_hub_id_that_is_not_here_is_not_fetched() -> None:
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load_stable_diffusion("nobody/no-such-model")
    assert "--allow-download" in caught.value.remedy


# --- training on it ---------------------------------------------------------------------------------


def test_trained_frozen_it_keeps_its_weights_and_its_prediction(tmp_path: Path) -> None:
    run = trained(tmp_path, with_base(memory_saving=True))
    assert run.stages == ["locator", "control"]
    folder = assemble(tmp_path)
    before = load_file(tiny_stable_diffusion() / "unet" / "diffusion_pytorch_model.safetensors")
    after = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(before[name].half(), after[name]) for name in before)
    segmenter = Segmenter.load(str(folder), "cpu")
    assert segmenter.pipeline.scheduler.config.prediction_type == "epsilon"
    image = torch.rand(2, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    drawn = segmenter.pipeline(image, "liver", 2.0, 5.0, num_proposals=1, num_inference_steps=3)
    assert drawn.probabilities.shape == (1, 2, 64, 64) and drawn.probabilities.isfinite().all()
    assert segmenter.segment(phantom(9)[0], "liver", proposals=1, steps=1).sets
    assert "as it is" in (folder / "README.md").read_text(encoding="utf-8")


def test_frozen_it_cannot_learn_another_prediction(tmp_path: Path) -> None:
    run = TrainingRun(tmp_path, with_base(prediction="v_prediction"), device="cpu")
    with pytest.raises(UsageError, match="cannot learn v_prediction"):
        run.train("control")


def test_unfrozen_it_learns_v_prediction(tmp_path: Path) -> None:
    trained(tmp_path, with_base(prediction="v_prediction"), unfrozen=True)
    segmenter = Segmenter.load(str(assemble(tmp_path, unfrozen=True)), "cpu")
    scheduler = segmenter.pipeline.scheduler
    assert scheduler.config.prediction_type == "v_prediction" and float(scheduler.alphas_cumprod[-1]) == 0


def test_fine_tuned_on_label_maps_first(tmp_path: Path) -> None:
    run = trained(tmp_path, with_base("generator", prediction="v_prediction"))
    assert run.stages == ["locator", "generator", "control"]
    before = load_file(tiny_stable_diffusion() / "unet" / "diffusion_pytorch_model.safetensors")
    after = load_file(tmp_path / "generator" / "parts" / "unet" / "diffusion_pytorch_model.safetensors")
    assert any(not torch.equal(before[name], after[name]) for name in before)
    folder = assemble(tmp_path)
    assert "fine-tuned on label maps" in (folder / "README.md").read_text(encoding="utf-8")
    assert Segmenter.load(str(folder), "cpu").pipeline.scheduler.config.prediction_type == "v_prediction"


def test_a_base_that_predicts_v_is_fine_tuned_on_the_schedule_it_is_used_with(
    base: Path, tmp_path: Path
) -> None:
    """Its own schedule, kept for a frozen base, does not end in pure noise."""
    path = base / "scheduler" / "scheduler_config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**values, "prediction_type": "v_prediction"}), encoding="utf-8")
    given = replace(with_base("generator", prediction="v_prediction"), base=str(base))
    run = TrainingRun(tmp_path / "run", given, device="cpu")
    stage, _ = StageBuilder(run.folder, given, run.cases).build("generator")
    assert isinstance(stage, GeneratorStage) and float(stage.scheduler.alphas_cumprod[-1]) == 0


@pytest.mark.parametrize(
    ("rescaled", "words"), [(True, "zero terminal SNR"), (False, "schedule of its base")]
)
def test_the_card_says_on_which_schedule_a_base_that_predicts_v_is_used(rescaled: bool, words: str) -> None:
    schedule = DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=rescaled)
    assert _prediction_words(schedule.config).endswith(words)
