"""From CT to MR with a few patients: LoRA against everything else, on real T2 MR.

    python Testing/Benchmarks/adaptation_mr.py --data shared/data --output DIR [--model PATH] [--minutes 15]
        [--only 'lora-*' …] [--list] [--report]

Every figure is a *cell*: one training and its measurement, finished in one file `cells/NAME.json`. A stopped
run continues with the cells that are missing, and within the cell where it stopped; several machines may
share the cells by --only. The report (Markdown, JSON, plots) is written anew after each cell.

Draw d puts the patients into an order of its own; the first five of it may teach (k of them do), the others
are tested on, so that every k of a draw is measured on the same patients. The bound ("all") teaches with ten
patients and tests on the other five, three times, so that every patient is tested once.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

METHODS = ("lora", "full", "unet", "scratch")
COUNTS = (1, 2, 3, 5)
MOST = max(COUNTS)
FOLDS = 3
VARIANTS: dict[str, dict[str, Any]] = {
    "rank4": {"rank": 4},
    "rank16": {"rank": 16},
    "rate1e-4": {"learning_rate": 1e-4},
    "rate1e-3": {"learning_rate": 1e-3},
    "encoder-rate5e-4": {"encoder_learning_rate": 5e-4},
    "batch16": {"batch": 16, "encoder_learning_rate": 1e-3},
    "no-see": {"shares": (0.05, 0.0, 0.95)},
    "no-draw": {"shares": (0.05, 0.95, 0.0)},
    "first-layers": {"encoder": "first"},
    "appearance0": {"appearance": 0.0},
    "appearance1": {"appearance": 1.0},
    "no-phantoms": {"phantoms": 0},
    "prior0": {"prior": 0.0},
    "minutes15": {"minutes": 15.0},
}
"""Other settings of LoRA at k = 3, draw 0, from which the defaults were chosen."""


@dataclass(frozen=True)
class Cell:
    """One figure.

    Attributes:
        name: also of its file.
        method: "base", "lora", "full", "unet" or "scratch".
        teach, test: patient ids.
        change: settings that differ from the defaults.
    """

    name: str
    method: str
    teach: tuple[str, ...]
    test: tuple[str, ...]
    change: dict[str, Any] = field(default_factory=dict)

    @property
    def k(self) -> int:
        return len(self.teach)


@dataclass
class Experiment:
    """What all cells share.

    Attributes:
        output: folder of the cells and the report.
        patients: labelled MR cases (`training.case.Case` or alike) by id.
        ct: labelled CT cases, measured with the adapter of `lora-k3-d0` off and on, and with bias fields.
        load: gives the CT-trained model, fresh.
        minutes: for each training.
        draws: how many.
        proposals: of each measurement.
        settings: of the adaptation, as changes to its defaults.
    """

    output: Path
    patients: dict[str, Any]
    ct: list[Any]
    load: Callable[[], Any]
    minutes: float = 15.0
    draws: int = 3
    proposals: int = 5
    settings: dict[str, Any] = field(default_factory=dict)

    def cells(self) -> list[Cell]:
        """All trainings, cheapest insight first."""
        ids = sorted(self.patients)
        cells = [Cell("base", "base", (), tuple(ids))]
        orders = [np.random.default_rng([7, d]).permutation(ids).tolist() for d in range(self.draws)]
        for k in (3, 1, 5, 2):
            for d, order in enumerate(orders):
                cells += [
                    Cell(f"{method}-k{k}-d{d}", method, tuple(order[:k]), tuple(order[MOST:]))
                    for method in METHODS
                ]
        folds = [ids[f::FOLDS] for f in range(FOLDS)]
        for f, fold in enumerate(folds):
            rest = tuple(i for i in ids if i not in fold)
            cells += [Cell(f"{method}-all-f{f}", method, rest, tuple(fold)) for method in METHODS]
        order = orders[0]
        cells += [
            Cell(f"variant-{name}", "lora", tuple(order[:3]), tuple(order[MOST:]), change)
            for name, change in VARIANTS.items()
        ]
        return cells


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    experiment = open_experiment(options)
    names = [cell.name for cell in experiment.cells()] + list(CT_CELLS)
    wanted = [n for n in names if not options.only or any(fnmatch.fnmatch(n, p) for p in options.only)]
    if options.list:
        for name in names:
            print(f"{'done' if cell_file(experiment, name).is_file() else '    '}  {name}")
        return 0
    if not options.report:
        for name in wanted:
            run_cell(experiment, name)
    from adaptation_report import write_report

    print(write_report(experiment.output, " ".join(sys.argv)))
    return 0


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("PROGIDIFF_SHARED_DATA", "../shared/data"))
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", type=float, default=15.0, help="for each training (default 15)")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--proposals", type=int, default=5)
    parser.add_argument(
        "--ct-cases", default="6", metavar="IDS", help="CT cases to measure, or how many (default 6)"
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="CELL", help="names or patterns such as 'lora-k3-*'"
    )
    parser.add_argument("--list", action="store_true", help="only print the cells and which are done")
    parser.add_argument("--report", action="store_true", help="only write the report")
    return parser.parse_args(arguments)


def open_experiment(options: argparse.Namespace) -> Experiment:
    from progidiff.segmenter_factory import load_segmenter
    from progidiff.training.cases import find_cases

    patients = {case.id: case for case in find_cases(options.data / "mr")}
    return Experiment(
        options.output,
        patients,
        chosen_ct([case for case in find_cases(options.data / "ct") if case.has_label], options.ct_cases),
        lambda: load_segmenter(options.model, options.device),
        options.minutes,
        options.draws,
        options.proposals,
    )


def chosen_ct(cases: list[Any], wanted: str) -> list[Any]:
    """The cases of the ids in `wanted`, joined by commas, or the first so many."""
    if wanted.isdigit():
        return cases[: int(wanted)]
    by_id = {case.id: case for case in cases}
    return [by_id[case_id] for case_id in wanted.split(",")]


# -- one cell ----------------------------------------------------------------------------------------


def cell_file(experiment: Experiment, name: str) -> Path:
    return experiment.output / "cells" / f"{name}.json"


def run_cell(experiment: Experiment, name: str) -> None:
    """Trains and measures a cell unless that was done before."""
    path = cell_file(experiment, name)
    if path.is_file():
        return
    print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
    if name in CT_CELLS:
        content = {"name": name, **CT_CELLS[name](experiment)}
    else:
        cell = next(cell for cell in experiment.cells() if cell.name == name)
        content = {**asdict(cell), **train_and_measure(experiment, cell)}
    from progidiff.atomic_files import write_json

    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)


def train_and_measure(experiment: Experiment, cell: Cell) -> dict[str, Any]:
    work = experiment.output / "work" / cell.name
    segmenter = experiment.load()
    start = time.monotonic()
    learnt = _learn(experiment, cell, segmenter, work)
    seconds = time.monotonic() - start
    model: Any = segmenter
    if cell.method in ("unet", "scratch"):
        from adaptation_methods import PlainUNet

        model = PlainUNet(segmenter)
    records = measure(experiment, model, [experiment.patients[i] for i in cell.test], work / "measured")
    return {
        "training_seconds": round(seconds, 1),
        "device": segmenter.device,
        "learnt": learnt,
        "records": records,
    }


def _learn(experiment: Experiment, cell: Cell, segmenter: Any, work: Path) -> dict[str, Any]:
    """Teaches the segmenter what the cell says; its weights or its adapter are changed."""
    if cell.method == "base":
        return {}
    from progidiff.adaptation.settings import AdaptSettings

    settings = replace(AdaptSettings(minutes=experiment.minutes), **{**experiment.settings, **cell.change})
    by_source = {case.source: case for case in library(experiment).cases()}
    cases = [by_source[patient] for patient in cell.teach]
    if cell.method == "lora":
        return _learn_lora(segmenter, cases, adapter_folder(experiment, cell.name), settings)
    from adaptation_methods import learn

    segmenter.model_id = f"{segmenter.model_id} {cell.name}"
    return learn(segmenter, cell.method, cases, work / "training", settings, experiment.minutes)


def _learn_lora(segmenter: Any, cases: list, folder: Path, settings: Any) -> dict[str, Any]:
    """The product's own path; an adapter that did not get better is measured all the same."""
    from progidiff.adaptation.adapt import adapt
    from progidiff.adaptation.adapter import Adapter

    adapter = Adapter.open(folder) if folder.is_dir() else adapt(segmenter, cases, folder, settings=settings)
    segmenter.load_adapter(folder)
    told = ("improved", "verdict", "measured", "forgetting", "training")
    return {key: adapter.facts[key] for key in told}


