"""What was measured, as plain data: one record a case, one a case's organ, and their JSON."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from progidiff.errors import CasesError, OutputError

Json = dict[str, Any]


@dataclass
class OrganRecord:
    """The figures of one organ in one case; None stands for "does not exist", never for zero.

    Dice values follow `metrics.EMPTY_MASK_RULE`; `hd95_mm` and `surface_dice` are the consensus's.

    Attributes:
        outcome: of the consensus: compared, missed, false positive or correctly absent.
        singles: Dice of each proposal, best score first.
        scores: the model's own score of each proposal, same order.
        dice_at_half: Dice of the mean map cut at 0.5 rather than at the consensus's own threshold.
        jitter_best: the best of as many random variations of one proposal, see `jitter`.
        jitter_matched: whether those differ from one another as much as the proposals do.
        all_empty: no proposal has a voxel.
        reliability, disagreement: `BinnedRate.to_json` over the box around organ and proposals.
        paraphrases: Dice of one proposal for each held-out wording of the prompt.
        not_understood: wordings that the prompt parser took for another organ or for none; their Dice is 0.
    """

    organ: str
    outcome: str
    found: bool
    reference_ml: float
    prediction_ml: float
    seconds: float
    steps: int | None = None
    dice: float | None = None
    hd95_mm: float | None = None
    surface_dice: float | None = None
    dice_at_half: float | None = None
    single: float | None = None
    singles: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    best: float | None = None
    pairwise: float | None = None
    distinct: int = 0
    all_empty: bool = False
    jitter_best: float | None = None
    jitter_single: float | None = None
    jitter_pairwise: float | None = None
    jitter_matched: bool = False
    ece: float | None = None
    brier: float | None = None
    reliability: Json | None = None
    disagreement: Json | None = None
    disagreement_error_rho: float | None = None
    paraphrases: list[float] = field(default_factory=list)
    not_understood: list[str] = field(default_factory=list)

    @property
    def counted(self) -> bool:
        """Whether the organ enters the Dice means of this case."""
        return self.outcome != "correctly absent"


@dataclass
class CaseRecord:
    """One patient or phantom.

    Attributes:
        key: hash of everything that the figures depend on; equal keys mean equal figures.
        cohort: group of cases whose figures may be averaged, see `cohorts`.
        kind: "real scan" or "phantom".
    """

    case: str
    key: str
    cohort: str
    kind: str
    labels_by: str
    modality: str
    shape: list[int]
    spacing_mm: list[float]
    model: str
    model_hash: str
    device: str
    seconds_prepare: float
    organs: list[OrganRecord] = field(default_factory=list)

    def by_organ(self, organ: str) -> OrganRecord | None:
        return next((record for record in self.organs if record.organ == organ), None)

    def to_json(self) -> Json:
        return rounded(asdict(self))

    @classmethod
    def from_json(cls, data: Json) -> CaseRecord:
        organs = [OrganRecord(**organ) for organ in data["organs"]]
        return cls(**{**data, "organs": organs})


def rounded(data: Any) -> Any:
    """The same JSON with six decimals: more would be noise and five times the size."""
    if isinstance(data, dict):
        return {key: rounded(value) for key, value in data.items()}
    if isinstance(data, list):
        return [rounded(value) for value in data]
    return round(data, 6) if isinstance(data, float) else data


def write_text(text: str, path: Path) -> None:
    """Writes a file so that it is there whole or not at all.

    Raises:
        OutputError: the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        if temporary.is_file():
            temporary.unlink()
        raise OutputError(
            f"{path} cannot be written ({error.strerror}).",
            "Choose a folder with free space that you may write.",
        ) from error


def write_json(data: Json, path: Path) -> None:
    """Writes strict JSON, one line for each entry: a NaN is an error here, not a surprise for the reader."""
    lines = []
    for name, value in data.items():
        if isinstance(value, list) and value:
            body = "[\n" + ",\n".join(json.dumps(item, allow_nan=False) for item in value) + "\n]"
        else:
            body = json.dumps(value, allow_nan=False)
        lines.append(f"{json.dumps(name)}: {body}")
    write_text("{\n" + ",\n".join(lines) + "\n}\n", path)


def read_report(folder: Path) -> Json:
    """Reads the `report.json` of an earlier evaluation.

    Raises:
        CasesError: there is none, or it is not a report.
    """
    path = folder / "report.json" if folder.is_dir() else folder
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        report["records"] = [CaseRecord.from_json(case) for case in report.pop("cases")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CasesError(
            f"{path} is not the report of an evaluation.",
            "Give the --output folder of a finished evaluation.",
        ) from error
    return report
