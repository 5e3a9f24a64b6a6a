"""AdamW and Muon: what they train, how long their steps are, and that a stopped training goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from progidiff.errors import UsageError
from progidiff.training.configuration import Configuration, read_configuration
from progidiff.training.loop import Losses, Schedule, Stage, train
from progidiff.training.optimizers import Muon, build_optimizers, orthogonal
from safetensors.torch import load_file
from torch import nn

SCHEDULE = Schedule(8, 4, 0.02, warmup=0, precision="no", optimizer="muon")


class Words(Stage):
    """An embedding, a convolution, a linear layer and a narrow output."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(32, 16)
        self.convolution = nn.Conv1d(16, 32, 3, padding=1)
        self.linear = nn.Linear(32, 24)
        self.output = nn.Linear(24, 3)

    def forward(self, batch: int, rng: np.random.Generator) -> Losses:
        words = torch.from_numpy(rng.integers(0, 32, (batch, 5)))
        hidden = self.convolution(self.words(words).transpose(1, 2)).mean(2)
        answer = self.output(torch.tanh(self.linear(hidden)))
        return {"fit": (answer - words[:, :3] / 32.0).square().mean()}


def run(folder: Path, stage: Stage, schedule: Schedule = SCHEDULE, **options: object) -> dict[str, float]:
    return train(stage, schedule, folder, device="cpu", **options)  # type: ignore[arg-type]


def after(calls: int) -> Callable[[], bool]:
    count = iter(range(10**6))
    return lambda: next(count) >= calls


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 90), st.integers(0, 2**31))
def test_every_direction_of_an_orthogonal_step_is_equally_long(rows: int, columns: int, seed: int) -> None:
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    matrix = u @ torch.diag(s.clamp(min=0.05 * float(s.max()))) @ v  # vanishing ones need not arrive
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert float(values.min()) > 0.3 and float(values.max()) < 1.3


def test_an_orthogonal_matrix_has_the_directions_of_the_given_one() -> None:
    matrix = torch.randn(12, 30, generator=torch.Generator().manual_seed(1))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    made = orthogonal(matrix)
    assert torch.trace(u.T @ made @ v.T) > 0.6 * 12  # all along its own directions, none reversed
    assert torch.allclose(orthogonal(matrix.T), made.T, atol=1e-5)
    assert torch.allclose(orthogonal(1e4 * matrix), made, atol=1e-4)


def test_no_gradient_at_all_is_no_step_and_no_number_that_is_none() -> None:
    assert torch.equal(orthogonal(torch.zeros(20, 30)), torch.zeros(20, 30))
    weight = nn.Parameter(torch.ones(20, 30))
    weight.grad = torch.zeros(20, 30)
    Muon([weight], lr=0.1, weight_decay=0.0).step()
    assert torch.equal(weight, torch.ones(20, 30))


@pytest.mark.parametrize("shape", [(32, 64), (64, 16), (32, 16, 3, 3), (16, 16, 3, 3, 3)])
def test_steps_are_as_long_as_those_of_adamw(shape: tuple[int, ...]) -> None:
    """About 0.2 of the learning rate for every weight, whatever the gradient's scale."""
    for scale in (1e-4, 1e4):
        weight = nn.Parameter(torch.zeros(shape))
        weight.grad = scale * torch.randn(shape, generator=torch.Generator().manual_seed(2))
        Muon([weight], lr=1.0).step()
        assert 0.1 < float(weight.detach().square().mean().sqrt()) < 0.3


def test_who_trains_what() -> None:
    stage = Words()
    stage.linear.bias.requires_grad_(False)
    muon, adamw = build_optimizers(stage, "muon", 0.01, 0.0)
    names = {id(p): name for name, p in stage.named_parameters()}

    def trained(optimizer: torch.optim.Optimizer) -> set[str]:
        return {names[id(p)] for group in optimizer.param_groups for p in group["params"]}

    assert isinstance(muon, Muon) and trained(muon) == {"convolution.weight", "linear.weight"}
    rest = {"words.weight", "convolution.bias", "output.weight", "output.bias"}
    assert isinstance(adamw, torch.optim.AdamW) and trained(adamw) == rest
    (all_of_it,) = build_optimizers(stage, "adamw", 0.01, 0.0)
    assert trained(all_of_it) == {"convolution.weight", "linear.weight"} | rest


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_it_learns(tmp_path: Path, optimizer: str) -> None:
    before = Words()(64, np.random.default_rng(0))["fit"].item()
    stage = Words()
    run(tmp_path, stage, replace(SCHEDULE, steps=150, optimizer=optimizer, ema_decay=0.9))
    assert stage(64, np.random.default_rng(0))["fit"].item() < before / 3


def test_stopped_and_resumed_has_its_moments_again(tmp_path: Path) -> None:
    whole, first, second = Words(), Words(), Words()
    run(tmp_path / "whole", whole)
    run(tmp_path / "parts", first, cancelled=after(3))
    kept = load_file(tmp_path / "parts" / "checkpoint.safetensors")
    assert kept["muon.momentum.linear.weight"].abs().max() > 0
    assert kept["adam.exp_avg.words.weight"].abs().max() > 0
    run(tmp_path / "parts", second)
    a, b = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "parts"))
    assert set(a) == set(b)
    for name, value in a.items():
        if name.startswith(("muon", "adam.step")):
            assert value.shape == b[name].shape and bool(b[name].abs().max() > 0)
    assert int(b["adam.step.words.weight"]) == 8


@pytest.mark.parametrize(("before", "then"), [("adamw", "muon"), ("muon", "adamw")])
def test_a_training_may_go_on_with_the_other_optimizer(tmp_path: Path, before: str, then: str) -> None:
    run(tmp_path, Words(), replace(SCHEDULE, optimizer=before), cancelled=after(3))
    kept = load_file(tmp_path / "checkpoint.safetensors")
    stage = Words()
    run(tmp_path, stage, replace(SCHEDULE, optimizer=then), cancelled=after(0))
    now = load_file(tmp_path / "checkpoint.safetensors")
    assert torch.equal(now["parameter.linear.weight"], kept["parameter.linear.weight"])
    run(tmp_path, stage, replace(SCHEDULE, optimizer=then))
    assert all(bool(torch.isfinite(p).all()) for p in stage.parameters())


def test_an_unknown_optimizer_is_refused() -> None:
    values = read_configuration("embedded").to_json()
    values["stages"]["encoder"]["optimizer"] = "sgd"
    with pytest.raises(UsageError, match="optimizer of encoder"):
        Configuration.from_json(values)
