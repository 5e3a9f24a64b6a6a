"""The few relations between what a network predicts and the clean latents, for training and sampling."""

from __future__ import annotations

from diffusers import AutoencoderKL, DDIMScheduler
from torch import Tensor

from progidiff.pipelines.schedule import zero_snr_scheduler


def make_scheduler(prediction: str = "v_prediction") -> DDIMScheduler:
    """The schedule of a network that learns here, to predict the velocity or x0 ("sample")."""
    return zero_snr_scheduler("sample" if prediction == "sample" else "v_prediction")


def clean_from_velocity(
    scheduler: DDIMScheduler, noisy: Tensor, velocity: Tensor, timesteps: Tensor
) -> Tensor:
    """x0 = √ᾱ·x_t − √(1−ᾱ)·v (Salimans & Ho, ICLR 2022).

    Args:
        scheduler: its cumulative alphas are used.
        noisy: (B, C, h, w) x_t.
        velocity: (B, C, h, w) the network's output.
        timesteps: (B,) int64.
    """
    alpha = scheduler.alphas_cumprod.to(noisy.device)[timesteps].view(-1, 1, 1, 1)
    return alpha.sqrt() * noisy - (1 - alpha).clamp(min=0).sqrt() * velocity.to(noisy.dtype)


def clean_from_output(scheduler: DDIMScheduler, noisy: Tensor, output: Tensor, timesteps: Tensor) -> Tensor:
    """x0 from the network's output, whatever the scheduler's prediction type says it predicts.

    For a network that predicts the noise, x0 = (x_t − √(1−ᾱ)·ε) / √ᾱ, which needs ᾱ > 0: such networks
    keep the schedule they were trained with, whose last step is not pure noise.

    Args:
        scheduler, noisy, timesteps: as in `clean_from_velocity`.
        output: (B, C, h, w) noise, velocity or x0.
    """
    kind = scheduler.config.prediction_type
    if kind == "v_prediction":
        return clean_from_velocity(scheduler, noisy, output, timesteps)
    if kind == "sample":
        return output.to(noisy.dtype)
    alpha = scheduler.alphas_cumprod.to(noisy.device)[timesteps].view(-1, 1, 1, 1)
    return (noisy - (1 - alpha).sqrt() * output.to(noisy.dtype)) / alpha.sqrt()


def training_target(scheduler: DDIMScheduler, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the network should answer: velocity, noise or x0, as the scheduler's prediction type says."""
    kind = scheduler.config.prediction_type
    if kind == "v_prediction":
        return scheduler.get_velocity(clean, noise, timesteps)
    return clean if kind == "sample" else noise


def mask_logits_from_latents(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Decode latents (B, C, h, w), in units of their own standard deviation, to mask logits (B, 1, H, W).

    The mask autoencoder decodes to logits. A photo autoencoder (Stable Diffusion's) decodes to grey
    values −1…1, whose mean over the colours is stretched to logits −5…5.
    """
    image = vae.decode(latents / vae.config.scaling_factor).sample
    return image if image.shape[1] == 1 else 5.0 * image.mean(1, keepdim=True)


def latents_from_mask(vae: AutoencoderKL, mask: Tensor) -> Tensor:
    """Encode masks (B, 1, H, W) in [0, 1] to latents of unit variance (B, C, h, w)."""
    image = (mask * 2 - 1).expand(-1, vae.config.in_channels, -1, -1)
    return vae.encode(image).latent_dist.mean * vae.config.scaling_factor
