"""What came of an adaptation, in words and numbers, and into the adapter's folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file
from torch import Tensor

from progidiff.adaptation.adapter import FACTS, PICTURE, SCHEMA, WEIGHTS, Adapter, file_hash
from progidiff.adaptation.before_after import Measured, draw_pictures, score_table
from progidiff.adaptation.card import LICENCE_NOTE, write_card
from progidiff.adaptation.case_library import StoredCase
from progidiff.adaptation.settings import AdaptSettings
from progidiff.adaptation.slices import runs, slices_text
from progidiff.adaptation.teaching import Part
from progidiff.atomic_files import new_folder, write_json

if TYPE_CHECKING:
    from progidiff.segmenter import Segmenter

_FORGOTTEN = 0.05  # a mean Dice that falls by more on the phantom is worth a warning


@dataclass(frozen=True)
class Outcome:
    """What was measured.

    Attributes:
        cases: that taught.
        how: what was held out, in words.
        held_out: the same, by id.
        improved: whether the adapter is better than the model alone.
        before, after: on what was held out.
        phantom_before, phantom_after: on a synthesised patient.
    """

    cases: list[StoredCase]
    how: str
    held_out: list[dict[str, Any]]
    improved: bool
    before: Measured
    after: Measured
    phantom_before: Measured
    phantom_after: Measured


def describe(
    name: str, segmenter: Segmenter, settings: AdaptSettings, outcome: Outcome, plan: dict[str, Any]
) -> dict[str, Any]:
    """The content of `adapter.json`, without what is known only of the weights.

    Args:
        name: what the user calls the adapter.
        segmenter: the base model.
        settings: of the adaptation.
        outcome: its measures.
        plan: the steps planned and kept, the losses, the time used.
    """
    return {
        "schema": SCHEMA,
        "name": name,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "base_model": segmenter.model_id,
        "base_hash": segmenter.model_hash,
        "rank": settings.rank,
        "cases": [_case_facts(case) for case in outcome.cases],
        "organs": sorted({organ for case in outcome.cases for organ in case.organs}),
        "improved": outcome.improved,
        "verdict": verdict(outcome, settings.least_gain),
        "measured": {
            "how": f"{outcome.how} Dice of the consensus of {settings.proposals} proposals with the checked "
            "masks, drawn from the prompt on, with the adapter that had not learnt from them. They did "
            "choose the round of training that was kept, which flatters a little.",
            "held_out": outcome.held_out,
            "organs": score_table(outcome.before, outcome.after),
        },
        "forgetting": {
            "how": _forgetting(outcome),
            "organs": score_table(outcome.phantom_before, outcome.phantom_after),
        },
        "settings": asdict(settings),
        "training": {
            "how": f"{_how(plan)} {_strength(plan['taught'], settings.prior)}",
            "minutes": round(plan["seconds_used"] / 60, 2),
            "device": segmenter.device,
            "seconds_per_step": plan["seconds_per_step"],
            "steps": plan["steps"],
            "kept_steps": plan["kept"],
            "held_out_losses": plan["losses"],
        },
        "licence": LICENCE_NOTE,
    }


def write_adapter(
    folder: Path, facts: dict[str, Any], tensors: dict[str, Tensor], before: Measured, after: Measured
) -> Adapter:
    """The finished folder, all of it or none.

    Raises:
        OutputError: it exists, or the disk is full.
    """
    with new_folder(folder) as unfinished:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, unfinished / WEIGHTS)
        digest = file_hash(unfinished / WEIGHTS)
        of_weights = {"id": f"adapter-{digest[:12]}", "weights_hash": digest, "layers": _count(tensors)}
        facts = {**of_weights, **facts}
        write_json(unfinished / FACTS, facts)
        write_card(unfinished, facts)
        if before.looks and after.looks:
            draw_pictures(before, after, unfinished / PICTURE)
    return Adapter.open(folder)


def _count(tensors: dict[str, Tensor]) -> dict[str, int]:
    """Adapted layers by part."""
    parts = [name.split(".")[0] for name in tensors if name.endswith(".lora_A")]
    return {part: parts.count(part) for part in sorted(set(parts))}


def _case_facts(case: StoredCase) -> dict[str, Any]:
    slices = {organ: slices_text(runs(case.checked_slices(organ))) for organ in case.organs}
    return {"id": case.id, "modality": case.modality, "organs": slices}


def held_out_facts(parts: Sequence[Part], judged: Sequence[str]) -> list[dict[str, Any]]:
    """Which masks judged, by case id, slices and the masks' content: what two adapters must share for their
    Dice to be comparable."""
    facts = []
    for part in parts:
        organs = {
            organ: {"slices": slices_text(runs(flags)), "mask": part.case.organs[organ].mask_hash[:16]}
            for organ, flags in sorted(part.slices.items())
            if organ in judged
        }
        if organs:
            facts.append({"id": part.case.id, "organs": organs})
    return sorted(facts, key=lambda entry: entry["id"])


def verdict(outcome: Outcome, least_gain: float) -> str:
    """One or two sentences for the user: is it any better?"""
    before, after = outcome.before, outcome.after
    if not after.dice:
        return (
            "Whether this adapter is any better could not be measured: too little was checked to hold "
            "something back. It is not activated by itself."
        )
    change = f"mean Dice {before.mean:.3f} before, {after.mean:.3f} after, over {len(after.dice)} organs"
    if outcome.improved:
        return f"It got better on what it had not seen: {change}."
    return (
        f"It did not get better by {least_gain:g} on what it had not seen: {change}. "
        "It is not activated by itself; more or other cases may help."
    )


def _forgetting(outcome: Outcome) -> str:
    before, after = outcome.phantom_before, outcome.phantom_after
    text = (
        f"A one-step proposal of every organ on a synthesised {outcome.cases[0].modality} patient that no "
        f"training contains: mean Dice {before.mean:.3f} before, {after.mean:.3f} after."
    )
    if before.mean - after.mean > _FORGOTTEN:
        text += " Something was forgotten: switch the adapter off for organs and scanners it has not learnt."
    return text


def _strength(cases: int, prior: float) -> str:
    return (
        f"It is put on at {cases / (cases + prior):.0%} of its strength: the fewer cases taught, the nearer "
        "the model stays to itself."
    )


def _how(plan: dict[str, Any]) -> str:
    kept, steps = plan["kept"], plan["steps"]
    first = (
        f"LoRA on the locator ({kept.get('find', 0)} steps kept of {steps['find']}), on the image encoder by "
        f"its own organ loss ({kept.get('see', 0)} of {steps['see']}), then on it and all that draws "
        f"({kept.get('draw', 0)} of {steps['draw']}), the rest frozen; of the rounds the one with the lowest "
        "held-out loss was kept. This is what was measured."
    )
    if not any(stage.endswith("_all") for stage in kept):
        return f"{first} It is also what is in this folder."
    return (
        f"{first} Then it went on with all cases, the held-out ones too, for {kept.get('find_all', 0)}, "
        f"{kept.get('see_all', 0)} and {kept.get('draw_all', 0)} steps: that is what is in this folder, "
        "and it was not measured again."
    )
