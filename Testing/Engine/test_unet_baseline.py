"""The U-Net baseline: what it sees, that it learns and resumes, and that its label maps fit their images."""

from __future__ import annotations

import itertools
import json
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from progidiff.cli.main import main
from progidiff.errors import Cancelled, ModelError, UsageError
from progidiff.evaluation.evaluate import LabelMapPredictor
from progidiff.evaluation.unet_prediction import organ_probabilities, predict_label_map, slices_grid
from progidiff.training.class_balance import class_shares, rarity_weights
from progidiff.training.configuration import read_configuration
from progidiff.training.run import DataSelection, stage_summary
from progidiff.training.unet_baseline import (
    OrganUNet,
    UNetRun,
    UNetSize,
    UNetStage,
    WholeSlices,
    baseline_schedule,
    load_unet,
)
from progidiff.volumes import Grid, Volume, axial_grid, read_label, resample
from torch import Tensor, nn
from training_samples import configuration, packed, phantom, write_cases, write_configuration

BENCHMARK = Path(__file__).parents[1] / "Benchmarks" / "unet_baseline.py"
TINY = UNetSize((8, 8, 16), slices=3, window=48, batch=4)


def tiny_unet() -> OrganUNet:
    torch.manual_seed(0)
    return OrganUNet(TINY.slices, 13, TINY.channels, TINY.window, TINY.pixel_mm).eval()


def tiny_slices() -> WholeSlices:
    return WholeSlices([packed()], TINY.window, TINY.pixel_mm, TINY.slices)


