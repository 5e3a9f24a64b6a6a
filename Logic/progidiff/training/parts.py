"""The networks of each stage: built anew, taken from an earlier stage, or from a Stable Diffusion."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from progidiff.errors import ModelError, UsageError
from progidiff.pipelines.locator import OrganLocator
from progidiff.pipelines.progidiff.build import build_text_encoder, build_unet, build_vae
from progidiff.pipelines.progidiff.control_net import MaskControlNet
from progidiff.pipelines.progidiff.diffusion import make_scheduler
from progidiff.pipelines.progidiff.image_encoder import ImageEncoder
from progidiff.pipelines.progidiff.refiner import MaskRefiner
from progidiff.pipelines.progidiff.stable_diffusion import load_stable_diffusion
from progidiff.prompts import organ_table
from progidiff.training.configuration import Configuration
from progidiff.training.tokenizer import train_tokenizer

PARTS: dict[str, tuple[str, ...]] = {
    "locator": ("locator",),
    "encoder": ("image_encoder",),
    "autoencoder": ("vae",),
    "generator": ("tokenizer", "text_encoder", "unet"),
    "wordings": ("text_encoder",),
    "control": ("controlnet", "image_encoder", "refiner"),
    "refiner": ("refiner",),
}
"""What each stage leaves in its folder `parts`; an unfrozen control stage also leaves the unet."""

_CLASSES: dict[str, Any] = {
    "locator": OrganLocator,
    "image_encoder": ImageEncoder,
    "vae": AutoencoderKL,
    "tokenizer": CLIPTokenizer,
    "text_encoder": CLIPTextModel,
    "unet": UNet2DConditionModel,
    "controlnet": MaskControlNet,
    "refiner": MaskRefiner,
}


@dataclass
class Generator:
    """The text-to-mask generator with all that belongs to it."""

    vae: AutoencoderKL
    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    scheduler: DDIMScheduler


def load_part(folder: Path, stage: str, name: str) -> Any:
    """A part that an earlier stage left.

    Raises:
        UsageError: that stage has not been trained.
        ModelError: the part is damaged.
    """
    place = folder / "parts" / name
    if not place.is_dir():
        raise UsageError(f"The stage {stage} has not been trained in this run.", f"First: train {stage}.")
    kind = _CLASSES[name]
    options: dict[str, Any] = {} if name == "tokenizer" else {"use_safetensors": True}
    if name == "text_encoder":
        options["dtype"] = torch.float32
    try:
        return kind.from_pretrained(place, local_files_only=True, **options)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{place} cannot be loaded ({reason}).", f"Train {stage} again with --fresh."
        ) from error


def new_locator(configuration: Configuration) -> OrganLocator:
    size = configuration.locator
    return OrganLocator(len(organ_table().organs), size.channels, size.spacing, votes=True)


def new_encoder(configuration: Configuration) -> ImageEncoder:
    size = configuration.encoder
    return ImageEncoder(
        size.slices,
        len(organ_table().organs),
        size.channels,
        size.control_channels,
        size.detail_channels,
        configuration.crop,
        # How wide a ready-made base's text embedding is, is not known yet: it goes without evidence.
        0 if configuration.base else configuration.generator.text_width,
        votes=True,
    )


def new_control(
    configuration: Configuration, unet: UNet2DConditionModel, encoder: ImageEncoder
) -> tuple[MaskControlNet, MaskRefiner]:
    """A ControlNet that copies the generator's encoder half, and a refiner; both change nothing yet."""
    refiner = MaskRefiner(
        encoder.refinable_channels, unet.config.cross_attention_dim, configuration.encoder.refiner_width
    )
    return MaskControlNet.from_generator(unet, encoder.condition_channels), refiner


def new_generator(configuration: Configuration, vae: AutoencoderKL) -> Generator:
    """An untrained generator for the latents of `vae`."""
    tokenizer = train_tokenizer(configuration.vocabulary)
    size = configuration.generator
    scheduler = make_scheduler(configuration.prediction)
    return Generator(vae, tokenizer, build_text_encoder(size, tokenizer), build_unet(size), scheduler)


def new_vae(configuration: Configuration) -> AutoencoderKL:
    return build_vae(configuration.generator)


def base_generator(configuration: Configuration, allow_download: bool = False) -> Generator:
    """The configured Stable Diffusion, with the schedule it shall be used with.

    Raises:
        ModelError: it cannot be loaded, or is no base.
    """
    parts = load_stable_diffusion(configuration.base, allow_download=allow_download)
    scheduler = parts.scheduler
    if configuration.prediction not in ("epsilon", scheduler.config.prediction_type):
        scheduler = make_scheduler(configuration.prediction)  # the UNet is going to learn it
    return Generator(parts.vae, parts.tokenizer, parts.text_encoder, parts.unet, scheduler)


def save_parts(folder: Path, parts: dict[str, Any]) -> None:
    """Write a stage's parts as `folder/parts/NAME`, all or none."""
    partial, final = folder / "parts.partial", folder / "parts"
    shutil.rmtree(partial, ignore_errors=True)
    for name, part in parts.items():
        part.save_pretrained(partial / name)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
