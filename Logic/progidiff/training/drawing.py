"""The stage that teaches a finished model to draw, of either kind: for few-shot adaptation."""

from __future__ import annotations

from typing import Any

from progidiff.training.case_store import PackedCase
from progidiff.training.loop import Stage


def draws_volumes(pipeline: Any) -> bool:
    """Whether the model sees pieces of volumes rather than slices."""
    return hasattr(pipeline, "label_autoencoder")


def drawing_stage(pipeline: Any, cases: list[PackedCase], appearance: float) -> Stage:
    """A stage over the pipeline's own parts; what is to learn must require gradients.

    What words and masks mean stays as it is: text encoder, fusion and autoencoder are frozen.

    Args:
        pipeline: a ProGiDiff or TextDiffSeg model.
        cases: packed cases, also partly checked ones.
        appearance: strength of the appearance randomisation, 0…1.
    """
    return (_volume_stage if draws_volumes(pipeline) else _slice_stage)(pipeline, cases, appearance)


def _slice_stage(pipeline: Any, cases: list[PackedCase], appearance: float) -> Stage:
    from progidiff.training.control import ControlStage
    from progidiff.training.slice_data import OrganSlices

    size = pipeline.image_encoder.config
    return ControlStage(
        pipeline.vae,
        pipeline.unet,
        pipeline.text_encoder,
        pipeline.tokenizer,
        pipeline.controlnet,
        pipeline.image_encoder,
        pipeline.refiner,
        OrganSlices(cases, size.crop, size.slices, appearance=appearance),
        scheduler=pipeline.scheduler,
    )


def _volume_stage(pipeline: Any, cases: list[PackedCase], appearance: float) -> Stage:
    from progidiff.training.textdiffseg import TextDiffSegStage
    from progidiff.training.volume_data import OrganVolumes

    size = pipeline.image_encoder.config
    volumes = OrganVolumes(cases, size.crop, (size.window,), appearance=appearance, lesions=0.0)
    return TextDiffSegStage(pipeline, volumes, ("text_encoder", "text_fusion", "label_autoencoder"))
