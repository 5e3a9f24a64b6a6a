"""Starting half-way and holding on to known latents, checked against distributions in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from progidiff.pipelines.progidiff.diffusion import make_scheduler
from progidiff.pipelines.sampling import (
    KnownLatents,
    add_noise,
    descend,
    levels_between,
    signal_at,
    step_down,
    step_plan,
)
from torch import Tensor

SCHEDULER = make_scheduler()


def gaussian(mean: Tensor, covariance: Tensor):
    """The perfect network for data N(mean, covariance) over the channels: E[v | x_t], exactly."""

    def predict(latents: Tensor, timestep: Tensor) -> Tensor:
        a = SCHEDULER.alphas_cumprod[timestep]
        noisy_covariance = a * covariance + (1 - a) * torch.eye(len(mean))
        gain = a.sqrt() * covariance @ torch.linalg.inv(noisy_covariance)
        x = latents[:, :, 0, 0]
        clean = mean + (x - a.sqrt() * mean) @ gain.T
        noise = (x - a.sqrt() * clean) / (1 - a).sqrt()
        return (a.sqrt() * noise - (1 - a).sqrt() * clean)[..., None, None]

    return predict


def white(shape: tuple[int, ...], seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(shape, generator=generator)


def test_levels_fall_from_the_strength_to_zero() -> None:
    assert levels_between(1.0, 4, 1000) == [1000, 750, 500, 250, 0]
    assert levels_between(0.0, 4, 1000) == [0]
    assert levels_between(0.5, 8, 1000) == [500, 375, 250, 125, 0]
    assert levels_between(0.1, 4, 1000) == [100, 50, 0]
    assert levels_between(1.0, 1, 1000) == [1000, 0]
    assert levels_between(0.001, 50, 1000) == [1, 0]


def test_every_step_but_the_last_is_repeated() -> None:
    assert step_plan([1000, 500, 0], 2) == [(1000, 500), (1000, 500), (500, 0)]
    assert step_plan([0], 3) == []


def test_levels_are_the_schedulers_trailing_timesteps() -> None:
    SCHEDULER.set_timesteps(4)
    assert [level - 1 for level in levels_between(1.0, 4, 1000)[:-1]] == SCHEDULER.timesteps.tolist()


def test_a_step_is_the_schedulers_step() -> None:
    noise = white((3, 4, 2, 2))
    noisy, output, fresh = noise(), noise(), noise()
    SCHEDULER.set_timesteps(4)
    for upper, lower in ((1000, 750), (500, 250), (250, 0)):
        theirs = SCHEDULER.step(output, upper - 1, noisy, eta=0.9, variance_noise=fresh)
        ours = step_down(SCHEDULER, noisy, theirs.pred_original_sample, fresh, upper, lower, 0.9)
        torch.testing.assert_close(ours, theirs.prev_sample, atol=1e-4, rtol=1e-4)


def test_noise_added_in_two_steps_is_that_of_one() -> None:
    clean = torch.full((20000, 1, 1, 1), 3.0)
    noise = white(clean.shape)
    twice = add_noise(SCHEDULER, add_noise(SCHEDULER, clean, noise(), 0, 200), noise(), 200, 600)
    a = signal_at(SCHEDULER, 600)
    assert twice.mean() == pytest.approx(float(3 * a.sqrt()), abs=0.03)
    assert twice.var() == pytest.approx(float(1 - a), abs=0.03)


def test_a_descent_from_pure_noise_draws_from_the_data() -> None:
    mean, covariance = torch.tensor([1.0, -2.0]), torch.tensor([[0.5, 0.3], [0.3, 0.4]])
    start = torch.zeros(8000, 2, 1, 1)
    levels = levels_between(1.0, 200, 1000)
    drawn = descend(SCHEDULER, gaussian(mean, covariance), start, levels, white(start.shape), eta=0.9)[
        :, :, 0, 0
    ]
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.05)
    np.testing.assert_allclose(torch.cov(drawn.T), covariance, atol=0.04)


def test_the_distance_to_the_parent_grows_with_the_strength() -> None:
    mean, covariance = torch.zeros(2), torch.eye(2)
    parent = torch.tensor([2.0, -1.5]).expand(3000, 2)[..., None, None]
    distances = []
    for strength in (0.0, 0.1, 0.25, 0.5, 0.75, 1.0):
        levels = levels_between(strength, 10, 1000)
        drawn = descend(SCHEDULER, gaussian(mean, covariance), parent, levels, white(parent.shape), eta=0.9)
        distances.append(float((drawn - parent).norm(dim=1).mean()))
    assert distances[0] == 0.0
    assert all(np.diff(distances) > 0.05)


def test_known_latents_come_out_untouched() -> None:
    start = white((5, 3, 2, 2), seed=1)()
    cells = torch.zeros(5, 1, 2, 2, dtype=torch.bool)
    cells[1:3, :, 0] = True
    predict = lambda latents, timestep: torch.tanh(latents)  # noqa: E731
    drawn = descend(
        SCHEDULER,
        predict,
        start,
        levels_between(0.8, 4, 1000),
        white(start.shape),
        eta=0.9,
        known=KnownLatents(start, cells),
        resamplings=2,
    )
    kept = cells.expand_as(start)
    assert torch.equal(drawn[kept], start[kept])
    assert not torch.isclose(drawn[~kept], start[~kept]).any()


def test_resampling_makes_the_rest_suit_what_is_known() -> None:
    """Two strongly correlated numbers, one of them known: the other should follow it (RePaint's figure 2)."""
    mean, covariance = torch.zeros(2), torch.tensor([[1.0, 0.95], [0.95, 1.0]])
    start = torch.zeros(4000, 2, 1, 1)
    start[:, 0] = 1.5
    predict = gaussian(mean, covariance)

    def unlike(resamplings: int) -> float:
        """How far the unknown one's mean is from the 0.95·1.5 that follows from the known one.

        Both numbers must be cells of one slice here, so the network is shown them as channels.
        """
        first = torch.tensor([True, False]).view(1, 1, 1, 2).expand(4000, 1, 1, 2)
        drawn = descend(
            SCHEDULER,
            lambda latents, timestep: as_cells(predict(as_channels(latents), timestep)),
            as_cells(start),
            levels_between(1.0, 30, 1000),
            white((4000, 1, 1, 2)),
            eta=0.9,
            known=KnownLatents(as_cells(start), first),
            resamplings=resamplings,
        )
        return abs(float(as_channels(drawn)[:, 1].mean()) - 0.95 * 1.5)

    once, often = unlike(1), unlike(5)
    assert often < 0.5 * once
    assert often < 0.2


def as_cells(latents: Tensor) -> Tensor:
    """(B, 2, 1, 1) → (B, 1, 1, 2)."""
    return latents.permute(0, 3, 2, 1)


def as_channels(latents: Tensor) -> Tensor:
    return latents.permute(0, 3, 2, 1)


def test_the_network_is_asked_as_often_as_planned_and_can_be_stopped() -> None:
    class Stop(Exception):
        pass

    calls = []

    def before_step() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Stop

    start = torch.zeros(1, 1, 2, 2)
    with pytest.raises(Stop):
        descend(
            SCHEDULER,
            lambda latents, timestep: latents,
            start,
            levels_between(1.0, 4, 1000),
            white(start.shape),
            eta=0.9,
            before_step=before_step,
        )
    assert len(calls) == 3
