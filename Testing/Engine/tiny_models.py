"""Tiny models with random weights, built once a test session."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel, logging
from progidiff.pipelines.locator import OrganLocator
from progidiff.pipelines.progidiff.build import TINY, build_text_encoder, build_unet, build_vae
from progidiff.pipelines.progidiff.control_net import MaskControlNet
from progidiff.pipelines.progidiff.diffusion import make_scheduler
from progidiff.pipelines.progidiff.image_encoder import ImageEncoder
from progidiff.pipelines.progidiff.pipeline import ProGiDiffPipeline
from progidiff.pipelines.progidiff.refiner import MaskRefiner
from progidiff.prompts import organ_table
from progidiff.training.tokenizer import train_tokenizer
from transformers import CLIPTokenizer

FOUND = ("liver", "pancreas")
"""The organs that the tiny locator sees, everywhere; it sees no others."""

CONTROL, DETAIL = 8, 4
logging.set_verbosity_error()
logging.disable_progress_bar()


@cache
def tiny_tokenizer() -> CLIPTokenizer:
    return train_tokenizer(300, 20)


def tiny_pipeline(seed: int = 0, *, trained: bool = True) -> ProGiDiffPipeline:
    """All parts, 32×32 crops.

    Args:
        seed: of the weights.
        trained: gives the convolutions that start at zero some weight, as training would.
    """
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    unet = build_unet(TINY)
    controlnet, refiner = (
        MaskControlNet.from_generator(unet, CONTROL),
        MaskRefiner(DETAIL, TINY.text_width, 4),
    )
    if trained:
        give_weight_to_zeros(controlnet)
        give_weight_to_zeros(refiner)
    pipeline = ProGiDiffPipeline(
        vae=build_vae(TINY),
        text_encoder=build_text_encoder(TINY, tokenizer),
        tokenizer=tokenizer,
        unet=unet,
        controlnet=controlnet,
        image_encoder=tiny_encoder(),
        refiner=refiner,
        locator=tiny_locator(),
        scheduler=make_scheduler(),
        default_steps=2,
    )
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    return pipeline


def tiny_encoder(slices: int = 3) -> ImageEncoder:
    return ImageEncoder(slices, 13, (8, 8, 8, 8), CONTROL, DETAIL, TINY.crop)


def tiny_locator() -> OrganLocator:
    """Sees the organs of `FOUND` in every voxel."""
    locator = OrganLocator(13, (8, 8), 12.0)
    bias = torch.zeros(14, 8)
    for organ in FOUND:
        bias[organ_table().by_id(organ).label] = 3.0
    torch.nn.init.zeros_(locator.head.weight)
    locator.head.bias.data.copy_(bias.flatten())
    return locator


def give_weight_to_zeros(module: torch.nn.Module) -> None:
    """Fills parameters that are all zero with small random numbers."""
    for parameter in module.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)


@cache
def tiny_model() -> Path:
    """Folder of a saved `tiny_pipeline()`. Copy it before changing it."""
    folder = _temporary_folder() / "tiny"
    tiny_pipeline().save_pretrained(folder)
    return folder


@cache
def tiny_stable_diffusion() -> Path:
    """A folder in the layout of Stable Diffusion 1.5 on the hub, with all its parts, tiny and random."""
    torch.manual_seed(5)
    folder = _temporary_folder() / "tiny-stable-diffusion"
    tokenizer = tiny_tokenizer()
    photo_vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        sample_size=64,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 16, 32, 32),
        cross_attention_dim=TINY.text_width,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    scheduler = PNDMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, skip_prk_steps=True, steps_offset=1
    )
    photo_vae.save_pretrained(folder / "vae")
    unet.save_pretrained(folder / "unet")
    build_text_encoder(TINY, tokenizer).save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    scheduler.save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    return folder


@cache
def _temporary_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="progidiff-tiny-models-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
