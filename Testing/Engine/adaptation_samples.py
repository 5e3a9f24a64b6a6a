"""A model of a few thousand weights, and cases of a few thousand voxels, for the tests of adaptation."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from progidiff.adaptation.case_library import CaseLibrary
from progidiff.adaptation.settings import AdaptSettings
from progidiff.volumes.volume import Volume, axial_grid

SHAPE = (24, 24, 12)
SETTINGS = AdaptSettings(
    minutes=0.02,
    rank=2,
    batch=2,
    locator_batch=1,
    phantoms=0,
    proposals=1,
    rounds=2,
    most_steps=4,
    patch=(8, 8, 8),
)
LIVER = 6


@cache
def tokenizer() -> Any:
    from progidiff.training.tokenizer import train_tokenizer

    return train_tokenizer(400, 20)


def tiny_segmenter(seed: int = 0) -> Any:
    """A Segmenter with random weights whose locator sees a liver everywhere."""
    from progidiff.pipelines.locator import OrganLocator
    from progidiff.pipelines.progidiff.build import TINY, build_text_encoder, build_unet, build_vae
    from progidiff.pipelines.progidiff.control_net import MaskControlNet
    from progidiff.pipelines.progidiff.diffusion import make_scheduler
    from progidiff.pipelines.progidiff.image_encoder import ImageEncoder
    from progidiff.pipelines.progidiff.pipeline import ProGiDiffPipeline
    from progidiff.pipelines.progidiff.refiner import MaskRefiner
    from progidiff.segmenter import Segmenter

    torch.manual_seed(seed)
    unet = build_unet(TINY)
    control = MaskControlNet.from_generator(unet, feature_channels=8)
    torch.nn.init.normal_(control.controlnet_cond_embedding[-1].weight)
    locator = OrganLocator(channels=(8, 8), spacing=12.0, votes=True)
    with torch.no_grad():
        locator.head.bias.view(14, 8)[LIVER] += 2.0
    pipeline = ProGiDiffPipeline(
        build_vae(TINY),
        build_text_encoder(TINY, tokenizer()),
        tokenizer(),
        unet,
        control,
        ImageEncoder(
            slices=3, channels=(8, 8, 8, 8), control_channels=8, detail_channels=8, crop=32, votes=True
        ),
        MaskRefiner(8, TINY.text_width, 8),
        locator,
        make_scheduler(),
        default_steps=1,
    )
    for part in ("vae", "text_encoder", "unet", "controlnet", "image_encoder", "refiner", "locator"):
        getattr(pipeline, part).eval().requires_grad_(False)
    return Segmenter(pipeline, "tiny", "a" * 64, "cpu")


def scan(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> tuple[Volume, NDArray[np.bool_]]:
    """A noisy MR-like image with a bright ball, and the ball."""
    rng = np.random.default_rng(seed)
    grid = axial_grid(shape, (10.0, 10.0, 8.0), np.zeros(3))
    places = np.indices(shape) - (np.array(shape).reshape(3, 1, 1, 1) - 1) / 2
    ball = (places**2 / (np.array(shape).reshape(3, 1, 1, 1) / 3) ** 2).sum(0) < 1
    array = (100 * ball + rng.normal(60, 10, shape)).astype(np.float32)
    return Volume(array, grid.affine, "MR", f"scan {seed}"), ball


def library(folder: Path, count: int, organs: tuple[str, ...] = ("liver",)) -> CaseLibrary:
    """A library of `count` cases."""
    cases = CaseLibrary(folder)
    for n in range(count):
        image, ball = scan(n)
        for organ in organs:
            cases.add(image, ball, organ)
    return cases
