"""Runs a model over labelled cases and keeps every figure, one file a case, as soon as it is known."""

from __future__ import annotations

import hashlib
import json
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from progidiff import __version__
from progidiff.errors import CasesError, PromptError, VolumeError
from progidiff.evaluation.cohorts import cohort_of
from progidiff.evaluation.measure import measure_organ
from progidiff.evaluation.metrics import Mask, dice
from progidiff.evaluation.predictors import LabelMapPredictor, Predictor, SegmenterPredictor
from progidiff.evaluation.records import CaseRecord, OrganRecord, write_json
from progidiff.prompts.target import Target
from progidiff.volumes.volume import Modality, Volume

if TYPE_CHECKING:
    from progidiff.segmenter import Segmenter

_KEY_LETTERS = 16


class EvaluationCase(Protocol):
    """A labelled case; `training.case.Case` is one."""

    @property
    def id(self) -> str: ...

    @property
    def organs(self) -> Iterable[str]: ...

    @property
    def findings(self) -> Iterable[str]: ...

    def load(self, findings: bool = False) -> tuple[Volume, Volume]:
        """Image, and label map with the organ table's numbers on the same grid.

        Voxels of a finding have the number of its organ, or with `findings` their own.
        """
        ...


@dataclass(frozen=True)
class PhantomCase:
    """A synthesised case: anatomy by procedure, no patient.

    Attributes:
        seed: of the anatomy.
        modality: what the painted image looks like.
    """

    seed: int
    modality: Modality = "CT"

    @property
    def id(self) -> str:
        return f"phantom_{self.modality.lower()}_{self.seed}"

    @property
    def organs(self) -> tuple[str, ...]:
        from progidiff.prompts import organ_table

        return tuple(organ.id for organ in organ_table().organs)

    @property
    def findings(self) -> tuple[str, ...]:
        return ()

    def load(self, findings: bool = False) -> tuple[Volume, Volume]:
        from progidiff.training.phantom import make_phantom

        return make_phantom(self.seed, self.modality)


@dataclass(frozen=True)
class Settings:
    """Everything besides model and case that the figures depend on.

    Attributes:
        steps: denoising steps; None for the model's own default.
        organs: ids of the organs and findings to ask for; empty for all that are annotated.
        tolerance_mm: of the surface Dice.
        paraphrases: whether to ask again in the ten held-out wordings, one proposal each.
    """

    proposals: int = 5
    steps: int | None = None
    seed: int = 0
    organs: tuple[str, ...] = ()
    tolerance_mm: float = 2.0
    paraphrases: bool = False


@dataclass
class Evaluation:
    """What a run found.

    Attributes:
        records: one a case, in the order of the cases.
        failures: case id → why it could not be measured.
    """

    settings: Settings
    records: list[CaseRecord]
    failures: dict[str, str]


def evaluate(
    model: Segmenter | LabelMapPredictor,
    cases: Sequence[EvaluationCase],
    output: Path,
    *,
    proposals: int = 5,
    steps: int | None = None,
    seed: int = 0,
    organs: Sequence[str] = (),
    tolerance_mm: float = 2.0,
    paraphrase_cases: int = 0,
    labels_by: str = "",
    on_case: Callable[[CaseRecord, bool], None] | None = None,
) -> Evaluation:
    """Measures a model on labelled cases; a second run measures only what the first did not finish.

    Args:
        model: a segmenter, or finished label maps of a deterministic model.
        cases: what to measure on; organs that a case does not annotate are skipped, and findings that the
            model does not draw.
        output: folder; ``cases/ID.KEY.json`` is written there after each case.
        paraphrase_cases: on how many of the first cases all paraphrases are tried too.
        labels_by: who made the labels, for the report.
        on_case: called with each record and whether it was there already.

    Raises:
        CasesError: there are no cases.
        OutputError: the folder cannot be written.
    """
    if not cases:
        raise CasesError("There is no labelled case to measure on.", "Check the data folder and --cases.")
    predictor = model if isinstance(model, LabelMapPredictor) else SegmenterPredictor(model, steps, seed)
    evaluation = Evaluation(Settings(proposals, steps, seed, tuple(organs), tolerance_mm), [], {})
    for index, case in enumerate(cases):
        settings = Settings(
            proposals, steps, seed, tuple(organs), tolerance_mm, paraphrases=index < paraphrase_cases
        )
        try:
            record, known = _evaluate_case(predictor, case, settings, output, labels_by)
        except (CasesError, VolumeError) as error:  # one bad file must not cost the night's other cases
            evaluation.failures[case.id] = str(error)
            continue
        evaluation.records.append(record)
        if on_case:
            on_case(record, known)
    return evaluation


