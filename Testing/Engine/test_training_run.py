"""`progidiff train` end to end with the smoke test's sizes: stages, resuming, killing, assembling."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from progidiff.cli.main import main
from progidiff.cli.train import _stop_on_signals
from progidiff.errors import Cancelled, CasesError, DeviceError, ModelError, OutputError, UsageError
from progidiff.segmenter import Segmenter
from progidiff.training.assemble import assemble, load_pipeline
from progidiff.training.configuration import STAGES, Configuration, load_configuration
from progidiff.training.run import DataSelection, TrainingRun, stage_summary
from safetensors.torch import load_file
from training_samples import configuration, phantom, small_phantoms, write_cases, write_configuration

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cases(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A run whose stages have all ended. Copy it before changing it."""
    folder = tmp_path_factory.mktemp("run")
    run = TrainingRun(folder, configuration(), DataSelection((data,)), device="cpu")
    for stage in run.stages:
        run.train(stage)
    return folder


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def phantom_run(folder: Path, given: Configuration | None = None, **options: object) -> TrainingRun:
    return TrainingRun(folder, given or configuration(), device="cpu", **options)  # type: ignore[arg-type]


def adam_steps(stage_folder: Path) -> int:
    tensors = load_file(stage_folder / "checkpoint.safetensors")
    return max(int(value) for name, value in tensors.items() if name.startswith("adam.step."))


# --- the stages end to end --------------------------------------------------------------------------


def test_each_stage_leaves_its_parts_and_a_summary(trained: Path) -> None:
    parts = {stage: sorted(p.name for p in (trained / stage / "parts").iterdir()) for stage in STAGES}
    assert parts == {
        "locator": ["locator"],
        "encoder": ["image_encoder"],
        "autoencoder": ["vae"],
        "generator": ["text_encoder", "tokenizer", "unet"],
        "wordings": ["text_encoder"],
        "control": ["controlnet", "image_encoder", "refiner"],
        "refiner": ["refiner"],
    }
    summary = stage_summary(trained / "control")
    assert summary is not None and summary["steps"] == 2 and summary["batch"] == 4
    assert set(summary["built_on"]) == {"encoder", "autoencoder", "generator", "wordings"}


def test_nothing_is_pickled(trained: Path) -> None:
    kinds = {p.suffix for p in trained.rglob("*") if p.is_file()}
    assert kinds <= {".safetensors", ".json", ".jsonl", ".npy", ".txt"}


def test_the_record_says_what_was_learnt_from(trained: Path, data: Path) -> None:
    record = json.loads((trained / "training_data.json").read_text(encoding="utf-8"))
    assert record["cases"] == ["case_0", "case_1", "case_2"]
    assert record["domains"] == {"CT": 2, "labels": 1}
    assert record["phantoms"] == {"count": 1, "first_seed": 1000} and record["terms"]
    assert str(data) not in json.dumps(record)  # no paths of this computer


def test_the_autoencoder_is_scaled(trained: Path) -> None:
    config = json.loads(
        (trained / "autoencoder" / "parts" / "vae" / "config.json").read_text(encoding="utf-8")
    )
    assert config["scaling_factor"] not in (1.0, 0.18215) and config["scaling_factor"] > 0


def test_the_assembled_model_segments(copy: Path) -> None:
    folder = assemble(copy)
    assert folder == copy / "progidiff-smoke-test" and not (copy / "progidiff-smoke-test.partial").exists()
    segmenter = Segmenter.load(str(folder), "cpu")
    result = segmenter.segment(phantom(9)[0], "liver", proposals=1, steps=1)
    assert len(result.sets) == 1 and segmenter.default_steps == 2
    assert segmenter.pipeline.refiner.config.weighs_evidence
    record = json.loads((folder / "training_data.json").read_text(encoding="utf-8"))
    assert [stage["stage"] for stage in record["stages"]][-1] == "refiner"


