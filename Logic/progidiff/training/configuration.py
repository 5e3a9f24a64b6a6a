"""What a training run is made of, read from a JSON file: sizes, data, and a schedule for each stage.

The files of the project are in `Resources/Training`; a name without a path means one of those.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from progidiff.errors import UsageError
from progidiff.pipelines.progidiff.build import GeneratorSize
from progidiff.resources import resources_folder
from progidiff.training.loop import Schedule
from progidiff.training.optimizers import OPTIMIZERS

STAGES = ("locator", "encoder", "autoencoder", "generator", "wordings", "control", "refiner")
"""The stages in the order in which they build on each other."""

DEFAULT = "embedded"
_OWN_GENERATOR = ("autoencoder", "generator")


@dataclass(frozen=True)
class EncoderSize:
    """Sizes of the image encoder and of the refiner that uses its details."""

    slices: int = 5
    channels: tuple[int, ...] = (32, 64, 128, 192, 256)
    control_channels: int = 160
    detail_channels: int = 16
    refiner_width: int = 24


@dataclass(frozen=True)
class LocatorSize:
    """Sizes of the locator: features at each scale, voxel edge in mm, and the voxels of a training patch."""

    channels: tuple[int, ...] = (32, 64, 96)
    spacing: float = 5.0
    patch: tuple[int, ...] = (48, 56, 64)


@dataclass(frozen=True)
class Phantoms:
    """Synthesised training cases.

    Attributes:
        count: invented patients; every third looks like MR.
        paintings: images painted for each label map that has none.
        shape, spacing: grid of the invented patients, voxels and mm along (i, j, k).
        first_seed: seed of the first; evaluation draws from 900,000 on.
    """

    count: int = 24
    paintings: int = 0
    shape: tuple[int, ...] = (192, 192, 40)
    spacing: tuple[float, ...] = (1.8, 1.8, 5.0)
    first_seed: int = 1000


@dataclass(frozen=True)
class Configuration:
    """Everything a run needs besides the cases.

    Attributes:
        name: of the model folder that comes out.
        description: first paragraph of the model card.
        licence: terms of the weights, for the card.
        notes: one sentence for each data set on where it is from and on what terms, for the card.
        base: folder or hub id of a Stable Diffusion to build on; "" trains a generator of its own.
        prediction: what the generator predicts: "v_prediction" or "sample" (x0) on a schedule that ends in
            pure noise, or "epsilon" on the base's own schedule. A frozen base keeps what it was trained with.
        train_encoder: whether the image encoder goes on learning in the control stage, which easily spoils
            what it has learnt in a stage of its own.
        mask_losses: whether what the control stage draws is also judged by the masks that it decodes to.
        doubt: most by which the organ head is doubted while the model learns to draw, in logits.
        generator: sizes of the own generator; of these a base uses the crop only.
        encoder, locator, phantoms: see there.
        vocabulary: tokens of the own tokenizer.
        appearance: strength of the appearance randomisation, 0…1.
        memory_saving: recompute activations instead of keeping them, for large bases.
        default_steps, eta: of sampling, see `ProGiDiffPipeline`.
        stages: the schedule of each stage to train.
    """

    name: str
    description: str = ""
    licence: str = ""
    notes: tuple[str, ...] = ()
    base: str = ""
    prediction: str = "v_prediction"
    train_encoder: bool = True
    mask_losses: bool = True
    doubt: float = 0.0
    generator: GeneratorSize = field(default_factory=GeneratorSize)
    encoder: EncoderSize = field(default_factory=EncoderSize)
    locator: LocatorSize = field(default_factory=LocatorSize)
    phantoms: Phantoms = field(default_factory=Phantoms)
    vocabulary: int = 1200
    appearance: float = 1.0
    memory_saving: bool = False
    default_steps: int = 4
    eta: float = 0.9
    stages: dict[str, Schedule] = field(default_factory=dict)

    @property
    def crop(self) -> int:
        """Edge of the square crops in pixels."""
        return self.generator.crop

    @property
    def own_generator(self) -> bool:
        """Whether the generator is trained (or fine-tuned) here rather than taken as it is."""
        return "generator" in self.stages

    def with_minutes(self, minutes: Mapping[str, float]) -> Configuration:
        """The same with other time limits for some stages."""
        changed = {n: replace(self.stages[n], max_minutes=m) for n, m in minutes.items()}
        return replace(self, stages={**self.stages, **changed})

    def to_json(self) -> dict[str, Any]:
        """Plain JSON that `from_json` reads."""
        values = json.loads(json.dumps(asdict(self)))
        for schedule in values["stages"].values():
            schedule.pop("minutes_done")
            if schedule["max_minutes"] == math.inf:
                schedule["max_minutes"] = None
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any], source: str = "The configuration") -> Configuration:
        """Reads plain JSON.

        Raises:
            UsageError: an unknown key, a value of the wrong kind or out of range.
        """
        values = dict(values)
        parts: dict[str, Any] = {
            name: _build(kind, values.pop(name), f"{source}, {name}")
            for name, kind in _PARTS.items()
            if name in values
        }
        schedules = _mapping(values.pop("stages", {}), f"{source}, stages")
        parts["stages"] = {
            name: _build(Schedule, _finite(schedule), f"{source}, stages, {name}")
            for name, schedule in schedules.items()
        }
        configuration = _build(cls, {**values, **parts}, source)
        _check(configuration, source)
        return configuration


_PARTS: dict[str, type] = {
    "generator": GeneratorSize,
    "encoder": EncoderSize,
    "locator": LocatorSize,
    "phantoms": Phantoms,
}


def read_configuration(name_or_path: str = DEFAULT) -> Configuration:
    """The configuration of that name in `Resources/Training`, or in a file.

    Raises:
        UsageError: there is none, or it is not valid.
    """
    folder = resources_folder() / "Training"
    path = Path(name_or_path)
    if not path.is_file():
        path = folder / f"{name_or_path}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.json")))
        raise UsageError(
            f"There is no training configuration {name_or_path!r}.", f"Give a file, or: {known}."
        )
    return load_configuration(path)


def load_configuration(path: Path) -> Configuration:
    """Reads one file; raises UsageError as `Configuration.from_json`."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}).", "Repair the file.") from error
    return Configuration.from_json(_mapping(values, path.name), path.name)