def adapter_folder(experiment: Experiment, name: str) -> Path:
    return experiment.output / "adapters" / name


def library(experiment: Experiment) -> Any:
    """The case library of all patients, made once; `source` is the patient's id."""
    from progidiff.adaptation.case_library import CaseLibrary
    from progidiff.prompts import organ_table

    cases = CaseLibrary(experiment.output / "library")
    there = {case.source for case in cases.cases()}
    for patient, case in experiment.patients.items():
        if patient in there:
            continue
        image, label = case.load()
        for organ in case.organs:
            mask = label.array == organ_table().by_id(organ).label
            if mask.any():
                cases.add(image, mask, organ, source=patient)
    return cases


def measure(experiment: Experiment, model: Any, cases: list, output: Path) -> list[dict[str, Any]]:
    """Every organ of every case, as `progidiff evaluate` does; what an earlier run measured is kept."""
    from progidiff.evaluation import evaluate

    found = evaluate(model, cases, output, proposals=experiment.proposals)
    kept = ("organ", "dice", "hd95_mm", "single", "best", "pairwise", "jitter_best", "found")
    return [
        {"case": record.case, **{key: getattr(organ, key) for key in kept}}
        for record in found.records
        for organ in record.organs
        if organ.counted
    ]


# -- CT: does it survive? ----------------------------------------------------------------------------