def test_a_model_that_predicts_x0_is_trained_assembled_and_segments(tmp_path: Path) -> None:
    given = replace(configuration(), prediction="sample", mask_losses=False)
    run = phantom_run(tmp_path, given)
    for stage in run.stages:
        run.train(stage)
    folder = assemble(tmp_path)
    segmenter = Segmenter.load(str(folder), "cpu")
    scheduler = segmenter.pipeline.scheduler
    assert scheduler.config.prediction_type == "sample" and float(scheduler.alphas_cumprod[-1]) == 0
    proposals = segmenter.segment(phantom(9)[0], "liver", proposals=2, steps=2).sets[0].proposals
    assert all(torch.isfinite(torch.as_tensor(proposal.score)) for proposal in proposals)
    assert "predicts x0 on a schedule" in (folder / "README.md").read_text(encoding="utf-8")


def test_half_precision_is_close_to_what_was_trained(copy: Path) -> None:
    given = load_configuration(copy / "configuration.json")
    full = load_pipeline(copy, given)
    half = Segmenter.load(str(assemble(copy)), "cpu").pipeline
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    a, b = (p(image, "liver", 2.0, 5.0, num_proposals=1).probabilities for p in (full, half))
    assert (a - b).abs().mean() < 0.01
    for weights in (copy / given.name).rglob("*.safetensors"):
        assert {t.dtype for t in load_file(weights).values()} == {torch.float16}, weights


def test_the_card_is_filled_from_the_run(copy: Path) -> None:
    card = (assemble(copy) / "README.md").read_text(encoding="utf-8")
    assert "$" not in card and "Not a medical device" in card and "Not measured yet" in card
    assert "3 cases (2 CT, 1 labels); 1 phantoms." in card
    assert "| control | 2 |" in card and "frozen while the ControlNet learnt" in card


def test_assembling_again_replaces_the_model(copy: Path) -> None:
    (assemble(copy) / "old.txt").write_text("from before")
    assert not (assemble(copy) / "old.txt").exists()


def test_a_generator_trained_after_control_does_not_fit(copy: Path) -> None:
    run = TrainingRun(copy, device="cpu")
    run.configuration = replace(
        run.configuration,
        stages={
            **run.configuration.stages,
            "generator": replace(run.configuration.stages["generator"], seed=9),
        },
    )
    run.train("generator", fresh=True)
    for go_on in (lambda: run.train("control", fresh=True), lambda: assemble(copy)):
        with pytest.raises(UsageError, match="generator was trained again after wordings"):
            go_on()
    assert (copy / "control" / "summary.json").is_file(), "what was learnt is not thrown away for nothing"


def test_frozen_and_unfrozen_can_be_compared_in_one_run(copy: Path) -> None:
    run = TrainingRun(copy, device="cpu", unfrozen=True)
    for stage in ("control", "refiner"):
        run.train(stage)
    frozen = load_file(copy / "generator" / "parts" / "unet" / "diffusion_pytorch_model.safetensors")
    moved = load_file(copy / "control_unfrozen" / "parts" / "unet" / "diffusion_pytorch_model.safetensors")
    assert any(not torch.equal(frozen[name], moved[name]) for name in frozen)
    card = (assemble(copy, unfrozen=True) / "README.md").read_text(encoding="utf-8")
    assert "trained together with the ControlNet" in card


@pytest.mark.parametrize("stage", ["generator", "control"])
def test_a_stage_needs_those_before_it(tmp_path: Path, stage: str) -> None:
    with pytest.raises(UsageError, match="has not been trained"):
        phantom_run(tmp_path).train(stage)


def test_assembling_an_unfinished_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no training run"):
        assemble(tmp_path)
    phantom_run(tmp_path).train("locator")
    with pytest.raises(UsageError, match="encoder"):
        assemble(tmp_path)


def test_damaged_parts_are_reported(copy: Path) -> None:
    file = copy / "control" / "parts" / "controlnet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ModelError, match="controlnet"):
        assemble(copy)


# --- resuming ---------------------------------------------------------------------------------------


def test_an_ended_stage_is_not_trained_again_but_can_be_prolonged(tmp_path: Path) -> None:
    phantom_run(tmp_path).train("encoder")
    before = (tmp_path / "encoder" / "checkpoint.safetensors").stat().st_mtime_ns
    phantom_run(tmp_path).train("encoder")
    assert (tmp_path / "encoder" / "checkpoint.safetensors").stat().st_mtime_ns == before
    summary = phantom_run(tmp_path, configuration(steps=5)).train("encoder")
    assert summary["steps"] == 5 == adam_steps(tmp_path / "encoder")