def _build(kind: type, values: Any, where: str) -> Any:
    """A dataclass from a JSON object whose keys and kinds of values are checked against its defaults."""
    values = dict(_mapping(values, where))
    known = {f.name: str(f.type) for f in fields(kind) if f.name != "minutes_done"}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UsageError(f"{where}: {', '.join(unknown)} is not known.", f"Known are: {', '.join(known)}.")
    for name, value in values.items():
        if isinstance(value, list):
            values[name] = tuple(value)
        _check_kind(values[name], known[name], f"{where}, {name}")
    try:
        return kind(**values)
    except TypeError as error:
        raise UsageError(f"{where} is incomplete ({error}).", "Complete the file.") from error


_KINDS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}


def _check_kind(value: Any, kind: str, where: str) -> None:
    items, wanted = [value], kind
    if kind.startswith("tuple["):
        items = list(value) if isinstance(value, tuple) else [None]
        wanted = kind[len("tuple[") :].partition(",")[0]
    if wanted not in _KINDS:
        return  # a part that has been built already
    if any(not isinstance(v, _KINDS[wanted]) or (wanted != "bool" and isinstance(v, bool)) for v in items):
        raise UsageError(f"{where}: {value!r} is not of the kind {kind}.", "Correct the file.")


def _mapping(values: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise UsageError(f"{where}: expected an object, found {values!r}.", "Correct the file.")
    return values


def _finite(schedule: Any) -> Any:
    """JSON knows no infinity: null stands for "no limit"."""
    if isinstance(schedule, Mapping) and schedule.get("max_minutes", 0) is None:
        return {**schedule, "max_minutes": math.inf}
    return schedule


def _check(configuration: Configuration, source: str) -> None:
    """Raises UsageError for values that contradict each other or cannot be trained with."""

    def require(condition: bool, problem: str, remedy: str = "Correct the file.") -> None:
        if not condition:
            raise UsageError(f"{source}: {problem}.", remedy)

    stages = configuration.stages
    unknown = sorted(set(stages) - set(STAGES))
    require(not unknown, f"unknown stages {', '.join(unknown)}", f"Known are: {', '.join(STAGES)}.")
    require(
        bool(configuration.name) and Path(configuration.name).name == configuration.name != "..",
        "the name must be usable as that of a folder",
    )
    taken = {*STAGES, "control_unfrozen", "refiner_unfrozen", "unet", "packed"}
    require(configuration.name not in taken, f"a folder {configuration.name} has another use in a run")
    three = (configuration.locator.patch, configuration.phantoms.shape, configuration.phantoms.spacing)
    require(
        all(len(sizes) == 3 and min(sizes) > 0 for sizes in three),
        "a patch of the locator and shape and spacing of phantoms are three positive numbers each",
    )
    encoder = configuration.encoder
    require(encoder.slices > 0 and encoder.slices % 2 == 1, "the slices of the encoder must be odd")
    require(len(encoder.channels) >= 3, "the encoder has at least three scales of channels")
    require(configuration.crop % 32 == 0 and configuration.crop > 0, "crop must be a multiple of 32")
    predictions = ("v_prediction", "sample", "epsilon")
    require(configuration.prediction in predictions, f"prediction is one of {', '.join(predictions)}")
    require(
        configuration.train_encoder or "encoder" in stages,
        "an image encoder without a stage of its own has to learn in the control stage: set train_encoder",
    )
    require(configuration.doubt >= 0, "doubt must not be negative")
    for name, schedule in stages.items():
        require(
            schedule.steps > 0 and schedule.batch > 0 and schedule.learning_rate > 0 < schedule.max_minutes,
            f"steps, batch, learning_rate and max_minutes of {name} must be positive",
        )
        require(schedule.precision in ("bf16", "no"), f"the precision of {name} is bf16 or no")
        require(
            schedule.optimizer in OPTIMIZERS, f"the optimizer of {name} is one of {', '.join(OPTIMIZERS)}"
        )
    if configuration.base:
        require("autoencoder" not in stages, "a base brings its autoencoder, which is not trained")
        require(
            not (configuration.own_generator and configuration.prediction == "epsilon"),
            "a generator that is fine-tuned here predicts v_prediction or sample",
        )
    else:
        missing = [name for name in _OWN_GENERATOR if name not in stages]
        require(not missing, f"without a base the stages {', '.join(missing)} are needed")
        require(configuration.prediction != "epsilon", "an own generator predicts v_prediction or sample")
    require("control" in stages and "locator" in stages, "the stages locator and control are needed")
