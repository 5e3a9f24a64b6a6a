"""Steering on a model in closed form: smooth random blobs, whose perfect denoiser is a Wiener filter."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from progidiff.errors import Cancelled, ModelError, UsageError
from progidiff.pipelines.progidiff.diffusion import make_scheduler
from progidiff.pipelines.progidiff.image_encoder import ImageFeatures
from progidiff.pipelines.progidiff.noise import coherent_noise
from progidiff.pipelines.steering import Knowledge, SteeredSampler
from torch import Tensor
from torch.nn import functional as F

SLICES, EDGE, CELL = 6, 64, 8
SPACING = (5.0, 1.5, 1.5)


class BlobPipeline:
    """The parts of ProGiDiffPipeline that steering uses, for masks whose logits are a smooth Gaussian field.

    Latents are the pixels themselves, 8×8 of them folded into 64 channels.
    """

    def __init__(self, smooth: float = 5.0) -> None:
        self.scheduler = make_scheduler()
        self.config = SimpleNamespace(eta=0.9)
        frequency = torch.fft.fftfreq(EDGE)
        radius = frequency[:, None] ** 2 + frequency[None] ** 2
        power = torch.exp(-2 * (torch.pi * smooth) ** 2 * radius) + 1e-6
        self.power = power / power.mean()

    def noise(self, features: ImageFeatures, slice_mm: float, generator: torch.Generator) -> Tensor:
        return coherent_noise(SLICES, (CELL * CELL, EDGE // CELL, EDGE // CELL), slice_mm, generator)

    def encode_mask(self, mask: Tensor) -> Tensor:
        return F.pixel_unshuffle((mask * 2 - 1)[:, None] * 1.2, CELL)

    def decode_mask(self, latents: Tensor) -> Tensor:
        return (F.pixel_shuffle(latents, CELL)[:, 0] * 4).sigmoid()

    def decode(self, latents: Tensor, features: ImageFeatures, text: Tensor) -> Tensor:
        return self.decode_mask(latents)

    def predict(self, latents: Tensor, timestep: Tensor, features: ImageFeatures, text: Tensor) -> Tensor:
        a = self.scheduler.alphas_cumprod[timestep]
        gain = a.sqrt() * self.power / (a * self.power + 1 - a)
        noisy = F.pixel_shuffle(latents, CELL)
        clean = torch.fft.ifft2(torch.fft.fft2(noisy) * gain).real
        noise = (noisy - a.sqrt() * clean) / (1 - a).sqrt()
        return F.pixel_unshuffle(a.sqrt() * noise - (1 - a).sqrt() * clean, CELL)


FEATURES = ImageFeatures(torch.zeros(0), torch.zeros(0), torch.zeros(SLICES, 2, EDGE, EDGE))
PIPELINE = BlobPipeline()


def sampler(strength: float, steps: int = 6, knowledge: Knowledge | None = None) -> SteeredSampler:
    return SteeredSampler(PIPELINE, FEATURES, torch.zeros(1, 2, 3), SPACING, strength, steps, knowledge)


def draw(
    strength: float, guess: Tensor | None, seed: int = 0, knowledge: Knowledge | None = None, steps: int = 6
) -> Tensor:
    return sampler(strength, steps, knowledge).draw(guess, seed, lambda done: None)


def disc(row: float = 32, column: float = 32, radius: float = 14) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(EDGE), torch.arange(EDGE), indexing="ij")
    return ((rows - row) ** 2 + (columns - column) ** 2 < radius**2).float().expand(SLICES, -1, -1)


def dice(a: Tensor, b: Tensor) -> float:
    a, b = a > 0.5, b > 0.5
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def knowledge_of(where: Tensor, value: float) -> Knowledge:
    return Knowledge(
        torch.full((SLICES, EDGE, EDGE), value), where.float().expand(SLICES, -1, -1).contiguous()
    )


# -- from a mask -----------------------------------------------------------------------------------


def test_strength_zero_gives_the_mask_back() -> None:
    assert dice(draw(0.0, disc()), disc()) == 1.0


def test_the_likeness_to_the_parent_falls_as_the_strength_grows() -> None:
    likeness = []
    for strength in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        likeness.append(np.mean([dice(draw(strength, disc(), seed), disc()) for seed in range(4)]))
    assert (np.diff(likeness) < 0).all(), likeness
    assert likeness[1] > 0.85
    assert likeness[-1] < 0.6


def test_the_same_seed_varies_the_same_way_and_another_one_otherwise() -> None:
    assert torch.equal(draw(0.6, disc(), 1), draw(0.6, disc(), 1))
    assert not torch.equal(draw(0.6, disc(), 1), draw(0.6, disc(), 2))


def test_slices_vary_together() -> None:
    drawn = draw(0.8, disc(), 3) > 0.5
    assert np.mean([dice(drawn[n].float(), drawn[n + 1].float()) for n in range(SLICES - 1)]) > 0.8


def test_without_a_mask_the_models_own_draft_is_the_start() -> None:
    assert 0.02 < float((draw(0.7, None) > 0.5).float().mean()) < 0.98
    assert sampler(0.7).evaluations(with_draft=True) == sampler(0.7).evaluations(with_draft=False) + 1


# -- around what is known --------------------------------------------------------------------------


def test_cells_that_are_known_entirely_are_certain() -> None:
    where = torch.zeros(EDGE, EDGE)
    where[8:24, 8:23] = 1  # two rows of cells, one whole column and a part of the next
    known = knowledge_of(where, 1.0)
    certain = known.certain_cells(CELL)[0, 0].nonzero().tolist()
    assert certain == [[1, 1], [2, 1]]
    assert known.hinted_cells(CELL)[0, 0, 0, 3]
    assert not known.hinted_cells(CELL)[0, 0, 0, 5]


def test_a_known_half_stays_as_it_is() -> None:
    where = torch.zeros(EDGE, EDGE)
    where[:, :32] = 1
    known = Knowledge(disc(), where.expand(SLICES, -1, -1).contiguous())
    drawn = draw(1.0, torch.zeros(SLICES, EDGE, EDGE), 5, known)
    assert dice(drawn[:, :, :32], disc()[:, :, :32]) == 1.0


def test_the_seam_of_a_known_half_is_sounder_than_a_pasted_one() -> None:
    where = torch.zeros(EDGE, EDGE)
    where[:, :32] = 1
    known = Knowledge(disc(), where.expand(SLICES, -1, -1).contiguous())

    def broken(mask: Tensor) -> float:
        return float(((mask[:, :, 31] > 0.5) != (mask[:, :, 32] > 0.5)).float().mean())

    seeds = range(6)
    empty = torch.zeros(SLICES, EDGE, EDGE)
    around = np.mean([broken(draw(1.0, empty, seed, known)) for seed in seeds])
    pasted = np.mean([broken(torch.where(where > 0, disc(), draw(1.0, empty, seed))) for seed in seeds])
    assert around < 0.7 * pasted, (around, pasted)


def test_a_point_is_followed_although_it_is_smaller_than_a_cell() -> None:
    spot = disc(32, 50, 3)[0]
    parent = disc(32, 26, 12)
    followed = [draw(0.6, parent, seed, knowledge_of(spot, 1.0))[:, 32, 50].mean() for seed in range(4)]
    ignored = [draw(0.6, parent, seed)[:, 32, 50].mean() for seed in range(4)]
    assert np.mean(followed) > 0.5 > np.mean(ignored)


def test_a_point_outside_is_followed_too() -> None:
    spot = disc(32, 38, 3)[0]
    parent = disc(32, 26, 16)
    followed = [draw(0.5, parent, seed, knowledge_of(spot, 0.0))[:, 32, 38].mean() for seed in range(4)]
    ignored = [draw(0.5, parent, seed)[:, 32, 38].mean() for seed in range(4)]
    assert np.mean(followed) < 0.5 < np.mean(ignored)


# -- progress, cancelling, errors ------------------------------------------------------------------


def test_progress_counts_up_to_the_number_of_evaluations() -> None:
    one = sampler(0.7, knowledge=knowledge_of(disc()[0], 1.0))
    seen: list[int] = []
    one.draw(None, 0, seen.append)
    assert seen == list(range(1, one.evaluations(with_draft=True) + 1))


def test_it_stops_between_two_evaluations() -> None:
    seen: list[int] = []
    with pytest.raises(Cancelled):
        sampler(1.0).draw(disc(), 0, seen.append, cancelled=lambda: len(seen) == 2)
    assert seen == [1, 2]


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_out_of_range_is_refused(strength: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        sampler(strength)


def test_numbers_that_are_not_finite_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PIPELINE, "predict", lambda latents, *_: latents * float("nan"), raising=False)
    with pytest.raises(ModelError, match="invalid numbers"):
        draw(0.5, disc())