class Brightness(nn.Module):
    """Stands for a perfect network: dark is background, the brighter the higher the organ's number."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("classes", torch.arange(14.0).view(1, 14, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        wanted = (image[:, 1:2] + 1) / 2 * 13
        return -20 * (wanted - self.classes) ** 2


def seeing_unet() -> OrganUNet:
    network = tiny_unet()
    network.network = Brightness()
    return network


# --- the network and what it learns from ------------------------------------------------------------


def test_sizes_follow_the_configuration() -> None:
    size = UNetSize.beside(read_configuration("embedded"))
    assert size == UNetSize() and size.pixel_mm == 2.0
    large = UNetSize.beside(read_configuration("stable-diffusion-1.5"))
    assert large.window * large.pixel_mm == size.window * size.pixel_mm


def test_it_is_about_as_large_as_what_control_trains() -> None:
    from progidiff.training import parts

    embedded = read_configuration("embedded")
    encoder = parts.new_encoder(embedded)
    unet = parts.new_generator(embedded, parts.new_vae(embedded)).unet
    trained = [encoder, *parts.new_control(embedded, unet, encoder)]
    control = sum(p.numel() for part in trained for p in part.parameters())
    own = sum(p.numel() for p in OrganUNet().parameters())
    assert 0.9 < own / control < 1.1


def test_windows_show_all_organs_in_the_fixed_pixel() -> None:
    torch.manual_seed(0)
    batch = tiny_slices().batch(16, np.random.default_rng(0))
    assert batch.image.shape == (16, 3, 48, 48) and batch.label.shape == (16, 48, 48)
    assert batch.image.min() >= -1 and batch.image.max() <= 1 and batch.known.all()
    assert (0.79 * TINY.pixel_mm < batch.pixel_mm).all() and (batch.pixel_mm < 1.26 * TINY.pixel_mm).all()
    organs_in_slice = [len(label.unique()) - 1 for label in batch.label]
    assert max(organs_in_slice) >= 6


def test_some_slices_come_from_anywhere() -> None:
    """Chest and pelvis have to be seen, or they would not stay empty."""
    case = packed()
    rng = np.random.default_rng(0)
    numbers = {tiny_slices()._slice_number(case, 6, 5, 6, rng) for _ in range(200)}
    assert numbers == set(range(len(case.label)))


def test_loss_falls() -> None:
    torch.manual_seed(0)
    stage = UNetStage(tiny_unet().train(), tiny_slices(), torch.ones(14))
    optimizer = torch.optim.Adam(stage.parameters(), 0.01)
    losses = []
    for n in range(30):
        loss = stage(4, np.random.default_rng(n))["organs"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])


def test_it_begins_as_the_image_encoder_does(tmp_path: Path) -> None:
    """The usual share of each organ, in all voxels: the last layer must be the one whose bias counts."""
    run = UNetRun(tmp_path, configuration(1), device="cpu")
    stage, parts = run._build("unet")
    network, shares = parts["unet_baseline"].eval(), class_shares(run.cases, 13)
    before = network(torch.zeros(1, network.config.slices, 64, 64))
    with torch.no_grad():
        network.last.bias.zero_()
    difference = before - network(torch.zeros(1, network.config.slices, 64, 64))
    prior = shares.clamp(min=1e-4).log().view(1, 14, 1, 1)
    assert torch.allclose(difference, prior.expand_as(difference), atol=1e-4)
    assert torch.equal(stage.class_weight, rarity_weights(shares))


# --- runs -------------------------------------------------------------------------------------------


def test_stopped_resumed_and_ended(tmp_path: Path) -> None:
    calls = itertools.count()
    run = UNetRun(tmp_path, configuration(6), device="cpu", cancelled=lambda: next(calls) > 3)
    with pytest.raises(Cancelled, match="unet"):
        run.train("unet")
    assert (tmp_path / "unet" / "checkpoint.safetensors").is_file()
    with pytest.raises(UsageError, match="no trained U-Net"):
        load_unet(tmp_path)
    again = UNetRun(tmp_path, device="cpu")
    summary = again.train("unet")
    assert summary["steps"] == 6 and again.train("unet") == summary == stage_summary(tmp_path / "unet")
    network = load_unet(tmp_path)
    assert network.config.window == again.size.window and not network.training


def test_budget_is_that_of_all_stages() -> None:
    embedded = read_configuration("embedded")
    assert baseline_schedule(embedded, UNetSize()).max_minutes == sum(
        stage.max_minutes for stage in embedded.stages.values()
    )


def test_it_learns_as_the_image_encoder_does() -> None:
    embedded = read_configuration("embedded")
    own, seeing = baseline_schedule(embedded, UNetSize(batch=6)), embedded.stages["encoder"]
    assert (own.optimizer, own.learning_rate, own.batch) == (seeing.optimizer, seeing.learning_rate, 6)


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    network, image = tiny_unet(), torch.randn(1, 3, 48, 48)
    place = tmp_path / "unet" / "parts" / "unet_baseline"
    network.save_pretrained(place)
    with torch.no_grad():
        assert torch.equal(load_unet(tmp_path)(image), network(image))
    weights = next(place.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_unet(tmp_path)


# --- whole volumes ----------------------------------------------------------------------------------

ORIENTATIONS = list(
    itertools.product(itertools.permutations((0, 1, 2)), itertools.product((1, -1), repeat=3))
)


def turned(volume: Volume, order: tuple[int, ...], flips: tuple[int, ...]) -> Volume:
    """The same patient with axes in another order and direction."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    array = volume.array.transpose(order)
    for axis, (source, flip) in enumerate(zip(order, flips, strict=True)):
        matrix[source, axis] = flip
        matrix[source, 3] = 0 if flip > 0 else array.shape[axis] - 1
    array = array[tuple(slice(None, None, flip) for flip in flips)]
    return replace(volume, array=array, affine=volume.affine @ matrix)


def blocks() -> Volume:
    """Brightness stands for organs: a liver (6) and a spleen (1) of full slices, 8 mm pixels."""
    array = np.full((40, 36, 10), -125.0, np.float32)
    array[4:20, 8:28, 2:8] = 6 / 13 * 400 - 125
    array[26:36, 10:24, 3:6] = 1 / 13 * 400 - 125
    return Volume(array, axial_grid(array.shape, (8.0, 8.0, 8.0), np.array([3.0, -20.0, 50.0])).affine, "CT")


def truth(volume: Volume) -> NDArray[np.uint8]:
    return np.round((volume.array + 125) / 400 * 13).astype(np.uint8)


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_label_maps_lie_on_the_grid_of_their_image(order: tuple[int, ...], flips: tuple[int, ...]) -> None:
    volume = turned(blocks(), order, flips)
    label = predict_label_map(seeing_unet(), volume, "CT")
    assert label.array.dtype == np.uint8 and label.shape == volume.shape
    assert np.array_equal(label.affine, volume.affine)
    for number in (1, 6):
        found, there = label.array == number, truth(volume) == number
        assert 2 * (found & there).sum() / (found.sum() + there.sum()) > 0.9
    assert set(np.unique(label.array)) <= {0, 1, 6}


