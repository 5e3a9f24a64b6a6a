"""Puts the trained parts of a run together into one model folder, with its card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging

from progidiff.errors import ModelError, OutputError, UsageError
from progidiff.pipelines.model_folder import check_model_folder
from progidiff.pipelines.progidiff.pipeline import ProGiDiffPipeline
from progidiff.prompts import organ_table
from progidiff.resources import resources_folder
from progidiff.training.configuration import STAGES, Configuration, load_configuration
from progidiff.training.parts import load_part
from progidiff.training.run import stage_summary
from progidiff.training.stages import load_generator, require_same_ground, stage_folder

Json = dict[str, Any]

_COLUMNS = (("single", "one proposal"), ("consensus", "consensus"), ("oracle", "best of them (oracle)"))


def assemble(
    run: Path, *, unfrozen: bool = False, report: Path | None = None, allow_download: bool = False
) -> Path:
    """Write the model folder `run/NAME`, NAME as configured; an earlier one is replaced.

    Args:
        run: a training run whose stages have ended.
        unfrozen: take the control stage that also trained the generator.
        report: output folder of `progidiff evaluate`, whose figures the card shall carry.
        allow_download: as in training.

    Returns:
        The model folder.

    Raises:
        UsageError: `run` is no training run, or a stage is missing or outdated.
        ModelError: a part is damaged or does not fit into half precision.
        CasesError: the report cannot be read.
        OutputError: the folder cannot be written.
    """
    if not (run / "configuration.json").is_file():
        raise UsageError(f"{run} is no training run.", "Give the --output folder of `progidiff train`.")
    configuration = load_configuration(run / "configuration.json")
    summaries = _summaries(run, configuration, unfrozen)
    measured = _read_report(report)
    pipeline = load_pipeline(run, configuration, unfrozen=unfrozen, allow_download=allow_download)
    for summary in summaries:
        require_same_ground(run, summary, unfrozen)
    data = json.loads((run / "training_data.json").read_text(encoding="utf-8"))
    data.pop("made_from", None)  # of this computer's files
    data["stages"] = summaries
    final = run / configuration.name
    partial = run / f"{configuration.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        card = model_card(configuration, pipeline, data, measured, unfrozen=unfrozen)
        save_half(pipeline, partial)
        (partial / "README.md").write_text(card, encoding="utf-8")
        (partial / "training_data.json").write_text(
            json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        check_model_folder(partial)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise OutputError(
            f"{final} cannot be written ({error.strerror or error}).", "Free some space, and assemble again."
        ) from error
    return final


def load_pipeline(
    run: Path, configuration: Configuration, *, unfrozen: bool = False, allow_download: bool = False
) -> ProGiDiffPipeline:
    """The parts of a run as one pipeline, in float32."""
    made = load_generator(run, configuration, allow_download)
    control = stage_folder(run, "control", unfrozen)
    last = "refiner" if "refiner" in configuration.stages else "control"
    return ProGiDiffPipeline(
        vae=made.vae,
        text_encoder=made.text_encoder,
        tokenizer=made.tokenizer,
        unet=load_part(control, "control", "unet") if unfrozen else made.unet,
        controlnet=load_part(control, "control", "controlnet"),
        image_encoder=load_part(control, "control", "image_encoder"),
        refiner=load_part(stage_folder(run, last, unfrozen), last, "refiner"),
        locator=load_part(stage_folder(run, "locator"), "locator", "locator"),
        scheduler=made.scheduler,
        default_steps=configuration.default_steps,
        eta=configuration.eta,
    )


def save_half(pipeline: DiffusionPipeline, folder: Path) -> None:
    """Save as float16 safetensors, half the size; `from_pretrained` computes in float32 again.

    Raises:
        ModelError: a weight is too large for half precision, or no number.
    """
    logging.set_verbosity_error()  # diffusers warns of casts that are meant
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            part.to(dtype=torch.float16)
            if not all(torch.isfinite(p).all() for p in part.parameters()):
                raise ModelError(f"The weights of {name} are not all finite.", "Train it again with --fresh.")
    pipeline.save_pretrained(folder, safe_serialization=True)
    # transformers would otherwise compute in the precision that is stored.
    path = folder / "text_encoder" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def model_card(
    configuration: Configuration,
    pipeline: ProGiDiffPipeline,
    data: Json,
    report: Json | None = None,
    *,
    unfrozen: bool = False,
) -> str:
    """The card, `Resources/Training/model_card.md` filled in.

    Args:
        configuration: of the run.
        pipeline: gives the numbers of parameters.
        data: `training_data.json` with the stages' summaries.
        report: what `evaluation.records.read_report` returns, or None.
        unfrozen: whether the generator was trained with the ControlNet.
    """
    template = (resources_folder() / "Training" / "model_card.md").read_text(encoding="utf-8")
    counts = {
        name: sum(p.numel() for p in part.parameters())
        for name, part in pipeline.components.items()
        if isinstance(part, torch.nn.Module)
    }
    state = "trained together with the ControlNet" if unfrozen else "frozen while the ControlNet learnt"
    return Template(template).substitute(
        name=configuration.name,
        description=configuration.description or "A ProGiDiff model.",
        licence=configuration.licence or "Not stated.",
        generator=_generator_words(configuration),
        slices=configuration.encoder.slices,
        crop=configuration.crop,
        locator_mm=f"{configuration.locator.spacing:g}",
        refinement=_refinement_words(pipeline.refiner.config),
        prediction=_prediction_words(pipeline.scheduler.config),
        default_steps=configuration.default_steps,
        eta=f"{configuration.eta:g}",
        weights="float16 safetensors",
        parameters="\n".join(f"| {name} | {count / 1e6:.2f} M |" for name, count in counts.items()),
        organs=", ".join(_organs(data)),
        data=_data_words(data),
        terms="\n".join(f"- {note}" for note in configuration.notes),
        stages="\n".join(_stage_row(summary) for summary in data["stages"]),
        unfrozen=f"The generator was {state}.",
        software=_software(),
        measured=_measured(report),
    )


def _summaries(run: Path, configuration: Configuration, unfrozen: bool) -> list[Json]:
    """Each stage's summary, in order."""
    summaries = []
    for stage in (name for name in STAGES if name in configuration.stages):
        summary = stage_summary(stage_folder(run, stage, unfrozen))
        if summary is None:
            raise UsageError(f"The stage {stage} of {run} has not ended.", f"First: train {stage}.")
        summaries.append(summary)
    return summaries