def test_stopped_and_continued(tmp_path: Path) -> None:
    calls = iter(range(100))
    packing = 1  # the one phantom asks, too
    run = phantom_run(tmp_path, configuration(6), cancelled=lambda: next(calls) >= 3 + packing)
    with pytest.raises(Cancelled, match="step 3"):
        run.train("encoder")
    assert stage_summary(tmp_path / "encoder") is None and adam_steps(tmp_path / "encoder") == 3
    assert phantom_run(tmp_path, configuration(6)).train("encoder")["steps"] == 6
    assert adam_steps(tmp_path / "encoder") == 6


def test_fresh_begins_anew(tmp_path: Path) -> None:
    phantom_run(tmp_path, configuration(4)).train("locator")
    phantom_run(tmp_path, configuration(2)).train("locator", fresh=True)
    assert adam_steps(tmp_path / "locator") == 2


def test_a_killed_run_continues(tmp_path: Path) -> None:
    """SIGKILL in the middle of a stage, then SIGTERM, then to the end: no step is lost or repeated."""
    given = configuration(10**6)
    stages = {n: replace(s, checkpoint_minutes=0.0) for n, s in given.stages.items()}
    config = write_configuration(tmp_path / "config.json", replace(given, stages=stages))
    checkpoint = tmp_path / "run" / "encoder" / "checkpoint.safetensors"
    command = [sys.executable, "-m", "progidiff", "train", "encoder", "--config", str(config)]
    command += ["--output", str(tmp_path / "run"), "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    wait_for_steps(process, checkpoint, 3)
    process.kill()
    process.communicate()
    killed_at = adam_steps(checkpoint.parent)
    assert killed_at >= 3 and stage_summary(checkpoint.parent) is None

    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    wait_for_steps(process, checkpoint, killed_at + 2)
    process.send_signal(signal.SIGTERM)
    _, words = process.communicate(timeout=60)
    stopped_at = adam_steps(checkpoint.parent)
    assert process.returncode == 130, words
    assert f"Stopped encoder at step {stopped_at}" in words and "Traceback" not in words

    summary = phantom_run(tmp_path / "run", configuration(stopped_at + 2)).train("encoder")
    assert summary["steps"] == stopped_at + 2 == adam_steps(checkpoint.parent)


def wait_for_steps(process: subprocess.Popen[str], checkpoint: Path, steps: int) -> None:
    deadline = time.monotonic() + 150
    while not checkpoint.is_file() or adam_steps(checkpoint.parent) < steps:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)


# --- misuse -----------------------------------------------------------------------------------------


def test_other_cases_are_refused(copy: Path, data: Path) -> None:
    with pytest.raises(UsageError, match="other cases"):
        TrainingRun(copy, selection=DataSelection((data,), ("case_0",)), device="cpu")
    with pytest.raises(UsageError, match="other cases"):
        TrainingRun(copy, selection=DataSelection((data,), fold=(1, 2)), device="cpu")
    TrainingRun(copy, selection=DataSelection((data,)), device="cpu")


def test_other_sizes_are_refused(copy: Path) -> None:
    other = replace(configuration(), generator=replace(configuration().generator, latent_channels=8))
    with pytest.raises(UsageError, match="another generator"):
        TrainingRun(copy, other, device="cpu")


def test_the_data_need_not_be_named_again(copy: Path) -> None:
    run = TrainingRun(copy, device="cpu")
    assert {case.id for case in run.cases} == {"case_0", "case_1", "case_2", "phantom_1000"}


def test_cases_without_images_serve_the_generator_alone(tmp_path: Path) -> None:
    data = write_cases(tmp_path / "data", images=0, label_maps=1)
    given = configuration(phantoms=small_phantoms(0))
    run = TrainingRun(tmp_path / "run", given, DataSelection((data,)), device="cpu")
    assert run.train("autoencoder")["steps"] == 2
    for stage in ("locator", "encoder"):
        with pytest.raises(CasesError, match="image"):
            run.train(stage)


