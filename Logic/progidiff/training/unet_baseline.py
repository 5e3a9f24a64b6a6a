"""The deterministic baseline: a plain U-Net that names all organs of whole axial slices at once.

It learns from the same cases, folds, slices and augmentation as the diffusion model, with the same weights of
organs and the same start. It is MONAI's `UNet` (Ronneberger et al., MICCAI 2015, with the residual units of
Kerfoot et al., STACOM 2018) in sizes derived from the same configuration: about as many weights and as much
arithmetic a step as the control stage trains (embedded: 10.3 against 9.9 million weights, 120 against 116
GFLOP). There is no prompt, no crop around an organ and no coarse pass: that is what the comparison is about.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from monai.networks.nets import UNet
from torch import Tensor, nn

from progidiff.errors import ModelError, UsageError
from progidiff.pipelines.votes import expect
from progidiff.prompts import organ_table
from progidiff.training.case_store import PackedCase
from progidiff.training.class_balance import class_shares, rarity_weights
from progidiff.training.configuration import Configuration
from progidiff.training.loop import Losses, Schedule, Stage
from progidiff.training.losses import organ_loss
from progidiff.training.run import TrainingRun
from progidiff.training.slice_data import OrganSlices
from progidiff.training.stages import stage_folder, with_organs

STAGE = "unet"
PART = "unet_baseline"
_WINDOW_MM = 384.0  # holds the organs of large patients; a window of 192 pixels then has pixels of 2 mm
_ANYWHERE = 0.2  # share of slices drawn from the whole volume: chest and pelvis must be seen to stay empty


@dataclass(frozen=True)
class UNetSize:
    """Sizes of the baseline.

    Attributes:
        channels: features at each scale, the finest first.
        slices: neighbouring slices, odd.
        window: edge of the training window in pixels, a multiple of the deepest stride.
        batch: windows in a step.
    """

    channels: tuple[int, ...] = (48, 96, 192, 384, 512)
    slices: int = 5
    window: int = 192
    batch: int = 6

    @property
    def pixel_mm(self) -> float:
        return _WINDOW_MM / self.window

    @classmethod
    def beside(cls, configuration: Configuration) -> UNetSize:
        """Comparable with a configuration's control stage in weights and in arithmetic a step."""
        widths = configuration.encoder.channels
        channels = tuple(min(widths[0] * 3 * 2**n // 2, widths[-1] * 2) for n in range(len(widths)))
        batch = max(1, configuration.stages["control"].batch * 3 // 4)
        return cls(channels, configuration.encoder.slices, configuration.crop * 3 // 2, batch)


class OrganUNet(ModelMixin, ConfigMixin):
    """MONAI's 2D U-Net on neighbouring slices as channels.

    Args:
        slices: number of neighbouring slices, odd; the middle one is segmented.
        organs: number of organ classes; class 0 of the output is background.
        channels: features at each scale; each but the last halves the resolution.
        window: edge of the windows it was trained on.
        pixel_mm: edge of their pixels.
    """

    @register_to_config
    def __init__(
        self,
        slices: int = 5,
        organs: int = 13,
        channels: tuple[int, ...] = (48, 96, 192, 384, 512),
        window: int = 192,
        pixel_mm: float = 2.0,
    ) -> None:
        super().__init__()
        self.network = UNet(
            spatial_dims=2,
            in_channels=slices,
            out_channels=organs + 1,
            channels=tuple(channels),
            strides=(2,) * (len(channels) - 1),
            num_res_units=2,
        )

    @property
    def last(self) -> nn.Conv2d:
        """The convolution that gives the logits."""
        return [layer for layer in self.network.modules() if isinstance(layer, nn.Conv2d)][-1]

    @property
    def stride(self) -> int:
        """Heights and widths must be multiples of this."""
        return int(2 ** (len(self.config.channels) - 1))

    def forward(self, image: Tensor) -> Tensor:
        """Slices with their neighbours (B, slices, H, W) in [−1, 1] → logits (B, 1 + organs, H, W)."""
        return self.network(image)


class WholeSlices(OrganSlices):
    """The slices that `OrganSlices` draws, not cropped to one organ but in one window over all of them.

    Args:
        cases: packed cases with images.
        window: edge of the window in pixels.
        pixel_mm: edge of a pixel, before it is varied.
        slices: neighbouring slices, odd.
        appearance: strength of the appearance randomisation, 0…1.
    """

    def __init__(
        self,
        cases: list[PackedCase],
        window: int = 192,
        pixel_mm: float = 2.0,
        slices: int = 5,
        appearance: float = 1.0,
    ) -> None:
        super().__init__(cases, window, slices, len(organ_table().organs), appearance=appearance)
        self.pixel_mm = pixel_mm

    def _window(self, index: int, organ: int) -> tuple[np.ndarray, float]:
        low = np.min([box[0] for box in self.boxes[index].values()], axis=0)[1:]
        high = np.max([box[1] for box in self.boxes[index].values()], axis=0)[1:]
        return (low + high) / 2 * np.array(self.cases[index].spacing)[1:], self.pixel_mm

    def _slice_number(
        self, case: PackedCase, organ: int, low: float, high: float, rng: np.random.Generator
    ) -> int:
        if case.checked is None and rng.random() < _ANYWHERE:
            return int(rng.integers(len(case.label)))
        return super()._slice_number(case, organ, low, high, rng)


class UNetStage(Stage):
    """Cross-entropy and batch Dice over all organs, with the weights that the image encoder learns them with.

    Args:
        network: to be trained.
        slices: what it learns from.
        class_weight: (1 + organs,) weights of the cross-entropy.
    """

    def __init__(self, network: OrganUNet, slices: WholeSlices, class_weight: Tensor) -> None:
        super().__init__()
        self.network, self.slices, self.class_weight = network, slices, class_weight

    def forward(self, batch: int, rng: np.random.Generator) -> Losses:
        drawn = self.slices.batch(batch, rng).to(next(self.network.parameters()).device)
        logits = self.network(drawn.image)
        return {"organs": organ_loss(logits, drawn.label, drawn.known, self.class_weight.to(logits.device))}


class UNetRun(TrainingRun):
    """A training run whose only stage is the baseline, in the folder `unet`.

    It may be the run folder of the diffusion model: packed cases and fold are then the same by construction.
    Takes the arguments of `TrainingRun`. Without a time limit of its own it may train as long as all stages
    of the configuration together.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.size = UNetSize.beside(self.configuration)
        schedule = baseline_schedule(self.configuration, self.size)
        self.configuration = replace(self.configuration, stages={STAGE: schedule})

    @property
    def stages(self) -> list[str]:
        return [STAGE]

    def _build(self, stage: str) -> tuple[Stage, dict[str, Any]]:
        size = self.size
        network = OrganUNet(size.slices, len(organ_table().organs), size.channels, size.window, size.pixel_mm)
        cases = with_organs(self.cases)
        slices = WholeSlices(cases, size.window, size.pixel_mm, size.slices, self.configuration.appearance)
        shares = class_shares(cases, slices.organs)
        expect(network.last, shares)
        return UNetStage(network, slices, rarity_weights(shares)), {PART: network}

    def _built_on(self, stage: str) -> dict[str, str]:
        return {}


def baseline_schedule(configuration: Configuration, size: UNetSize) -> Schedule:
    """That of the stage that learns to see, as the baseline does, with the time of all stages."""
    stages = configuration.stages
    minutes = sum(schedule.max_minutes for schedule in stages.values())
    return replace(stages.get("encoder", stages["control"]), batch=size.batch, max_minutes=minutes)


def load_unet(run: Path) -> OrganUNet:
    """The trained baseline of a run folder.

    Raises:
        UsageError: it has not been trained to its end.
        ModelError: it is damaged.
    """
    place = stage_folder(run, STAGE) / "parts" / PART
    if not place.is_dir():
        raise UsageError(f"{run} holds no trained U-Net.", f"First: progidiff train {STAGE} --output {run}.")
    try:
        network: OrganUNet = OrganUNet.from_pretrained(place, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{place} cannot be loaded ({reason}).", f"Train {STAGE} again with --fresh."
        ) from error
    return network.eval()