def _read_report(folder: Path | None) -> Json | None:
    if folder is None:
        return None
    from progidiff.evaluation.records import read_report

    return read_report(folder)


def _generator_words(configuration: Configuration) -> str:
    if not configuration.base:
        return "a small latent diffusion model that draws masks from text, trained from nothing on label maps"
    how = "fine-tuned on label maps" if configuration.own_generator else "as it is"
    return f"the text-to-image latent diffusion model {configuration.base}, {how}"


def _refinement_words(refiner: Mapping[str, Any]) -> str:
    borders = "puts borders right at full resolution"
    weighs = "weighs what is drawn against what the image encoder's organ head sees"
    return f"{weighs} and {borders}" if refiner["weighs_evidence"] else borders


def _prediction_words(schedule: Mapping[str, Any]) -> str:
    what = {"v_prediction": "v", "sample": "x0", "epsilon": "the noise"}[schedule["prediction_type"]]
    ours = schedule.get("rescale_betas_zero_snr", False)
    where = "a schedule with zero terminal SNR" if ours else "the schedule of its base"
    return f"The generator predicts {what} on {where}"


def _data_words(data: Json) -> str:
    domains = ", ".join(f"{count} {domain}" for domain, count in data["domains"].items())
    words = [f"{len(data['cases'])} cases ({domains})" if data["cases"] else "No patient's data"]
    if data["painted"]:
        words.append(f"{len(data['painted'])} images painted from label maps")
    if data["phantoms"]["count"]:
        words.append(f"{data['phantoms']['count']} phantoms")
    kept = f" Kept aside: {', '.join(data['kept_aside'])}." if data["kept_aside"] else ""
    return f"{'; '.join(words)}.{kept}"


def _organs(data: Json) -> list[str]:
    """Names of the organs that a training case annotates; of a run that did not note them, of all."""
    known = data.get("organs")
    return [organ.name for organ in organ_table().organs if known is None or organ.label in known]


def _stage_row(summary: Json) -> str:
    return (
        f"| {summary['stage']} | {summary['steps']} | {summary['minutes']:.1f} | {summary['batch']} "
        f"| {summary.get('optimizer', 'adamw')} | {summary['learning_rate']:g} | {summary['seed']} |"
    )


def _software() -> str:
    from progidiff.evaluation.report import software_versions

    return ", ".join(f"{name} {version}" for name, version in software_versions().items())


def measured_tables(folder: Path | None) -> str:
    """The figures of a folder that `progidiff evaluate` wrote, for a card.

    Raises:
        CasesError: it cannot be read.
    """
    return _measured(_read_report(folder))


def _measured(report: Json | None) -> str:
    """The report's figures as tables, a cohort each."""
    if report is None:
        return "Not measured yet: `progidiff evaluate` does it, `progidiff train … --report` adds it."
    tables = [_cohort_table(name, cohort) for name, cohort in report["cohorts"].items()]
    return "\n\n".join([*tables, f"Metrics: {report['implementation']}"])


def _cohort_table(name: str, cohort: Json) -> str:
    kept = [value for value, _ in _COLUMNS]
    rows = [
        f"### {name}: {len(cohort['cases'])} cases",
        "",
        "| mean Dice | " + " | ".join(title for _, title in _COLUMNS) + " | HD95 mm |",
        "| --- |" + " --- |" * (len(_COLUMNS) + 1),
    ]
    for organ, row in {**cohort["organs"], **cohort["groups"]}.items():
        figures = [_figure(row[value], 3) for value in kept] + [_figure(row["hd95_mm"], 1)]
        rows.append(f"| {organ.replace('_', ' ')} | {' | '.join(figures)} |")
    return "\n".join(rows)


def _figure(statistics: Json, digits: int) -> str:
    return "–" if statistics["mean"] is None else f"{statistics['mean']:.{digits}f}"


def parts_size_mb(folder: Path, patterns: Sequence[str] = ("*.safetensors",)) -> float:
    """Size on disk of a model folder's weights."""
    return sum(path.stat().st_size for pattern in patterns for path in folder.rglob(pattern)) / 1e6
