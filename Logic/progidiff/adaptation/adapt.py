"""Adapt to my cases: corrected cases in, an adapter with an honest before and after out.

The order of things, each of which is kept on disk so that a stopped adaptation goes on where it was::

    measure before → learn from a part of the cases → measure after on the rest → better? learn from all,
    from there on and for as many steps as had proved good → check phantoms for forgetting → write the folder

What is measured is the adapter that has not seen the held-out cases. The one that is written has also
learnt from them, if that was better than the model alone; otherwise it is the measured one.
"""

from __future__ import annotations

import contextlib
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from torch import Tensor

from progidiff.adaptation import lora_training
from progidiff.adaptation.adapter import Adapter
from progidiff.adaptation.adapter_store import check_name
from progidiff.adaptation.before_after import Measured, measure_cases, measure_phantom
from progidiff.adaptation.case_library import StoredCase
from progidiff.adaptation.lessons import Lessons
from progidiff.adaptation.lora import shrunk
from progidiff.adaptation.outcome import Outcome, describe, held_out_facts, write_adapter
from progidiff.adaptation.progress import Meter, OnAdaptProgress
from progidiff.adaptation.settings import KINDS, TRAININGS, AdaptSettings
from progidiff.adaptation.teaching import split, whole
from progidiff.adaptation.work_folder import PLAN, digest_of, empty, open_plan, seconds_of, working_in
from progidiff.atomic_files import write_json
from progidiff.errors import CasesError, ModelError, OutputError
from progidiff.training.phantom import make_phantom

if TYPE_CHECKING:
    from progidiff.segmenter import Segmenter

_CHECK_PHANTOM = 910_000  # seed of the phantom that is checked; lessons draw from others
_NO_RECORD = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)  # or a damaged one


def adapt(
    segmenter: Segmenter,
    cases: Sequence[StoredCase],
    output: Path,
    *,
    name: str = "",
    settings: AdaptSettings | None = None,
    work: Path | None = None,
    on_progress: OnAdaptProgress | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Adapter:
    """Train an adapter on checked cases and measure what it is worth.

    Args:
        segmenter: the base model; an adapter on it is taken off meanwhile and put on again afterwards.
        cases: from a `CaseLibrary`.
        output: folder of the adapter; must not exist.
        name: what the user calls it; the date by default.
        settings: None takes the defaults.
        work: folder of checkpoints, `OUTPUT.training` by default. It stays after a cancel or a crash, and a
            second call with the same cases, model and settings continues there; other ones begin anew in it.
            It goes when all is done.
        on_progress: called about once a second.
        cancelled: checked between training steps and denoising steps.

    Returns:
        The adapter; `improved` says whether it is any better. It is not put on the segmenter.

    Raises:
        CasesError: no cases.
        Cancelled: `cancelled` said so.
        OutputError: `output` exists, `work` holds somebody else's files or another process works in it, or
            the disk is full. The cases are never touched.
    """
    if not cases:
        raise CasesError(
            "There are no cases to learn from.", "Correct a proposal and add it to the cases first."
        )
    output = Path(output).expanduser()
    if output.exists():
        raise OutputError(f"“{output}” exists already.", "Choose another folder for the adapter.")
    name = check_name(name or f"Adapted {datetime.now():%Y-%m-%d %H:%M}")
    settings = settings or AdaptSettings()
    work = work or output.with_name(f"{output.name}.training")
    tensors, adapter_id = segmenter.adapter_tensors, segmenter.adapter
    segmenter.unload_adapter()
    try:
        with working_in(work):
            job = _Adaptation(segmenter, cases, work, settings, on_progress, cancelled)
            return job.run(output, name)
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"The training cannot be saved in {work} ({error}).",
            "Free some space and start it again: it continues where it stopped, and no case is lost.",
        ) from error
    finally:
        segmenter.unload_adapter()
        segmenter.pipeline.to(segmenter.device)
        if adapter_id:
            segmenter.put_on(tensors, adapter_id)


