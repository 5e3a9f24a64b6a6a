"""A training run of TextDiffSeg, from packed cases to a model folder with its card.

The image encoder first learns all organs at once, which is cheap; then everything learns together. From then
on the image encoder changes with the rest, so the first stage is never taken up again.

RUN/recipe.json                what was asked for, and which cases
RUN/tokenizer/                 the vocabulary, kept so that a resumed run speaks the same language
RUN/image_encoder/             of the first stage: checkpoint.safetensors, losses.jsonl, minutes.json
RUN/textdiffseg/               of the joint stage, likewise
RUN/NAME/                      the model folder
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import BertModel, BertTokenizer

from progidiff.errors import Cancelled, CasesError, ModelError, UsageError
from progidiff.pipelines.locator import OrganLocator
from progidiff.pipelines.textdiffseg.build import (
    EMBEDDED,
    TINY,
    Without,
    build_pipeline,
    ready_made_bert,
)
from progidiff.prompts import organ_table
from progidiff.training.assemble import measured_tables, save_half
from progidiff.training.case_store import PackedCase
from progidiff.training.class_balance import begin_balanced
from progidiff.training.encoder import VolumeEncoderStage
from progidiff.training.loop import Report, Schedule, Stage, train
from progidiff.training.safeguards import (
    checkpoint_step,
    finite_losses,
    has_ended,
    read_json,
    write_json,
    writing,
)
from progidiff.training.textdiffseg import TextDiffSegStage
from progidiff.training.volume_data import OrganVolumes
from progidiff.training.wording import train_bert_tokenizer

SIZES = {"embedded": EMBEDDED, "tiny": TINY}

OnStage = Callable[[str, Report], None]

_ENCODER_SHARE = 0.4  # of the training time
_FIRST, _JOINT = "image_encoder", "textdiffseg"  # folders of the two trainings
_RECORD = "recipe.json"


@dataclass(frozen=True)
class Recipe:
    """What is trained, and how.

    Attributes:
        name: of the model folder that comes out.
        size: "embedded" or "tiny".
        without: ablations.
        text_model: BERT to start from, a folder or a hub id such as "dmis-lab/biobert-v1.1", which stays
            frozen; "" trains a small one of its own.
        vocabulary: tokens of the own tokenizer.
        lesions: how often an organ that can have one gets a synthesised lesion, where no real one is
            labelled; 0 trains organs only.
        appearance: strength of the appearance randomisation, 0…1.
        depths: slices of the training pieces; each batch takes one of them.
        default_steps, eta: of sampling, see `TextDiffSegPipeline`.
        licence: terms of the weights, for the card.
        encoder: schedule of the image encoder's own training; no steps leave it out. Minutes that it does not
            use are the joint training's.
        schedule: of the joint training.
    """

    name: str = "textdiffseg-abdomen-small"
    size: str = "embedded"
    without: Without = field(default_factory=Without)
    text_model: str = ""
    vocabulary: int = 1500
    lesions: float = 0.4
    appearance: float = 1.0
    depths: tuple[int, ...] = (16, 24)
    default_steps: int = 2
    eta: float = 0.9
    licence: str = "As the training data allow; not stated."
    encoder: Schedule = field(
        default_factory=lambda: Schedule(
            steps=100_000, batch=2, learning_rate=1.5e-3, warmup=100, ema_decay=0.998
        )
    )
    schedule: Schedule = field(
        default_factory=lambda: Schedule(
            steps=100_000, batch=2, learning_rate=7e-4, warmup=200, ema_decay=0.998
        )
    )

    def with_minutes(self, minutes: float) -> Recipe:
        """The same with a time limit for both trainings together."""
        first = _ENCODER_SHARE * minutes if self.encoder.steps else 0.0
        return replace(
            self,
            encoder=replace(self.encoder, max_minutes=first),
            schedule=replace(self.schedule, max_minutes=minutes - first),
        )


class TextDiffSegRun:
    """One run folder; the same call again continues where it stopped.

    Args:
        folder: created if need be.
        cases: packed cases; those without image do not teach.
        locator: trained by the stage `locator`, or another model's.
        recipe: what is trained.
        located: ids of the cases that the locator has learnt from, to be listed with the model.
        device: "auto", "cpu" or "cuda".
        allow_download: a text model that is not on this computer may be downloaded.

    Raises:
        UsageError: the folder was begun with another recipe or other cases, or the size is not known.
        CasesError: no case has an image and an organ.
        ModelError: the text model cannot be loaded.
        OutputError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        cases: Sequence[PackedCase],
        locator: OrganLocator,
        recipe: Recipe,
        *,
        located: Collection[str] = (),
        device: str = "auto",
        allow_download: bool = False,
    ) -> None:
        if recipe.size not in SIZES:
            raise UsageError(f"There is no size {recipe.size!r}.", f"Known are: {', '.join(SIZES)}.")
        self.folder, self.recipe, self.device, self.located = folder, recipe, device, set(located)
        self.cases = [case for case in cases if case.image is not None and case.label.any()]
        if not self.cases:
            raise CasesError("None of the training cases has an image and an organ.", "Give other --data.")
        self._processes = PartialState(cpu=device == "cpu")
        self._check_record()
        torch.manual_seed(recipe.schedule.seed)
        size = SIZES[recipe.size]
        text_encoder, tokenizer = self._text(allow_download)
        self.pipeline = build_pipeline(
            size,
            tokenizer,
            locator.requires_grad_(False),
            text_encoder=text_encoder,
            without=recipe.without,
            default_steps=recipe.default_steps,
            eta=recipe.eta,
            findings=organ_table().finding_ids if recipe.lesions else (),
        )
        volumes = OrganVolumes(
            self.cases, size.crop, recipe.depths, appearance=recipe.appearance, lesions=recipe.lesions
        )
        frozen = ("text_encoder",) if recipe.text_model else ()
        encoder = self.pipeline.image_encoder
        begin_balanced(encoder, self.cases)
        self.first_stage = VolumeEncoderStage(encoder, volumes)
        self.stage = TextDiffSegStage(self.pipeline, volumes, frozen)
        if self._processes.is_main_process and recorded_cases(folder) is None:
            write_json(folder / _RECORD, self._record())

    def train(
        self, on_progress: OnStage | None = None, cancelled: Callable[[], bool] = lambda: False
    ) -> dict[str, float]:
        """Train until the recipe's steps or minutes, those of earlier calls included, are up.

        Args:
            on_progress: called about once a second with the name of the stage and where it stands.
            cancelled: asked every step.

        Returns:
            The last running losses.

        Raises:
            Cancelled: stopped; the checkpoint is saved.
            ModelError: a damaged checkpoint, or the losses are no numbers any more.
            OutputError: the run folder cannot be written.
        """
        recipe, schedule = self.recipe, self.recipe.schedule
        if recipe.encoder.steps and not recipe.without.image_features:
            if not checkpoint_step(self.folder / _JOINT):
                self._train(_FIRST, self.first_stage, recipe.encoder, on_progress, cancelled)
            if math.isfinite(recipe.encoder.max_minutes):
                left = max(0.0, recipe.encoder.max_minutes - self._minutes(_FIRST))
                schedule = replace(schedule, max_minutes=schedule.max_minutes + left)
        return self._train(_JOINT, self.stage, schedule, on_progress, cancelled)

    def _train(
        self,
        name: str,
        stage: Stage,
        schedule: Schedule,
        on_progress: OnStage | None,
        cancelled: Callable[[], bool],
    ) -> dict[str, float]:
        """Train one stage to its end, or raise Cancelled."""
        folder, start, before = self.folder / name, time.monotonic(), self._minutes(name)

        def minutes() -> float:
            return before + (time.monotonic() - start) / 60

        def tell(report: Report) -> None:
            write_json(folder / "minutes.json", minutes())
            if on_progress is not None:
                on_progress(name, report)

        with writing(folder), finite_losses(name, stage):
            losses = train(
                stage,
                replace(schedule, minutes_done=before),
                folder,
                resume=checkpoint_step(folder) > 0,  # at step 0 it holds what the first stage was then
                on_progress=tell,
                cancelled=cancelled,
                device=self.device,
            )
        step = checkpoint_step(folder)
        if self._processes.is_main_process:
            write_json(folder / "minutes.json", minutes())
        self._processes.wait_for_everyone()
        if not has_ended(step, minutes(), schedule):
            raise Cancelled(
                f"Stopped {name} at step {step}.", "The same command again, without --fresh, continues it."
            )
        return losses

    @property
    def minutes(self) -> float:
        """How long it has trained so far."""
        return self._minutes(_FIRST) + self._minutes(_JOINT)

    def _minutes(self, name: str) -> float:
        try:
            return float(json.loads((self.folder / name / "minutes.json").read_text(encoding="utf-8")))
        except (FileNotFoundError, TypeError, ValueError):
            return 0.0  # not begun, or torn by a power cut: the checkpoint counts more than the clock

    def save(self, report: Path | None = None) -> Path:
        """Write the model folder `RUN/NAME` in half precision, with its card; an earlier one is replaced.

        The pipeline is rounded to half precision by this.

        Args:
            report: output folder of `progidiff evaluate`, whose figures the card shall carry.

        Raises:
            ModelError: the weights do not fit into half precision.
            CasesError: the report cannot be read.
            OutputError: the folder cannot be written.
        """
        final = self.folder / self.recipe.name
        if self._processes.is_main_process:
            self._save(final, self._card(report))
        self._processes.wait_for_everyone()
        return final

    def _save(self, final: Path, card: str) -> None:
        partial = final.with_name(f"{final.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            with writing(final):
                save_half(self.pipeline, partial)
                (partial / "README.md").write_text(card, encoding="utf-8")
                learnt = {case.id for case in self.cases} | self.located
                write_json(partial / "training_data.json", {"cases": sorted(learnt)})
                if final.exists():
                    shutil.rmtree(final)
                partial.rename(final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            self.pipeline.to(torch.float32)

    def _text(self, allow_download: bool) -> tuple[BertModel | None, BertTokenizer]:
        if self.recipe.text_model:
            return ready_made_bert(self.recipe.text_model, allow_download)
        kept, partial = self.folder / "tokenizer", self.folder / "tokenizer.partial"
        with self._processes.main_process_first(), writing(kept):
            if not kept.is_dir():
                train_bert_tokenizer(self.recipe.vocabulary).save_pretrained(partial)
                partial.rename(kept)
        return None, BertTokenizer.from_pretrained(kept, local_files_only=True)

    def _record(self) -> dict[str, Any]:
        """What must stay the same when the run is continued."""
        recipe = json.loads(json.dumps(asdict(self.recipe)))
        del recipe["schedule"], recipe["encoder"], recipe["licence"]
        return {"recipe": recipe, "cases": [case.id for case in self.cases]}

    def _check_record(self) -> None:
        """Refuses to go on with another recipe or other cases than the folder's."""
        known = _read_record(self.folder)
        if known is None:
            return
        record = self._record()
        began = known["recipe"]
        changed = sorted(name for name, value in record["recipe"].items() if began.get(name) != value)
        if changed:
            raise UsageError(
                f"{self.folder} was begun with another {', '.join(changed)}.",
                "Give the same again, or another --output.",
            )
        if sorted(record["cases"]) != sorted(known["cases"]):
            raise UsageError(
                f"{self.folder} was begun with other cases.",
                "Give the same --data, --exclude and --fold, or none; another --output; or --fresh.",
            )

    def _card(self, report: Path | None) -> str:
        recipe, parts = self.recipe, self.pipeline.components.items()
        weights = {n: m for n, m in parts if isinstance(m, torch.nn.Module)}
        counts = {n: sum(p.numel() for p in m.parameters()) / 1e6 for n, m in weights.items()}
        domains = {d: sum(c.domain == d for c in self.cases) for d in sorted({c.domain for c in self.cases})}
        lines = [
            f"# {recipe.name}",
            "",
            f"Draws several different outlines of the abdominal organs{_and_findings(recipe)} that you name, "
            "each as one whole 3D volume. Research use only; not a medical device.",
            "",
            "## Terms of the weights",
            "",
            recipe.licence,
            "",
            "## What it is",
            "",
            "- Method: TextDiffSeg (arXiv 2504.11825)",
            f"- Left out for comparison: {_words(recipe.without) or 'nothing'}",
            f"- Text encoder: {recipe.text_model or 'a small BERT, trained with the rest'}",
            f"- Findings: {self.pipeline.config.findings or 'none'} (learnt from {self._lesions()})",
            f"- Sampling: {recipe.default_steps} steps, eta {recipe.eta:g}",
            "",
            "| part | parameters |",
            "| --- | --- |",
            *(f"| {name} | {count:.2f} M |" for name, count in counts.items()),
            "",
            "## What it learnt from",
            "",
            ", ".join(f"{n} {domain}" for domain, n in domains.items())
            + ": "
            + ", ".join(case.id for case in self.cases)
            + ".",
            "",
            "## How it was trained",
            "",
            "| stage | steps | minutes | pieces a step |",
            "| --- | --- | --- | --- |",
            *(self._stage_row(name) for name in (_FIRST, _JOINT) if (self.folder / name).is_dir()),
            "",
            "## How well it does",
            "",
            measured_tables(report),
        ]
        return "\n".join(lines) + "\n"

    def _stage_row(self, name: str) -> str:
        steps = checkpoint_step(self.folder / name)
        schedule = self.recipe.encoder if name == _FIRST else self.recipe.schedule
        return f"| {name} | {steps} | {self._minutes(name):.1f} | {schedule.batch} |"

    def _lesions(self) -> str:
        labelled = sum(bool(case.annotated_findings) for case in self.cases)
        if not labelled:
            return "synthesised lesions only: no figure for real ones"
        return f"synthesised lesions and real ones, looked for in {labelled} of the cases"


def recipe_with(values: Mapping[str, Any]) -> Recipe:
    """The default recipe with some values changed, such as `{"lesions": 0, "without": ["text"]}`.

    Raises:
        UsageError: an unknown key or ablation.
    """
    changed = dict(values)
    without = changed.pop("without", ())
    for names, kind in ((changed, Recipe), (without, Without)):
        unknown = sorted(set(names) - {f.name for f in fields(kind)})
        if unknown:
            known = ", ".join(f.name for f in fields(kind))
            raise UsageError(f"{', '.join(unknown)} is not known.", f"Known are: {known}.")
    return Recipe(**changed, without=Without(**dict.fromkeys(without, True)))


def recorded_cases(folder: Path) -> list[str] | None:
    """Ids of the cases that a run began with, None where there is no run.

    Raises:
        UsageError: the run's record cannot be read.
    """
    record = _read_record(folder)
    return None if record is None else list(record["cases"])


def _read_record(folder: Path) -> dict[str, Any] | None:
    path = folder / _RECORD
    if not path.is_file():
        return None
    remedy = "Begin anew with --fresh and --data."
    record = read_json(path, remedy)
    if not {"recipe", "cases"} <= set(record):
        raise UsageError(f"{path} is not of a training run.", remedy)
    return record


def read_locator(folder: Path) -> OrganLocator:
    """A trained locator: its own folder, a model folder, or a training run.

    Raises:
        ModelError: there is none.
    """
    for place in (folder, folder / "locator", folder / "locator" / "parts" / "locator"):
        if (place / "config.json").is_file():
            try:
                return OrganLocator.from_pretrained(
                    place, use_safetensors=True, local_files_only=True
                ).float()
            except (OSError, ValueError, RuntimeError) as error:
                reason = str(error).strip().splitlines()[0]
                raise ModelError(f"{place} cannot be loaded ({reason}).", "Train it again.") from error
    raise ModelError(f"{folder} holds no locator.", "First: progidiff train locator.")


def _and_findings(recipe: Recipe) -> str:
    return ", and of tumors in the liver, pancreas and kidneys," if recipe.lesions else ""


def _words(without: Without) -> str:
    return ", ".join(name.replace("_", " ") for name, left_out in asdict(without).items() if left_out)
