"""Small data sets and configurations for the tests of training."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

from progidiff.prompts import organ_table
from progidiff.training.case_store import PackedCase, pack_case
from progidiff.training.configuration import Configuration, Phantoms, read_configuration
from progidiff.training.control import ControlStage
from progidiff.training.phantom import make_phantom
from progidiff.training.refine import RefinerStage
from progidiff.volumes import Volume, normalise, write_volume

SHAPE, SPACING = (48, 48, 12), (7.2, 7.2, 16.0)


@cache
def phantom(seed: int = 0) -> tuple[Volume, Volume]:
    return make_phantom(seed, "CT", SHAPE, SPACING)


@cache
def packed(seed: int = 0) -> PackedCase:
    image, label = phantom(seed)
    organs = tuple(organ.label for organ in organ_table().organs)
    return pack_case(f"case_{seed}", normalise(image).array, label, organs, "CT")


def refiner_after(control: ControlStage, doubt: float = 0.0) -> RefinerStage:
    """The stage that follows, on the same parts and slices."""
    return RefinerStage(
        control.vae,
        control.unet,
        control.text_encoder,
        control.tokenizer,
        control.controlnet,
        control.encoder,
        control.refiner,
        control.slices,
        control.scheduler,
        0.9,
        doubt,
    )


def configuration(steps: int = 2, **changes: object) -> Configuration:
    """The smoke test's, with that many steps in each stage."""
    smoke = read_configuration("smoke-test")
    stages = {name: replace(schedule, steps=steps) for name, schedule in smoke.stages.items()}
    return replace(smoke, **{"stages": stages, "phantoms": small_phantoms(1), **changes})  # type: ignore[arg-type]


def small_phantoms(count: int, paintings: int = 0) -> Phantoms:
    return Phantoms(count, paintings, SHAPE, SPACING)


def write_configuration(path: Path, given: Configuration) -> Path:
    path.write_text(json.dumps(given.to_json()), encoding="utf-8")
    return path


def write_cases(folder: Path, images: int = 2, label_maps: int = 1) -> Path:
    """A flat data set: cases with image, then label maps alone."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {str(organ.label): organ.name for organ in organ_table().organs}
    (folder / "case_labels.json").write_text(json.dumps(names))
    for number in range(images + label_maps):
        image, label = phantom(number)
        write_volume(label, folder / f"case_{number}_label.nii.gz")
        if number < images:
            write_volume(image, folder / f"case_{number}_image.nii.gz")
    return folder