class _Adaptation:
    """One adaptation and what it has found out so far."""

    def __init__(
        self,
        segmenter: Segmenter,
        cases: Sequence[StoredCase],
        work: Path,
        settings: AdaptSettings,
        on_progress: OnAdaptProgress | None,
        cancelled: Callable[[], bool],
    ) -> None:
        self.segmenter, self.cases, self.work, self.settings = segmenter, list(cases), work, settings
        self.cancelled = cancelled
        self.seconds = seconds_of(settings, segmenter.device)
        self.meter = Meter(on_progress, self.seconds)
        self.start = time.monotonic()
        self.plan = open_plan(work, digest_of(segmenter.model_hash, settings, self.seconds, cases))

    def run(self, output: Path, name: str) -> Adapter:
        """Everything, from the cases to the adapter's folder."""
        try:
            self.meter.begin("read")
            self.split = split(self.cases)
            self.lessons = Lessons(self.segmenter.pipeline, self.settings, self.work)
            self.phantom = make_phantom(
                _CHECK_PHANTOM, self.cases[0].modality, (128, 128, 32), (2.7, 2.7, 6.0)
            )
            before, phantom_before = self._measure("before")
            tensors, after = self._learn_from_a_part()
            taught = len(self.split.train)
            gain = after.mean - before.mean if after.dice else 0.0
            if gain > 0:  # however little: what was held out teaches too, and seldom makes it worse
                tensors, taught = self._learn_from_all(tensors), len(self.cases)
            tensors = shrunk(tensors, taught, self.settings.prior)
            self.plan["taught"] = taught
            self.meter.begin("check")
            phantom_after = self._measure_phantom("phantom_after", tensors)
        finally:
            self._remember_time()
        improved = bool(after.dice) and gain >= self.settings.least_gain
        held_out = held_out_facts(self.split.held_out, self.split.judged)
        outcome = Outcome(
            self.cases, self.split.how, held_out, improved, before, after, phantom_before, phantom_after
        )
        facts = describe(name, self.segmenter, self.settings, outcome, self.plan)
        adapter = write_adapter(output, facts, tensors, before, after)
        with contextlib.suppress(OSError):  # the adapter is there, whatever is left of its making
            empty(self.work)
        return adapter

    # -- measuring -----------------------------------------------------------------------------

    def _measure(self, stage: str, tensors: dict[str, Tensor] | None = None) -> tuple[Measured, Measured]:
        self.meter.begin(stage)
        start = time.monotonic()
        cases = self._measure_cases(stage, tensors, 0.5)
        phantom = self._measure_phantom(f"phantom_{stage}", tensors, 0.5)
        self.measuring_seconds = time.monotonic() - start
        return cases, phantom

    def _measure_cases(
        self, record: str, tensors: dict[str, Tensor] | None = None, share: float = 1.0
    ) -> Measured:
        return self._once(
            record,
            tensors,
            lambda: measure_cases(
                self.segmenter,
                self.split.held_out,
                self.split.judged,
                self.settings.proposals,
                self.settings.seed,
                lambda done: self.meter.at(done * share),
                self.cancelled,
            ),
        )

    def _measure_phantom(
        self, record: str, tensors: dict[str, Tensor] | None = None, share: float = 1.0
    ) -> Measured:
        image, label = self.phantom
        return self._once(
            record,
            tensors,
            lambda: measure_phantom(
                self.segmenter,
                image,
                label,
                self.settings.seed,
                lambda done: self.meter.at(1 - share + done * share),
                self.cancelled,
            ),
        )

    def _once(
        self, record: str, tensors: dict[str, Tensor] | None, measure: Callable[[], Measured]
    ) -> Measured:
        """What an earlier run has measured, or else measured now, with low-rank matrices on or off."""
        path = self.work / record
        with contextlib.suppress(*_NO_RECORD):
            return Measured.load(path)
        if tensors is not None:
            self.segmenter.put_on(tensors, "adapter-in-training")
        try:
            measured = measure()
        finally:
            self.segmenter.unload_adapter()
        measured.save(path)
        return measured

    # -- learning ------------------------------------------------------------------------------

    def _learn_from_a_part(self) -> tuple[dict[str, Tensor], Measured]:
        """The adapter that has not seen what is held out, and its measure."""
        teaching = [self.lessons.pack(part) for part in self.split.train]
        judging = [self.lessons.pack(part) for part in self.split.held_out]
        with self._attached():
            if not self.plan["steps"]:
                self.plan["steps"] = self._plan_steps(teaching)
                write_json(self.work / PLAN, self.plan)
            self._expect()
            for stage in KINDS:
                self._train(stage, teaching, judging)
            tensors = lora_training.state(self.segmenter.pipeline)
        self.meter.begin("after")
        put_on = shrunk(tensors, len(self.split.train), self.settings.prior)
        return tensors, self._measure_cases("after", put_on)

    def _learn_from_all(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Goes on from the measured adapter, with nothing held out."""
        teaching = [self.lessons.pack(whole(case)) for case in self.cases]
        with self._attached():
            lora_training.load_state(self.segmenter.pipeline, tensors)
            for kind in KINDS:
                self._train(f"{kind}_all", teaching, [])
            return lora_training.state(self.segmenter.pipeline)

    def _attached(self) -> Any:
        settings = self.settings
        return lora_training.attached(self.segmenter.pipeline, settings.rank, settings.encoder, settings.seed)

    def _train(self, stage: str, teaching: list, judging: list) -> None:
        self.meter.begin(stage)
        steps = self.plan["steps"][stage]
        if stage.endswith("_all"):  # no longer than had proved good
            steps = min(steps, self.plan["kept"].get(stage.removesuffix("_all"), 0))
        try:
            fitted = self.lessons.train(stage, teaching, judging, steps, self.meter, self.cancelled)
        except ModelError:  # a checkpoint that a power cut has damaged: this training begins anew
            shutil.rmtree(self.work / stage)
            fitted = self.lessons.train(stage, teaching, judging, steps, self.meter, self.cancelled)
        if fitted is not None:
            self.plan["kept"][stage] = fitted.steps
            self.plan["losses"][stage] = fitted.losses
            write_json(self.work / PLAN, self.plan)

    def _plan_steps(self, teaching: list) -> dict[str, int]:
        """How many steps of each training fit into the time that is left."""
        used = time.monotonic() - self.start
        training = max(self.seconds - used - 1.5 * self.measuring_seconds, 0.3 * self.seconds)
        speeds = self.lessons.seconds_per_step(teaching)
        self.plan["seconds_per_step"] = speeds
        steps = {}
        for stage in TRAININGS:
            share = self.settings.share(stage)
            count = int(training * share / speeds[stage.removesuffix("_all")])
            steps[stage] = max(1, min(count, self.settings.most_steps)) if share else 0
        return steps

    def _expect(self) -> None:
        for stage, steps in self.plan["steps"].items():
            self.meter.expect(stage, steps * self.plan["seconds_per_step"][stage.removesuffix("_all")])

    def _remember_time(self) -> None:
        self.plan["seconds_used"] += time.monotonic() - self.start
        if self.work.is_dir():
            write_json(self.work / PLAN, self.plan)
