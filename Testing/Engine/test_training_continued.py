"""A run that is prolonged or begun anew keeps what fits together, and says what does not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from progidiff.cli.main import main
from progidiff.errors import Cancelled, CasesError, UsageError
from progidiff.training.assemble import assemble
from progidiff.training.configuration import STAGES, Configuration
from progidiff.training.run import DataSelection, TrainingRun, stage_summary
from progidiff.training.unet_baseline import UNetRun
from safetensors.torch import load_file
from training_samples import configuration, phantom, small_phantoms, write_cases, write_configuration


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cases(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run = TrainingRun(folder, configuration(), DataSelection((data,)), device="cpu")
    for stage in run.stages:
        run.train(stage)
    return folder


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def steps(folder: Path) -> dict[str, int]:
    ended = {stage: stage_summary(folder / stage) for stage in STAGES}
    return {stage: summary["steps"] for stage, summary in ended.items() if summary}


def train_all(folder: Path, tmp_path: Path, given: Configuration, *words: str) -> int:
    config = write_configuration(tmp_path / "config.json", given)
    words = ("all", "--config", str(config), "--output", str(folder), "--device", "cpu", *words)
    return main(["train", *words])


# --- begun anew ---------------------------------------------------------------------------------------


def test_fresh_keeps_the_cases_unless_others_are_named(copy: Path, data: Path) -> None:
    run = TrainingRun(copy, configuration(), device="cpu", fresh=True)
    assert {case.id for case in run.cases} == {"case_0", "case_1", "case_2", "phantom_1000"}
    other = TrainingRun(copy, configuration(), DataSelection((data,), ("case_0",)), device="cpu", fresh=True)
    assert {case.id for case in other.cases} == {"case_1", "case_2", "phantom_1000"}


def test_fresh_leaves_no_stage_that_has_learnt_from_other_cases(copy: Path, data: Path) -> None:
    """A run that is stopped half-way must not go on with generator and control of before."""
    TrainingRun(copy, configuration(), DataSelection((data,), ("case_0",)), device="cpu", fresh=True)
    assert steps(copy) == {}


# --- prolonged ----------------------------------------------------------------------------------------


def test_all_goes_on_with_control_once_that_has_begun(copy: Path, tmp_path: Path) -> None:
    assert train_all(copy, tmp_path, configuration(4)) == 0
    assert steps(copy) == {**dict.fromkeys(STAGES, 2), "locator": 4, "control": 4, "refiner": 4}
    assert (copy / "progidiff-smoke-test" / "model_index.json").is_file()


def test_what_settled_stages_do_not_use_is_time_for_the_others(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage in ("encoder", "autoencoder", "generator", "wordings"):
        path = copy / stage / "summary.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "minutes": 0.5}))
    assert train_all(copy, tmp_path, configuration(10**6), "--minutes", "2.03") == 0
    summaries = {stage: stage_summary(copy / stage) for stage in ("locator", "control", "refiner")}
    assert 0 < sum(s["minutes"] for s in summaries.values() if s) < 0.3
    assert "encoder: 2 steps, 0.5 min" in capsys.readouterr().err


def test_before_control_has_begun_the_encoder_goes_on(tmp_path: Path, data: Path) -> None:
    run = TrainingRun(tmp_path / "run", configuration(), DataSelection((data,)), device="cpu")
    for stage in ("encoder", "autoencoder"):
        run.train(stage)
    assert run.settled() == []
    run.train("generator")
    assert run.settled() == ["autoencoder"]


def test_control_does_not_go_on_with_another_encoder(copy: Path) -> None:
    longer = configuration(3)
    TrainingRun(copy, longer, device="cpu").train("encoder")
    with pytest.raises(UsageError, match="control was begun with another encoder") as caught:
        TrainingRun(copy, longer, device="cpu").train("control")
    assert "--fresh" in str(caught.value)
    run = TrainingRun(copy, longer, device="cpu")
    assert run.train("control", fresh=True)["steps"] == 3


def test_the_refiner_follows_control(copy: Path) -> None:
    run = TrainingRun(copy, configuration(3), device="cpu")
    run.train("control")
    run.configuration = configuration(2)
    assert run.train("refiner")["steps"] == 2
    assert json.loads((copy / "refiner" / "summary.json").read_text())["built_on"] == run._built_on("refiner")
    assemble(copy)


def test_a_control_stage_stopped_before_its_first_step_takes_up_the_newest_encoder(copy: Path) -> None:
    shutil.rmtree(copy / "control")
    run = TrainingRun(copy, device="cpu")
    run.cancelled = lambda: True
    with pytest.raises(Cancelled, match="step 0"):
        run.train("control")
    given = configuration(1)
    still = replace(given.stages["control"], learning_rate=1e-12)
    given = replace(
        given, stages={**given.stages, "encoder": configuration(3).stages["encoder"], "control": still}
    )
    run = TrainingRun(copy, given, device="cpu")
    run.train("encoder")
    run.train("control")
    newest, taken = (
        load_file(copy / stage / "parts" / "image_encoder" / "diffusion_pytorch_model.safetensors")
        for stage in ("encoder", "control")
    )
    assert torch.allclose(newest["stem.weight"], taken["stem.weight"], atol=1e-6)


# --- data ---------------------------------------------------------------------------------------------


def test_a_shared_cache_does_not_pass_on_another_data_sets_patients(tmp_path: Path) -> None:
    cache, given = tmp_path / "cache", configuration()
    mine, others = write_cases(tmp_path / "mine"), write_cases(tmp_path / "others", 1, 0)
    TrainingRun(tmp_path / "a", given, DataSelection((mine,)), cache=cache, device="cpu")
    TrainingRun(tmp_path / "a", cache=cache, device="cpu")
    TrainingRun(tmp_path / "b", given, DataSelection((others,)), cache=cache, device="cpu")
    with pytest.raises(CasesError, match="case_0") as caught:
        TrainingRun(tmp_path / "a", cache=cache, device="cpu")
    assert "--data" in str(caught.value)


@pytest.mark.parametrize("kind", [TrainingRun, UNetRun])
def test_cases_without_any_organ_are_refused_at_once(tmp_path: Path, kind: type[TrainingRun]) -> None:
    data = write_cases(tmp_path / "data", 1, 0)
    from progidiff.volumes import write_volume

    _, label = phantom(0)
    write_volume(replace(label, array=label.array * 0), data / "case_0_label.nii.gz")
    given = configuration(phantoms=small_phantoms(0))
    run = kind(tmp_path / "run", given, DataSelection((data,)), device="cpu")
    with pytest.raises(CasesError, match="No organ is drawn"):
        run.train(run.stages[0])


def test_the_card_lists_the_organs_that_were_annotated(tmp_path: Path) -> None:
    data = write_cases(tmp_path / "data", 2, 0)
    (data / "case_labels.json").write_text('{"6": "liver", "1": "spleen"}')
    from progidiff.volumes import write_volume

    for number in range(2):
        _, label = phantom(number)
        two = label.array * ((label.array == 6) | (label.array == 1))
        write_volume(replace(label, array=two), data / f"case_{number}_label.nii.gz")
    given = configuration(1, phantoms=small_phantoms(0))
    run = TrainingRun(tmp_path / "run", given, DataSelection((data,)), device="cpu")
    for stage in run.stages:
        run.train(stage)
    folder = assemble(tmp_path / "run")
    assert "Organs: spleen, liver.\n" in (folder / "README.md").read_text(encoding="utf-8")
    assert "made_from" not in (folder / "training_data.json").read_text(encoding="utf-8")
