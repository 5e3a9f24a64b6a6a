"""What LoRA is compared with: fine-tuning of everything, a plain U-Net fine-tuned, and one from scratch."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from progidiff.adaptation.case_library import StoredCase
from progidiff.adaptation.lessons import Lessons
from progidiff.adaptation.progress import Meter
from progidiff.adaptation.settings import KINDS, AdaptSettings
from progidiff.adaptation.teaching import split, whole
from progidiff.prompts import Target, organ_table
from progidiff.proposals import ProposalSet, summarise
from progidiff.segmenter import PreparedVolume, Segmenter, to_proposal
from progidiff.training.case_store import PackedCase
from progidiff.training.loop import Stage
from progidiff.volumes import Volume


@dataclass(frozen=True)
class Method:
    """One way of learning from the cases.

    Attributes:
        parts: of the pipeline whose weights are all trained.
        plain: True trains and asks the image encoder's own organ head, a plain U-Net, instead of the model.
        anew: True begins with random weights.
        learning_rate: of a full training, lower than LoRA's where it starts from trained weights.
    """

    parts: tuple[str, ...]
    plain: bool
    anew: bool
    learning_rate: float


METHODS = {
    "full": Method(("controlnet", "image_encoder", "refiner", "locator"), False, False, 1e-4),
    "unet": Method(("image_encoder", "locator"), True, False, 3e-4),
    "scratch": Method(("image_encoder", "locator"), True, True, 2e-3),
}


class PlainLessons(Lessons):
    """Trains the image encoder's organ head alone: that is all a plain U-Net has to draw with."""

    def drawing_stage(self, cases: list[PackedCase], appearance: float) -> Stage:
        return self.seeing_stage(cases, appearance)


def learn(
    segmenter: Segmenter,
    name: str,
    cases: list[StoredCase],
    work: Path,
    settings: AdaptSettings,
    minutes: float,
) -> dict[str, Any]:
    """Changes the segmenter's own weights; the same split, rounds and final share as for LoRA.

    Returns:
        The steps planned and kept.
    """
    method, start = METHODS[name], time.monotonic()
    rate = method.learning_rate
    settings = replace(settings, learning_rate=rate, locator_learning_rate=rate, encoder_learning_rate=rate)
    if method.plain:  # its drawing is its seeing
        find, *others = settings.shares
        settings = replace(settings, shares=(find, 0.0, sum(others)))
    pipeline = segmenter.pipeline
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False)
    for part_name in method.parts:
        part = getattr(pipeline, part_name)
        if method.anew:
            torch.manual_seed(settings.seed)
            part = type(part).from_config(part.config).to(segmenter.device)
            pipeline.register_modules(**{part_name: part})
        part.requires_grad_(True)
    lessons = (PlainLessons if method.plain else Lessons)(pipeline, settings, work)
    parts, meter = split(cases), Meter(None, minutes * 60)
    teaching = [lessons.pack(part) for part in parts.train]
    judging = [lessons.pack(part) for part in parts.held_out]
    seconds = minutes * 60 - (time.monotonic() - start)
    speeds, kept, planned = lessons.seconds_per_step(teaching), {}, {}
    for kind in KINDS:
        share = settings.share(kind)
        steps = min(int(seconds * share / speeds[kind]), settings.most_steps)
        planned[kind] = max(1, steps) if share else 0
        fitted = lessons.train(kind, teaching, judging, planned[kind], meter, lambda: False)
        kept[kind] = fitted.steps if fitted else 0
    everything = [lessons.pack(whole(case)) for case in cases]
    for kind in KINDS:
        share = settings.final_share / (1 - settings.final_share)
        lessons.train(f"{kind}_all", everything, [], int(kept[kind] * share), meter, lambda: False)
    for part_name in method.parts:
        getattr(pipeline, part_name).requires_grad_(False).eval()
    pipeline.to(segmenter.device)
    return {"planned": planned, "kept": kept, "seconds_per_step": speeds}


class PlainUNet:
    """Answers like a Segmenter, but with the organ head of the image encoder: one map, no proposals."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self.model_id, self.model_hash = f"{segmenter.model_id} U-Net", segmenter.model_hash
        self.device, self.adapter, self.findings = segmenter.device, "", ()

    def prepare(self, volume: Volume, modality: str = "auto") -> PreparedVolume:
        return self.segmenter.prepare(volume, modality)

    def propose(self, prepared: PreparedVolume, target: Target, **options: Any) -> ProposalSet:
        crop = self.segmenter.organ_crop(prepared, target)
        grid = prepared.volume.grid
        if crop is None:
            return ProposalSet(target, grid, found=False, reason=f"No {target.name} was found.")
        label = organ_table().by_id(target.organ).label
        probability = crop.features.organs.float().softmax(1)[:, label].cpu().numpy()
        origin = self.segmenter.provenance(str(options.get("prompt", "")), 0, 1)
        drawn = to_proposal(target.name, target, probability, crop.grid, prepared.volume, origin)
        return summarise(target, grid, [drawn])
