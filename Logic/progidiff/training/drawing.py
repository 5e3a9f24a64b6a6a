"""The stages that teach a finished model to see and to draw, of either kind: for few-shot adaptation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from progidiff.training.case_store import PackedCase
from progidiff.training.loop import Stage

if TYPE_CHECKING:
    from progidiff.pipelines.progidiff.image_encoder import ImageEncoder
    from progidiff.pipelines.textdiffseg.image_encoder import VolumeEncoder
    from progidiff.training.slice_data import OrganSlices
    from progidiff.training.volume_data import OrganVolumes


def draws_volumes(pipeline: Any) -> bool:
    """Whether the model sees pieces of volumes rather than slices."""
    return hasattr(pipeline, "label_autoencoder")


def seeing_stage(pipeline: Any, cases: list[PackedCase], appearance: float) -> Stage:
    """A stage over the image encoder alone, by its own organ loss: many times cheaper than drawing.

    Args:
        pipeline: a ProGiDiff or TextDiffSeg model; what is to learn must require gradients.
        cases, appearance: see `drawing_stage`.
    """
    from progidiff.training.encoder import EncoderStage, VolumeEncoderStage

    encoder = pipeline.image_encoder
    if draws_volumes(pipeline):
        return VolumeEncoderStage(encoder, _pieces(encoder, cases, appearance))
    return EncoderStage(encoder, _crops(encoder, cases, appearance))


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

    return ControlStage(
        pipeline.vae,
        pipeline.unet,
        pipeline.text_encoder,
        pipeline.tokenizer,
        pipeline.controlnet,
        pipeline.image_encoder,
        pipeline.refiner,
        _crops(pipeline.image_encoder, cases, appearance),
        scheduler=pipeline.scheduler,
    )


def _volume_stage(pipeline: Any, cases: list[PackedCase], appearance: float) -> Stage:
    from progidiff.training.textdiffseg import TextDiffSegStage

    volumes = _pieces(pipeline.image_encoder, cases, appearance)
    return TextDiffSegStage(pipeline, volumes, ("text_encoder", "text_fusion", "label_autoencoder"))


def _crops(encoder: ImageEncoder, cases: list[PackedCase], appearance: float) -> OrganSlices:
    from progidiff.training.slice_data import OrganSlices

    size = encoder.config
    return OrganSlices(cases, size.crop, size.slices, appearance=appearance)


def _pieces(encoder: VolumeEncoder, cases: list[PackedCase], appearance: float) -> OrganVolumes:
    from progidiff.training.volume_data import OrganVolumes

    size = encoder.config
    return OrganVolumes(cases, size.crop, (size.window,), appearance=appearance, lesions=0.0)