def ct_off_and_on(experiment: Experiment) -> dict[str, Any]:
    """CT before, with the adapter of `lora-k3-d0` on, and after it was taken off: bit by bit."""
    segmenter = experiment.load()
    work = experiment.output / "work" / "ct"
    before = _probabilities(segmenter, experiment.ct[0])
    off = measure(experiment, segmenter, experiment.ct, work / "off")
    folder = adapter_folder(experiment, "lora-k3-d0")
    if not folder.is_dir():
        run_cell(experiment, "lora-k3-d0")
    segmenter.load_adapter(folder)
    on = measure(experiment, segmenter, experiment.ct, work / "on")
    segmenter.unload_adapter()
    after = _probabilities(segmenter, experiment.ct[0])
    identical = before.keys() == after.keys() and all(np.array_equal(before[o], after[o]) for o in before)
    return {"off": off, "on": on, "identical": bool(identical), "compared": sorted(before)}


def _probabilities(segmenter: Any, case: Any) -> dict[str, Any]:
    from progidiff.adaptation.before_after import target_of

    prepared = segmenter.prepare(case.load()[0])
    sets = {organ: segmenter.propose(prepared, target_of(organ), 1) for organ in case.organs}
    return {organ: found.proposals[0].probability for organ, found in sets.items() if found.proposals}


@dataclass(frozen=True)
class BiasedCase:
    """A case under a strong smooth inhomogeneity, as an MR coil would cause; the same for each id.

    Attributes:
        case: the case itself.
        corrected: whether N4 (Tustison et al., IEEE TMI 2010) is tried against it.
    """

    case: Any
    corrected: bool = False
    amplitude: float = 0.5

    @property
    def id(self) -> str:
        return f"{self.case.id}_biased{'_n4' if self.corrected else ''}"

    @property
    def organs(self) -> Any:
        return self.case.organs

    @property
    def findings(self) -> Any:
        return self.case.findings

    def load(self, findings: bool = False) -> tuple[Any, Any]:
        from progidiff.volumes import normalise

        image, label = self.case.load(findings)
        grey = (normalise(image).array + 1) / 2  # from 0, as a multiplicative field wants it
        grey = np.clip(grey * bias_field(grey.shape, self.case.id, self.amplitude), 0, 1).astype(np.float32)
        if self.corrected:
            grey = n4(grey)
        return replace(image, array=grey * 400 - 125, modality="CT"), label


def bias_field(shape: Sequence[int], seed: str, amplitude: float) -> np.ndarray:
    """exp of a smooth random field whose knots lie a third of the volume apart."""
    import zlib

    from scipy.ndimage import zoom

    knots = np.random.default_rng(zlib.crc32(seed.encode())).normal(0, amplitude, (4, 4, 4))
    field_ = zoom(knots, np.array(shape) / 4, order=3, mode="nearest", grid_mode=True)
    return np.exp(field_).astype(np.float32)


def n4(grey: np.ndarray) -> np.ndarray:
    """N4 on a shrunken copy; the field is applied at full resolution."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(grey + 1e-3)
    mask = sitk.OtsuThreshold(image, 0, 1, 200)
    factors = [max(1, n // 64) for n in image.GetSize()]
    corrector = sitk.N4BiasFieldCorrectionImageFilter()
    corrector.SetMaximumNumberOfIterations([30, 20, 10])
    corrector.Execute(sitk.Shrink(image, factors), sitk.Shrink(mask, factors))
    field_ = sitk.GetArrayFromImage(sitk.Exp(corrector.GetLogBiasFieldAsImage(image)))
    return np.clip(grey / field_, 0, 1).astype(np.float32)


def ct_biased(experiment: Experiment) -> dict[str, Any]:
    """CT under a bias field, and corrected by N4 before."""
    segmenter, work = experiment.load(), experiment.output / "work" / "ct-bias"
    return {
        "biased": measure(experiment, segmenter, [BiasedCase(c) for c in experiment.ct], work),
        "corrected": measure(
            experiment, segmenter, [BiasedCase(c, corrected=True) for c in experiment.ct], work
        ),
    }


CT_CELLS: dict[str, Callable[[Experiment], dict[str, Any]]] = {
    "ct-adapter": ct_off_and_on,
    "ct-bias": ct_biased,
}


if __name__ == "__main__":
    sys.exit(main())
