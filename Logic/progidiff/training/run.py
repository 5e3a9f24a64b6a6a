"""A training run: the stages end to end in one folder, each resumable, and a record of what they learnt from.

RUN/configuration.json      what was asked for
RUN/training_data.json      cases, phantoms and terms; ends up in the model folder
RUN/kept_aside.txt          ids of the cases left out, if any: those to be measured
RUN/packed/                 the packed cases (or elsewhere, shared by several runs)
RUN/<stage>/                checkpoint.safetensors, losses.jsonl, progress.json while it trains;
                            parts/ and summary.json when it has ended
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from progidiff.errors import Cancelled, CasesError, DeviceError, UsageError
from progidiff.model_list import weights_hash
from progidiff.training.case_store import PackedCase
from progidiff.training.configuration import STAGES, Configuration, load_configuration
from progidiff.training.generator import MaskAutoencoderStage
from progidiff.training.loop import Report, Schedule, Stage, train
from progidiff.training.pack import (
    OnCase,
    load_cases,
    pack_cases,
    pack_paintings,
    pack_phantoms,
    select_cases,
)
from progidiff.training.pack_cache import made_from
from progidiff.training.parts import save_parts
from progidiff.training.safeguards import (
    checkpoint_step,
    finite_losses,
    has_ended,
    read_json,
    stoppable,
    time_is_up,
    write_json,
    write_kept_aside,
    writing,
)
from progidiff.training.stages import LOOKED_AT, StageBuilder, require_same_ground, stage_folder

OnProgress = Callable[[str, Report], None]
"""Called about once a second with the stage's name and where it stands."""


@dataclass(frozen=True)
class DataSelection:
    """Which cases a run learns from.

    Attributes:
        folders: data sets; none continues with the cases that the run began with.
        exclude: ids to leave out.
        fold: (i, n) leaves out every n-th case for measuring, see `pack.select_cases`.
    """

    folders: tuple[Path, ...] = ()
    exclude: tuple[str, ...] = ()
    fold: tuple[int, int] | None = None