def test_nothing_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(CasesError, match="nothing to train on"):
        phantom_run(tmp_path / "run", configuration(phantoms=small_phantoms(0)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CasesError):
        TrainingRun(tmp_path / "run", configuration(), DataSelection((tmp_path / "empty",)), device="cpu")


def test_losses_that_explode_stop_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("progidiff.training.loop._Clock.log_due", lambda self: True)
    given = configuration(50)
    stages = {n: replace(s, learning_rate=1e30, gradient_clip=0.0, warmup=0) for n, s in given.stages.items()}
    with pytest.raises(ModelError, match="no numbers"):
        phantom_run(tmp_path, replace(given, stages=stages)).train("encoder")


def test_devices(tmp_path: Path) -> None:
    with pytest.raises(DeviceError):
        TrainingRun(tmp_path, configuration(), device="tpu")


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("hello")
    with pytest.raises(OutputError):
        phantom_run(tmp_path / "run")


# --- the command ------------------------------------------------------------------------------------


def command(tmp_path: Path, *words: str) -> int:
    return main(["train", *words, "--output", str(tmp_path / "run"), "--device", "cpu"])


def test_all_in_one_command(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = Path(shutil.copytree(data, tmp_path / "data"))
    shutil.copy(data / "case_0_image.nii.gz", data / "unnamed_image.nii.gz")
    config = write_configuration(tmp_path / "config.json", configuration(1))
    words = [
        "all",
        "--config",
        str(config),
        "--data",
        str(data),
        "--fold",
        "1/2",
        "--exclude",
        "case_2",
        "--cache",
        str(tmp_path / "c"),
    ]
    assert command(tmp_path, *words) == 0
    printed = capsys.readouterr()
    assert "progidiff-smoke-test" in printed.out and "control: 1 steps" in printed.err
    assert "Not used, because no organ is labelled by name: unnamed" in printed.err
    record = json.loads(
        (tmp_path / "run" / "progidiff-smoke-test" / "training_data.json").read_text(encoding="utf-8")
    )
    assert (tmp_path / "run" / "kept_aside.txt").read_text(encoding="utf-8") == "case_0\n"  # of the fold
    assert record["kept_aside"] == ["case_0", "case_2"] and list((tmp_path / "c").glob("CT__case_1.*.npy"))


def test_minutes_limit_a_stage(tmp_path: Path) -> None:
    config = write_configuration(tmp_path / "config.json", configuration(10**6))
    assert command(tmp_path, "encoder", "--config", str(config), "--minutes", "0.01") == 0
    summary = stage_summary(tmp_path / "run" / "encoder")
    assert summary is not None and 0 < summary["steps"] < 10**5


def test_a_signal_that_comes_twice_at_once_is_one_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C reaches the training from the terminal, and again from `accelerate launch`."""
    with _stop_on_signals() as stopped:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert stopped()
        monkeypatch.setattr("progidiff.cli.train._SECONDS_OF_ONE_STOP", -1.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["encoder", "--config", "nonsense"], 2, "embedded"),
        (["encoder", "--config", "smoke-test", "--minutes", "0"], 2, "positive"),
        (["encoder", "--config", "smoke-test", "--fold", "1/3"], 2, "--data"),
        (["encoder", "--config", "smoke-test", "--exclude", "a"], 2, "--data"),
        (["encoder", "--config", "smoke-test", "--base", "x"], 2, "its own generator"),
        (["encoder", "--config", "smoke-test", "--report", "x"], 2, "model folder"),
        (["encoder", "--config", "smoke-test", "--data", "/nowhere"], 1, "/nowhere"),
        (["encoder", "--config", "smoke-test", "--data", str(HERE), "--fold", "x"], 2, "no fold"),
        (["encoder", "--config", "smoke-test", "--data", str(HERE), "--fold", "²/3"], 2, "no fold"),
        (["control", "--config", "smoke-test"], 2, "First: train"),
        (["assemble"], 2, "no training run"),
    ],
)
def test_misuse_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    assert command(tmp_path, *words) == code
    error = capsys.readouterr().err
    assert "Error:" in error and message in error and "Traceback" not in error


@pytest.mark.parametrize("words", [["bake"], [], ["encoder", "--fresh", "--resume"]])
def test_what_the_parser_refuses(tmp_path: Path, words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command(tmp_path, *words)
    assert caught.value.code == 2