def test_oblique_thin_slices() -> None:
    angle = np.deg2rad(20)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    source = blocks()
    grid = Grid((50, 44, 90), turn @ axial_grid((50, 44, 90), (7.0, 7.0, 1.0), np.zeros(3)).affine)
    volume = resample(source, replace(grid, affine=_moved(grid, source)), fill=-125.0)
    label = predict_label_map(seeing_unet(), volume, "CT")
    assert label.shape == (50, 44, 90) and np.array_equal(label.affine, volume.affine)
    found, there = label.array == 6, truth(volume) == 6
    assert 2 * (found & there).sum() / (found.sum() + there.sum()) > 0.85


def _moved(grid: Grid, onto: Volume) -> NDArray[np.float64]:
    """The grid's affine with its centre in the centre of a volume."""

    def center(affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
        return affine[:3, :3] @ ((np.array(shape) - 1) / 2) + affine[:3, 3]

    affine = grid.affine.copy()
    affine[:3, 3] += center(onto.affine, onto.shape) - center(grid.affine, grid.shape)
    return affine


@pytest.mark.parametrize("shape", [(5, 4, 1), (48, 48, 2), (60, 50, 3)])
def test_any_size_of_volume(shape: tuple[int, int, int]) -> None:
    network, rng = tiny_unet(), np.random.default_rng(0)
    affine = axial_grid(shape, (8.0, 8.0, 5.0), np.zeros(3)).affine
    volume = Volume(rng.normal(0, 100, shape).astype(np.float32), affine, "CT")
    grid = slices_grid(network, volume.grid)
    assert all(n % network.stride == 0 and n >= TINY.window for n in grid.shape[:2])
    assert predict_label_map(network, volume).shape == shape


def test_probabilities_are_those_of_each_slice_with_its_neighbours() -> None:
    image = np.random.default_rng(0).uniform(-1, 1, (48, 48, 11)).astype(np.float32)
    network = tiny_unet()
    probability = organ_probabilities(network, image)
    assert probability.shape == (14, 48, 48, 11)
    assert np.allclose(probability.astype(np.float32).sum(0), 1, atol=0.01)
    stack = torch.from_numpy(image[..., [9, 10, 10]].transpose(2, 1, 0).copy())[None]
    with torch.no_grad():
        last = network(stack).softmax(1)[0].numpy().transpose(0, 2, 1)
    assert np.allclose(probability[..., 10], last, atol=0.002)


def test_specks_are_removed() -> None:
    volume = blocks()
    volume.array[38, 33, 9] = volume.array[10, 15, 5]
    label = predict_label_map(seeing_unet(), volume, "CT")
    assert label.array[10, 15, 5] == 6 and label.array[38, 33, 9] == 0


# --- from the shell ---------------------------------------------------------------------------------


def test_one_command_trains_predicts_and_can_be_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_cases(tmp_path / "data", images=2, label_maps=0)
    small = write_configuration(tmp_path / "small.json", configuration(2))
    run, predictions = tmp_path / "run", tmp_path / "predictions"
    benchmark = runpy.run_path(str(BENCHMARK))["main"]
    train = (
        f"--data {data} --output {run} --predictions {predictions} --fold 2/2 --config {small} --device cpu"
    )
    assert benchmark(train.split()) == 0
    assert json.loads((run / "training_data.json").read_text(encoding="utf-8"))["kept_aside"] == ["case_1"]
    assert (predictions / "cases.txt").read_text(encoding="utf-8") == "case_1\n"
    assert read_label(predictions / "case_1.nii.gz").shape == phantom(1)[0].shape
    assert LabelMapPredictor(predictions).prepare("case_1", phantom(1)[0]).array.dtype == np.uint8
    capsys.readouterr()
    listed = predictions / "cases.txt"
    measure = f"evaluate {data} --predictions {predictions} --cases {listed} --output {tmp_path / 'report'}"
    assert main([*measure.split(), "--organs", "liver", "--predictions-name", "U-Net (MONAI)"]) == 0
    assert "case_1" in capsys.readouterr().out
    assert "U-Net (MONAI)" in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")


def test_same_fold_and_cases_as_the_diffusion_model(tmp_path: Path) -> None:
    from progidiff.training.run import TrainingRun

    data = write_cases(tmp_path / "data", images=3, label_maps=1)
    selection = DataSelection((data,), fold=(1, 3))
    model = TrainingRun(tmp_path / "run", configuration(), selection, device="cpu")
    baseline = UNetRun(tmp_path / "run", device="cpu")
    assert [c.id for c in baseline.cases] == [c.id for c in model.cases]
    assert "case_0" not in {c.id for c in baseline.cases}