class TrainingRun:
    """One run folder.

    Args:
        folder: created if need be.
        configuration: of a new run; None takes the one that the folder has.
        selection: the data.
        cache: folder of packed cases, by default `folder/packed`.
        device: "auto", "cpu" or "cuda".
        unfrozen: the control stage also trains the generator (folder `control_unfrozen`).
        allow_download: a base that is not on this computer may be downloaded.
        fresh: begin all stages anew, with the configuration and the cases that are given, or those of before.
        on_case, on_progress, cancelled: progress and stop.

    Raises:
        UsageError: the folder was begun with another configuration or other cases.
        CasesError: there is nothing to train on.
        DeviceError: no such device.
    """

    def __init__(
        self,
        folder: Path,
        configuration: Configuration | None = None,
        selection: DataSelection | None = None,
        *,
        cache: Path | None = None,
        device: str = "auto",
        unfrozen: bool = False,
        allow_download: bool = False,
        fresh: bool = False,
        on_case: OnCase | None = None,
        on_progress: OnProgress | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        check_device(device)
        self.folder, self.device, self.unfrozen = folder, device, unfrozen
        self.allow_download, self.on_progress, self.cancelled = allow_download, on_progress, cancelled
        self._processes = PartialState(cpu=device == "cpu")
        self.configuration = _settled_configuration(folder, configuration, fresh)
        with self._processes.main_process_first():  # the others find all packed
            self.cases = self._collect(
                selection or DataSelection(), cache or folder / "packed", fresh, stoppable(on_case, cancelled)
            )
        if self._processes.is_main_process:
            if fresh:  # all at once: what is left half done must not continue stages of before
                _remove_stages(folder)
            write_json(folder / "configuration.json", self.configuration.to_json())
        self._processes.wait_for_everyone()

    @property
    def stages(self) -> list[str]:
        """The stages of the configuration in their order."""
        return [name for name in STAGES if name in self.configuration.stages]

    def stage_folder(self, stage: str) -> Path:
        return stage_folder(self.folder, stage, self.unfrozen)

    def train(self, stage: str, fresh: bool = False) -> dict[str, Any]:
        """Train one stage, from its checkpoint if there is one, and save its parts.

        Args:
            stage: one of `stages`.
            fresh: begin anew.

        Returns:
            The stage's summary: steps, minutes, losses and so on. A stage that has had its steps or
            minutes is not trained again.

        Raises:
            UsageError: the stage is not of this configuration, or one it builds on is not trained, or was
                trained again after this one had begun.
            Cancelled: stopped; the checkpoint is saved.
            ModelError: a damaged checkpoint, or the losses are no numbers any more.
            OutputError: the run folder cannot be written.
        """
        if stage not in self.stages:
            raise UsageError(
                f"This configuration has no stage {stage}.", f"It has: {', '.join(self.stages)}."
            )
        folder, schedule = self.stage_folder(stage), self.configuration.stages[stage]
        foundation = self._built_on(stage)
        if not fresh and (others := _changed_since(folder, foundation)):
            if stage != "refiner":
                raise UsageError(
                    f"{stage} was begun with another {', '.join(others)}.",
                    f"Train {stage} again with --fresh.",
                )
            fresh = True  # it takes a small part of the time, and follows whatever control has become
        if fresh and self._processes.is_main_process:
            shutil.rmtree(folder, ignore_errors=True)
        self._processes.wait_for_everyone()
        summary = stage_summary(folder)
        if summary is not None and _is_enough(summary, schedule):
            return summary
        with writing(folder):
            return self._train(stage, folder, schedule, foundation)

    def settled(self) -> list[str]:
        """Ended stages that control, or the generator before it, has begun to build on.

        To train them further would take the ground from under what has been learnt since.
        """
        begun = [name for name in self.stages if checkpoint_step(self.stage_folder(name))]
        looked_at = {name for other in begun if other != "refiner" for name in LOOKED_AT[other]}
        return [name for name in self.stages if name in looked_at and stage_summary(self.stage_folder(name))]

    def _train(
        self, stage: str, folder: Path, schedule: Schedule, foundation: dict[str, str]
    ) -> dict[str, Any]:
        torch.manual_seed(schedule.seed)
        module, parts = self._build(stage)
        progress = _Progress(folder, foundation, self._tell(stage))
        schedule = replace(schedule, minutes_done=progress.minutes)
        with finite_losses(stage, module):
            losses = train(
                module,
                schedule,
                folder,
                resume=checkpoint_step(folder) > 0,  # at step 0 it holds what earlier stages were then
                on_progress=progress,
                cancelled=self.cancelled,
                device=self.device,
            )
        step = checkpoint_step(folder)
        if not has_ended(step, progress.minutes, schedule):
            raise Cancelled(
                f"Stopped {stage} at step {step}.", "The same command again, without --fresh, continues it."
            )
        if isinstance(module, MaskAutoencoderStage):
            module.set_scaling_factor()
        summary = {
            "stage": stage,
            "steps": step,
            "minutes": round(progress.minutes, 2),
            "batch": schedule.batch * self._processes.num_processes,
            "optimizer": schedule.optimizer,
            "learning_rate": schedule.learning_rate,
            "seed": schedule.seed,
            "losses": {name: round(value, 4) for name, value in losses.items()} or progress.losses,
            "built_on": foundation,
        }
        if self._processes.is_main_process:
            save_parts(folder, parts)
            write_json(folder / "summary.json", summary)
        self._processes.wait_for_everyone()
        return summary

    def _build(self, stage: str) -> tuple[Stage, dict[str, Any]]:
        """The stage's module, and the parts in it that are to be saved."""
        builder = StageBuilder(
            self.folder, self.configuration, self.cases, self.unfrozen, self.allow_download
        )
        return builder.build(stage)

    # --- the data ------------------------------------------------------------------------------------

    def _collect(
        self, selection: DataSelection, cache: Path, fresh: bool, on_case: OnCase | None
    ) -> list[PackedCase]:
        """Packed cases and phantoms; notes them in `training_data.json`."""
        phantoms = self.configuration.phantoms
        record = self.folder / "training_data.json"
        known = read_json(record) if record.is_file() else None
        if selection.folders:
            cases, aside = select_cases(selection.folders, selection.exclude, selection.fold)
            if known is not None and not fresh and known["cases"] != [case.id for case in cases]:
                raise UsageError(
                    f"{self.folder} was begun with other cases.",
                    "Give the same --data, --exclude and --fold, another --output, or begin all anew with "
                    "`train all --fresh`.",
                )
            if self._processes.is_main_process:
                write_kept_aside(self.folder, aside, selection.exclude, selection.fold)
            packed = pack_cases(cases, cache, on_case)
            painted = pack_paintings(cases, phantoms, cache, on_case)
        elif known is not None:
            aside = known["kept_aside"]
            marks = known.get("made_from")
            packed, painted = (load_cases(cache, known[kind], marks) for kind in ("cases", "painted"))
        else:
            aside, packed, painted = [], [], []
        invented = pack_phantoms(phantoms, cache, on_case)
        if not (packed or invented):
            raise CasesError(
                "There is nothing to train on.", "Give --data, or phantoms in the configuration."
            )
        if self._processes.is_main_process:
            self._note_data(record, aside, packed, painted, invented, cache)
        return [*packed, *painted, *invented]

    def _note_data(
        self,
        record: Path,
        aside: list[str],
        packed: list[PackedCase],
        painted: list[PackedCase],
        invented: list[PackedCase],
        cache: Path,
    ) -> None:
        phantoms = self.configuration.phantoms
        domains = Counter(case.domain for case in packed)
        write_json(
            record,
            {
                "cases": [case.id for case in packed],
                "domains": dict(sorted(domains.items())),
                "organs": sorted({organ for c in (*packed, *painted, *invented) for organ in c.organs}),
                "kept_aside": aside,
                "painted": [case.id for case in painted],
                "phantoms": {"count": phantoms.count, "first_seed": phantoms.first_seed},
                "terms": list(self.configuration.notes),
                "made_from": {case.id: made_from(cache, case.id) for case in (*packed, *painted)},
            },
        )

    def _built_on(self, stage: str) -> dict[str, str]:
        """Hashes of the parts of earlier stages that this one is trained with; of those that have ended.

        Raises:
            UsageError: they do not fit each other.
        """
        hashes = {}
        for name in (name for name in LOOKED_AT[stage] if name in self.stages):
            summary = stage_summary(self.stage_folder(name))
            if summary is not None:
                require_same_ground(self.folder, summary, self.unfrozen)
                hashes[name] = weights_hash(self.stage_folder(name) / "parts")
        return hashes

    def _tell(self, stage: str) -> Callable[[Report], None]:
        def tell(report: Report) -> None:
            if self.on_progress is not None:
                self.on_progress(stage, report)

        return tell


class _Progress:
    """How long a stage has trained, over all its runs; what was lost with a killed run does not count."""

    def __init__(self, folder: Path, foundation: dict[str, str], tell: Callable[[Report], None]) -> None:
        self._clock, self._tell, self.file = time.monotonic, tell, folder / "progress.json"
        self.foundation = foundation
        self.losses: dict[str, float] = {}
        self.before = 0.0
        if self.file.is_file() and (step := checkpoint_step(folder)):
            noted = read_json(self.file)
            self.before = float(noted["minutes"]) * min(1.0, step / max(1, noted["step"]))
            self.losses = noted["losses"]
        self.start = self._clock()

    @property
    def minutes(self) -> float:
        return self.before + (self._clock() - self.start) / 60

    def __call__(self, report: Report) -> None:
        self._tell(report)
        self.losses = {name: round(value, 4) for name, value in report.losses.items()}
        note = {"step": report.step, "minutes": self.minutes, "losses": self.losses}
        write_json(self.file, {**note, "built_on": self.foundation})


def stage_summary(folder: Path) -> dict[str, Any] | None:
    """What an ended stage says of itself, None as long as it has not ended."""
    path = folder / "summary.json"
    return read_json(path) if path.is_file() and (folder / "parts").is_dir() else None


def recorded_data(folder: Path) -> list[str]:
    """Ids of all packed cases that the stages of a run learn from, phantoms too; none if it is no run.

    Raises:
        UsageError: the run's record cannot be read.
    """
    path = folder / "training_data.json"
    if not path.is_file():
        return []
    known = read_json(path)
    first, count = known["phantoms"]["first_seed"], known["phantoms"]["count"]
    return [*known["cases"], *known["painted"], *(f"phantom_{seed}" for seed in range(first, first + count))]


def check_device(device: str) -> None:
    """Raises DeviceError unless training can run on "auto", "cpu" or "cuda"."""
    if device not in ("auto", "cpu", "cuda"):
        raise DeviceError(
            f"Training does not run on {device!r}.",
            "Use auto, cpu or cuda; choose among GPUs with CUDA_VISIBLE_DEVICES or accelerate launch.",
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            "The device 'cuda' was asked for, but this computer offers no CUDA GPU.",
            "Use --device cpu, or install the CUDA build of PyTorch.",
        )


def _settled_configuration(folder: Path, given: Configuration | None, fresh: bool) -> Configuration:
    """The given configuration, or the folder's own; what has been trained must still fit."""
    path = folder / "configuration.json"
    if not path.is_file() or (fresh and given is not None):
        if given is None:
            raise UsageError(f"{folder} is no training run.", "Name a configuration with --config.")
        return given
    own = load_configuration(path)
    if given is None:
        return own
    changed = [
        name
        for name in ("base", "prediction", "generator", "encoder", "locator", "vocabulary")
        if getattr(own, name) != getattr(given, name)
    ]
    if changed:
        raise UsageError(
            f"{folder} was begun with another {', '.join(changed)}.",
            "Leave out --config, give another --output, or begin all anew with `train all --fresh`.",
        )
    return given


def _changed_since(folder: Path, foundation: dict[str, str]) -> list[str]:
    """Earlier stages that are not any more what the stage in `folder` began with."""
    noted = [path for name in ("progress.json", "summary.json") if (path := folder / name).is_file()]
    if not checkpoint_step(folder) or not noted:
        return []
    began = read_json(noted[0]).get("built_on", foundation)
    return [name for name in foundation if began.get(name) != foundation[name]]


def _remove_stages(folder: Path) -> None:
    for name in STAGES:
        for unfrozen in (False, True):
            shutil.rmtree(stage_folder(folder, name, unfrozen), ignore_errors=True)


def _is_enough(summary: dict[str, Any], schedule: Schedule) -> bool:
    return bool(summary["steps"] >= schedule.steps or time_is_up(summary["minutes"], schedule))
