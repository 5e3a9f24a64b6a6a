"""Stable Diffusion as the frozen generator: its parts from any folder or hub id in the diffusers layout.

The base's UNet predicts the noise ε, on a schedule whose last step still holds a trace of the image
(ᾱ of 0.005 for Stable Diffusion 1.5). A frozen generator can only be used as it was trained, so its
prediction type and its betas are kept, and training turns ε into x0 where a mask is needed
(`diffusion.clean_from_output`). What is changed is the sampler: DDIM with trailing timesteps, so that
few steps begin at the noisiest one. The remedy for the trace of image, v-prediction with zero terminal
SNR, needs a UNet that learns: a generator that is fine-tuned or trained unfrozen gets `make_scheduler`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTokenizer

from progidiff.errors import ModelError

_FACTOR = 8  # latents are this much smaller than the crop; the image encoder's features fit no other


@dataclass
class StableDiffusionParts:
    """What is used of a Stable Diffusion; the safety checker and feature extractor are not.

    Attributes:
        vae: photo autoencoder, 3 channels in and out, latents 1/8 of the picture's size.
        text_encoder, tokenizer: CLIP pair.
        unet: denoiser.
        scheduler: DDIM with the base's betas and prediction type, trailing timesteps.
    """

    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    unet: UNet2DConditionModel
    scheduler: DDIMScheduler


def load_stable_diffusion(
    source: str, *, allow_download: bool = False, dtype: torch.dtype = torch.float32
) -> StableDiffusionParts:
    """Load the parts of a Stable Diffusion 1.x or 2.x, one by one; only safetensors weights are read.

    Args:
        source: folder in the diffusers layout, or a hub id (of 1.5:
            "stable-diffusion-v1-5/stable-diffusion-v1-5").
        allow_download: False looks for a hub id on this computer only and never opens a connection.
        dtype: of the weights in memory.

    Raises:
        ModelError: it is not there, incomplete, has pickled weights only, or is of another kind.
    """
    parts = {
        name: load_base_part(source, name, allow_download=allow_download, dtype=dtype) for name in _CLASSES
    }
    made = StableDiffusionParts(**parts)
    _check_fit(made, source)
    return made


def load_base_part(
    source: str, name: str, *, allow_download: bool = False, dtype: torch.dtype = torch.float32
) -> Any:
    """One part alone: "scheduler", "vae", "text_encoder", "tokenizer" or "unet".

    Args and errors are those of `load_stable_diffusion`.
    """
    folder = Path(source).expanduser()
    if folder.is_dir() and not (folder / name).is_dir():
        raise ModelError(f"{source} is no Stable Diffusion: {name} is missing.", "Choose another folder.")
    place = str(folder) if folder.is_dir() else source
    options: dict[str, Any] = {"subfolder": name, "local_files_only": not allow_download}
    if name == "scheduler":
        return trailing(_first_that_loads(DDIMScheduler, place, [options]))
    if name == "tokenizer":
        return _first_that_loads(CLIPTokenizer, place, [options])
    options["use_safetensors"] = True
    # Some folders hold weights in half precision alone, under other file names.
    return _first_that_loads(_CLASSES[name], place, [options, {**options, "variant": "fp16"}]).to(dtype)


_CLASSES: dict[str, Any] = {
    "scheduler": DDIMScheduler,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "tokenizer": CLIPTokenizer,
    "unet": UNet2DConditionModel,
}


def _first_that_loads(kind: Any, place: str, attempts: list[dict[str, Any]]) -> Any:
    problem: Exception | None = None
    for options in attempts:
        try:
            return kind.from_pretrained(place, **options)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
            problem = problem or error
    reason = str(problem).strip().splitlines()[0]
    raise ModelError(
        f"The {attempts[0]['subfolder']} of {place} cannot be loaded ({reason}).",
        "Give a folder with safetensors weights, or allow the download with --allow-download.",
    ) from problem


def trailing(scheduler: DDIMScheduler) -> DDIMScheduler:
    """The same betas and prediction type, sampled from the very last timestep on.

    Raises:
        ModelError: a prediction type this project does not know.
    """
    changed = DDIMScheduler.from_config(
        scheduler.config, timestep_spacing="trailing", clip_sample=False, thresholding=False, steps_offset=0
    )
    if changed.config.prediction_type not in ("epsilon", "v_prediction", "sample"):
        raise ModelError(
            f"The base predicts {changed.config.prediction_type!r}, which is not known.",
            "Choose a base that predicts epsilon, v_prediction or sample.",
        )
    return changed


def _check_fit(parts: StableDiffusionParts, source: str) -> None:
    unet, vae = parts.unet.config, parts.vae.config
    width = parts.text_encoder.config.hidden_size
    problem = ""
    if unet.in_channels != vae.latent_channels:
        problem = f"its UNet takes {unet.in_channels} channels, its latents have {vae.latent_channels}"
    elif unet.cross_attention_dim != width:
        problem = f"its UNet reads text of width {unet.cross_attention_dim}, its text encoder gives {width}"
    elif unet.addition_embed_type or unet.class_embed_type or unet.encoder_hid_dim_type:
        problem = "its UNet needs more than text, as that of SDXL does"
    elif 2 ** (len(vae.block_out_channels) - 1) != _FACTOR:
        problem = f"its latents are not {_FACTOR} times smaller than the picture"
    if problem:
        raise ModelError(
            f"{source} cannot be the base: {problem}.",
            "Use Stable Diffusion 1.5 or another text-to-image model of its build.",
        )
