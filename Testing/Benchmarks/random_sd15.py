"""Writes a ProGiDiff model of Stable Diffusion 1.5's size with random weights, to measure its speed.

    python Testing/Benchmarks/random_sd15.py FOLDER [--crop 512] [--tiny]
    python Testing/Benchmarks/speed.py --model FOLDER

About 2.9 GB on disk (half precision); no weights of Stable Diffusion are needed. The masks are noise, but
time and memory do not depend on the weights. The liver is found everywhere, so ask for the liver.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from progidiff.pipelines.locator import OrganLocator
from progidiff.pipelines.progidiff.control_net import MaskControlNet
from progidiff.pipelines.progidiff.image_encoder import ImageEncoder
from progidiff.pipelines.progidiff.pipeline import ProGiDiffPipeline
from progidiff.pipelines.progidiff.refiner import MaskRefiner
from progidiff.prompts import organ_table
from progidiff.training.assemble import save_half
from progidiff.training.tokenizer import train_tokenizer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

CONTROL_CHANNELS, DETAIL_CHANNELS = 320, 16


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="model folder to write")
    parser.add_argument("--crop", type=int, default=512, help="edge of the crops in pixels (default 512)")
    parser.add_argument("--tiny", action="store_true", help="the same layers, narrow: to try this script")
    options = parser.parse_args()
    save_half(build(options.crop, 1 / 20 if options.tiny else 1), options.folder)
    (options.folder / "README.md").write_text(
        "# Random weights\n\nStable Diffusion 1.5's size, random weights: for measuring speed only.\n",
        encoding="utf-8",
    )
    print(f"{options.folder}: {parameters(options.folder):.2f} billion parameters")
    return 0


def build(crop: int, width: float = 1) -> ProGiDiffPipeline:
    """All parts in half precision, one after the other, so that memory never holds two copies.

    Args:
        crop: edge of the crops in pixels.
        width: 1 for the real widths; 1/20 for a small model of the same build.
    """
    torch.manual_seed(0)
    tokenizer = train_tokenizer()
    tokenizer.model_max_length = 77
    unet = build_unet(round(768 * width / 32) * 32 or 32, width).half()
    encoder = ImageEncoder(
        5, 13, (48, 96, 160, 224, 320) if width == 1 else (8,) * 5, CONTROL_CHANNELS, DETAIL_CHANNELS, crop
    )
    return ProGiDiffPipeline(
        vae=build_vae(width).half(),
        text_encoder=build_text_encoder(tokenizer, unet.config.cross_attention_dim).half(),
        tokenizer=tokenizer,
        unet=unet,
        controlnet=MaskControlNet.from_generator(unet, CONTROL_CHANNELS).half(),
        image_encoder=encoder.half(),
        refiner=MaskRefiner(DETAIL_CHANNELS, unet.config.cross_attention_dim).half(),
        locator=liver_everywhere().half(),
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            timestep_spacing="trailing",
            clip_sample=False,
        ),
        default_steps=10,
    )


def build_unet(text_width: int, width: float) -> UNet2DConditionModel:
    channels = tuple(max(32, round(n * width / 32) * 32) for n in (320, 640, 1280, 1280))
    return UNet2DConditionModel(
        sample_size=64,
        block_out_channels=channels,
        cross_attention_dim=text_width,
        attention_head_dim=8,
    )


def build_vae(width: float) -> AutoencoderKL:
    channels = tuple(max(32, round(n * width / 32) * 32) for n in (128, 256, 512, 512))
    return AutoencoderKL(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )


def build_text_encoder(tokenizer: CLIPTokenizer, width: int) -> CLIPTextModel:
    """CLIP ViT-L/14's text transformer, with its full vocabulary of which our tokenizer uses a part."""
    small = width < 768
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer) if small else 49408,
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=width,
            num_hidden_layers=2 if small else 12,
            num_attention_heads=2 if small else 12,
            max_position_embeddings=77,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def liver_everywhere() -> OrganLocator:
    """A locator that sees the liver in every voxel, so that there is something to draw."""
    locator = OrganLocator()
    bias = torch.zeros(len(organ_table().organs) + 1, 8)
    bias[organ_table().by_id("liver").label] = 5.0
    torch.nn.init.zeros_(locator.head.weight)
    locator.head.bias.data.copy_(bias.flatten())
    return locator


def parameters(folder: Path) -> float:
    """Billions of parameters in half precision files."""
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors")) / 2e9


if __name__ == "__main__":
    sys.exit(main())