def _evaluate_case(
    predictor: Predictor, case: EvaluationCase, settings: Settings, output: Path, labels_by: str
) -> tuple[CaseRecord, bool]:
    """The record of a case, and whether an earlier run had finished it."""
    image, label = case.load(findings=bool(predictor.findings))
    organs = _organs_to_ask(case, settings, predictor.findings)
    key = _key(predictor, image, label, settings, organs)
    path = output / "cases" / f"{case.id.replace('/', '_')}.{key[:_KEY_LETTERS]}.json"
    finished = path.is_file()
    if not finished:
        measured = _measure_case(
            predictor, case, image=image, label=label, settings=settings, organs=organs, key=key
        )
        write_json(measured.to_json(), path)
    record = CaseRecord.from_json(json.loads(path.read_text(encoding="utf-8")))
    cohort = cohort_of(case.id, record.kind, record.modality, labels_by)
    record.cohort, record.labels_by = cohort.name, cohort.labels_by
    return record, finished


def _organs_to_ask(case: EvaluationCase, settings: Settings, drawn: Collection[str]) -> list[str]:
    """What is wanted of the annotated organs and of findings that the model draws, in the table's order."""
    from progidiff.prompts import organ_table

    annotated = {*case.organs, *(set(case.findings) & set(drawn))}
    wanted = annotated & set(settings.organs or annotated)
    return [o.id for o in (*organ_table().organs, *organ_table().findings) if o.id in wanted]


def _measure_case(
    predictor: Predictor,
    case: EvaluationCase,
    *,
    image: Volume,
    label: Volume,
    settings: Settings,
    organs: Sequence[str],
    key: str,
) -> CaseRecord:
    started = time.perf_counter()
    prepared = predictor.prepare(case.id, image)
    record = CaseRecord(
        case=case.id,
        key=key,
        cohort="",
        kind="phantom" if isinstance(case, PhantomCase) else "real scan",
        labels_by="",
        modality=_modality(image),
        shape=list(image.shape),
        spacing_mm=[round(float(s), 4) for s in image.spacing],
        model=predictor.model_id,
        model_hash=predictor.model_hash,
        device=predictor.device,
        seconds_prepare=round(time.perf_counter() - started, 3),
    )
    for organ in organs:
        reference = np.isin(label.array, _numbers(organ))
        record.organs.append(_measure_target(predictor, prepared, organ, reference, settings))
    return record


def _numbers(organ: str) -> list[int]:
    """An organ's number and those of the findings in it, which are part of it; a finding's own."""
    from progidiff.prompts import organ_table

    table = organ_table()
    return [table.by_id(organ).label, *(f.label for f in table.findings if f.within == organ)]


def _measure_target(
    predictor: Predictor, prepared: object, organ: str, reference: Mask, settings: Settings
) -> OrganRecord:
    started = time.perf_counter()
    predicted = predictor.propose(prepared, plain_target(organ), settings.proposals)
    seconds = time.perf_counter() - started
    rng = np.random.default_rng([settings.seed, zlib.crc32(organ.encode())])
    record = measure_organ(
        predicted,
        reference,
        seconds=seconds,
        rng=rng,
        tolerance_mm=settings.tolerance_mm,
        deterministic=predictor.deterministic,
    )
    is_finding = organ in predictor.findings  # there are no held-out wordings of these
    if settings.paraphrases and not predictor.deterministic and not is_finding and reference.any():
        _measure_paraphrases(record, predictor, prepared, organ, reference)
    return record


def plain_target(organ: str) -> Target:
    """What "segment the ORGAN" asks for: the wording of every figure that is not about wordings."""
    from progidiff.prompts import organ_table, parse_prompt

    table = organ_table()
    return parse_prompt(f"segment the {table.by_id(organ).name}", table.finding_ids)[0]


def _measure_paraphrases(
    record: OrganRecord, predictor: Predictor, prepared: object, organ: str, reference: Mask
) -> None:
    """One proposal from the same noise for every wording: what differs is the words alone."""
    from progidiff.prompts import organ_table
    from progidiff.prompts.phrasing import paraphrases

    for wording in paraphrases(organ_table().by_id(organ)):
        target = _understood(wording, organ)
        if target is None:
            record.not_understood.append(wording)
            record.paraphrases.append(0.0)
            continue
        answer = predictor.propose(prepared, target, 1).consensus
        mask = answer.mask if answer is not None else np.zeros_like(reference)
        record.paraphrases.append(dice(mask, reference))


def _understood(wording: str, organ: str) -> Target | None:
    """The parser's reading of a wording, if that is the organ that was meant."""
    from progidiff.prompts import parse_prompt

    try:
        targets = parse_prompt(wording)
    except PromptError:
        return None
    return next((target for target in targets if target.organ == organ), None)


def _modality(image: Volume) -> str:
    from progidiff.volumes import decide_modality

    return image.modality if image.modality != "unknown" else str(decide_modality(image))


def _key(
    predictor: Predictor, image: Volume, label: Volume, settings: Settings, organs: Sequence[str]
) -> str:
    """Hash of model, settings, package version and the very voxels: what the figures depend on."""
    digest = hashlib.sha256()
    facts = [
        __version__,
        predictor.model_id,
        predictor.model_hash,
        predictor.device,
        asdict(settings),
        list(organs),
    ]
    digest.update(json.dumps(facts, sort_keys=True).encode())
    for volume in (image, label):
        digest.update(str(volume.array.dtype).encode() + np.ascontiguousarray(volume.affine).tobytes())
        digest.update(np.ascontiguousarray(volume.array).data)
    return digest.hexdigest()
