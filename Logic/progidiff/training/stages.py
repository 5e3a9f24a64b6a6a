"""The stages of a training run: what each one trains, on which data, and on which parts of earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from progidiff.errors import CasesError, UsageError
from progidiff.model_list import weights_hash
from progidiff.pipelines.progidiff.diffusion import make_scheduler
from progidiff.pipelines.progidiff.stable_diffusion import load_base_part
from progidiff.pipelines.votes import expect
from progidiff.training import parts as networks
from progidiff.training.case_store import PackedCase
from progidiff.training.class_balance import begin_balanced, class_shares, rarity_weights
from progidiff.training.configuration import Configuration
from progidiff.training.control import ControlStage, teach_query
from progidiff.training.encoder import EncoderStage
from progidiff.training.generator import GeneratorStage, MaskAutoencoderStage
from progidiff.training.locator import LocatorStage
from progidiff.training.locator_data import CoarsePatches
from progidiff.training.loop import Stage
from progidiff.training.parts import Generator
from progidiff.training.refine import RefinerStage
from progidiff.training.slice_data import OrganSlices
from progidiff.training.wordings import WordingStage

LOOKED_AT = {
    "locator": (),
    "encoder": (),
    "autoencoder": (),
    "generator": ("autoencoder",),
    "wordings": ("generator",),
    "control": ("encoder", "autoencoder", "generator", "wordings"),
    "refiner": ("autoencoder", "generator", "wordings", "control"),
}
"""The earlier stages whose parts each stage is trained with."""


@dataclass(frozen=True)
class StageBuilder:
    """Builds the stages of one run.

    Attributes:
        run: the run's folder, where the parts of earlier stages lie.
        configuration: the run's.
        cases: all that it learns from; some stages need images, others only label maps.
        unfrozen: the control stage also trains the generator.
        allow_download: a base that is not on this computer may be downloaded.
    """

    run: Path
    configuration: Configuration
    cases: list[PackedCase]
    unfrozen: bool = False
    allow_download: bool = False

    def build(self, stage: str) -> tuple[Stage, dict[str, Any]]:
        """The stage's module, and the parts in it that are to be saved.

        Raises:
            CasesError: no case has what this stage is trained with, images or organs.
            UsageError: an earlier stage is not trained.
            ModelError: a part of an earlier stage is damaged.
        """
        build: Callable[[], tuple[Stage, dict[str, Any]]] = getattr(self, f"_build_{stage}")
        return build()

    def _build_locator(self) -> tuple[Stage, dict[str, Any]]:
        locator, cases = networks.new_locator(self.configuration), with_organs(self.cases)
        d, h, w = self.configuration.locator.patch
        patches = CoarsePatches(
            cases,
            (d, h, w),
            self.configuration.locator.spacing,
            appearance=self.configuration.appearance,
        )
        shares = class_shares(cases, patches.organs)
        expect(locator.head, shares)
        return LocatorStage(locator, patches, rarity_weights(shares)), {"locator": locator}

    def _build_encoder(self) -> tuple[Stage, dict[str, Any]]:
        encoder, cases = networks.new_encoder(self.configuration), with_organs(self.cases)
        begin_balanced(encoder, cases)
        return EncoderStage(encoder, self._slices(cases)), {"image_encoder": encoder}

    def _build_autoencoder(self) -> tuple[Stage, dict[str, Any]]:
        vae = networks.new_vae(self.configuration)
        return MaskAutoencoderStage(vae, self._shapes()), {"vae": vae}

    def _build_generator(self) -> tuple[Stage, dict[str, Any]]:
        if self.configuration.base:
            made = networks.base_generator(self.configuration, self.allow_download)
        else:
            vae = networks.load_part(self._folder("autoencoder"), "autoencoder", "vae")
            made = networks.new_generator(self.configuration, vae)
        self._save_memory(made)
        # Not the base's own schedule, even if it predicts the same: `load_generator` makes this one too.
        scheduler = make_scheduler(self.configuration.prediction)
        stage = GeneratorStage(
            made.vae, made.unet, made.text_encoder, made.tokenizer, self._shapes(), scheduler
        )
        return stage, {name: getattr(made, name) for name in networks.PARTS["generator"]}

    def _build_wordings(self) -> tuple[Stage, dict[str, Any]]:
        folder = self._folder("generator")
        tokenizer, text_encoder = (
            networks.load_part(folder, "generator", n) for n in ("tokenizer", "text_encoder")
        )
        return WordingStage(text_encoder, tokenizer), {"text_encoder": text_encoder}

    def _build_control(self) -> tuple[Stage, dict[str, Any]]:
        made = load_generator(self.run, self.configuration, self.allow_download)
        if self.configuration.base and not self.configuration.own_generator and not self.unfrozen:
            self._check_frozen(made)
        if "encoder" in self.configuration.stages:
            encoder = networks.load_part(self._folder("encoder"), "encoder", "image_encoder")
        else:
            encoder = networks.new_encoder(self.configuration)
        teach_query(encoder, made.text_encoder, made.tokenizer)
        controlnet, refiner = networks.new_control(self.configuration, made.unet, encoder)
        self._save_memory(made)
        if self.configuration.memory_saving:
            controlnet.enable_gradient_checkpointing()
        stage = ControlStage(
            made.vae,
            made.unet,
            made.text_encoder,
            made.tokenizer,
            controlnet,
            encoder,
            refiner,
            self._slices(with_organs(self.cases)),
            train_generator=self.unfrozen,
            train_encoder=self.configuration.train_encoder,
            mask_losses=self.configuration.mask_losses,
            doubt=self.configuration.doubt,
            scheduler=made.scheduler,
        )
        saved = {"controlnet": controlnet, "image_encoder": encoder, "refiner": refiner}
        return stage, {**saved, "unet": made.unet} if self.unfrozen else saved

    def _build_refiner(self) -> tuple[Stage, dict[str, Any]]:
        made = load_generator(self.run, self.configuration, self.allow_download)
        names = ("controlnet", "image_encoder", "refiner")
        folder = self._folder("control")
        controlnet, encoder, refiner = (networks.load_part(folder, "control", name) for name in names)
        if encoder.query is not None:
            refiner = refiner.weighing_evidence()
        stage = RefinerStage(
            made.vae,
            networks.load_part(folder, "control", "unet") if self.unfrozen else made.unet,
            made.text_encoder,
            made.tokenizer,
            controlnet,
            encoder,
            refiner,
            self._slices(with_organs(self.cases)),
            made.scheduler,
            self.configuration.eta,
            self.configuration.doubt,
        )
        return stage, {"refiner": refiner}

    def _check_frozen(self, made: Generator) -> None:
        own = load_base_part(self.configuration.base, "scheduler", allow_download=self.allow_download)
        learnt, wanted = own.config.prediction_type, self.configuration.prediction
        if made.scheduler.config.prediction_type != learnt:
            raise UsageError(
                f"The base predicts {learnt} and stays frozen, so it cannot learn {wanted}.",
                'Set "prediction" to "epsilon", add a stage "generator", or train --unfrozen.',
            )

    def _save_memory(self, made: Generator) -> None:
        if self.configuration.memory_saving:
            made.unet.enable_gradient_checkpointing()
            made.vae.enable_gradient_checkpointing()

    def _slices(self, cases: list[PackedCase]) -> OrganSlices:
        encoder = self.configuration.encoder
        return OrganSlices(
            cases, self.configuration.crop, encoder.slices, appearance=self.configuration.appearance
        )

    def _shapes(self) -> OrganSlices:
        """All label maps, with or without image; images are not drawn."""
        _require_organs(self.cases)
        return OrganSlices(
            [replace(case, image=None) for case in self.cases],
            self.configuration.crop,
            slices=1,
            appearance=0,
        )

    def _folder(self, stage: str) -> Path:
        return stage_folder(self.run, stage, self.unfrozen)


def with_organs(cases: list[PackedCase]) -> list[PackedCase]:
    """The cases that have an image.

    Raises:
        CasesError: there is none, or no organ is drawn in any.
    """
    found = [case for case in cases if case.image is not None]
    if not found:
        raise CasesError("None of the training cases has an image.", "Give --data with images and labels.")
    _require_organs(found)
    return found


def stage_folder(run: Path, stage: str, unfrozen: bool = False) -> Path:
    """Folder of a stage; what follows from an unfrozen generator lies beside the frozen, to compare them."""
    return run / (f"{stage}_unfrozen" if unfrozen and stage in ("control", "refiner") else stage)


def require_same_ground(run: Path, summary: Mapping[str, Any], unfrozen: bool = False) -> None:
    """Refuses an ended stage if one that it was built on has been trained again since.

    Args:
        run: the run's folder.
        summary: of the ended stage.
        unfrozen: see `stage_folder`.

    Raises:
        UsageError: it does not fit any more.
    """
    for name, then in summary["built_on"].items():
        if weights_hash(stage_folder(run, name, unfrozen) / "parts") != then:
            raise UsageError(
                f"{name} was trained again after {summary['stage']}, which does not fit it any more.",
                f"Train {summary['stage']} again with --fresh.",
            )


def load_generator(run: Path, configuration: Configuration, allow_download: bool = False) -> Generator:
    """The generator of a run, trained or ready-made.

    Raises:
        UsageError: it has not been trained.
        ModelError: it cannot be loaded.
    """
    if configuration.base and not configuration.own_generator:
        return networks.base_generator(configuration, allow_download)
    folder = stage_folder(run, "generator")
    tokenizer, text_encoder, unet = (
        networks.load_part(folder, "generator", name) for name in networks.PARTS["generator"]
    )
    if "wordings" in configuration.stages:
        text_encoder = networks.load_part(stage_folder(run, "wordings"), "wordings", "text_encoder")
    if configuration.base:
        vae = load_base_part(configuration.base, "vae", allow_download=allow_download)
    else:
        vae = networks.load_part(stage_folder(run, "autoencoder"), "autoencoder", "vae")
    return Generator(vae, tokenizer, text_encoder, unet, make_scheduler(configuration.prediction))


def _require_organs(cases: list[PackedCase]) -> None:
    if not any(case.boxes for case in cases):
        raise CasesError("No organ is drawn in any training case.", "Check the label maps.")
