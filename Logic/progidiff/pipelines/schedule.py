"""The noise schedule of all models that this project trains."""

from __future__ import annotations

from typing import Literal

from diffusers import DDIMScheduler


def zero_snr_scheduler(prediction_type: Literal["v_prediction", "sample"]) -> DDIMScheduler:
    """DDIM with zero terminal SNR and trailing timesteps (Lin et al., WACV 2024): right from one step on.

    Args:
        prediction_type: what the network answers, the velocity or the clean latents.
    """
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type=prediction_type,
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )
