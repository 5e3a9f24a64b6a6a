"""The adapter's card: what it learnt from, how it was measured, and what it is not for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from progidiff.adaptation.adapter import CARD
from progidiff.atomic_files import write_text

LICENCE_NOTE = (
    "These weights were trained on the cases listed here. Their terms of use, and those of the base model, "
    "hold for the adapter too: ask before you pass it on."
)


def write_card(folder: Path, facts: dict[str, Any]) -> None:
    """Writes `README.md` beside the facts.

    Raises:
        OutputError: the disk is full.
    """
    write_text(folder / CARD, card_text(facts))


def card_text(facts: dict[str, Any]) -> str:
    """The card in Markdown.

    Args:
        facts: content of `adapter.json`.
    """
    training = facts["training"]
    return "\n".join(
        [
            f"# {facts['name']}",
            "",
            f"{facts['verdict']}",
            "",
            f"A LoRA adapter of rank {facts['rank']} for `{facts['base_model']}` "
            f"(weights `{facts['base_hash'][:16]}…`), trained on {len(facts['cases'])} cases in "
            f"{training.get('minutes', 0):.1f} minutes on {training.get('device', '?')}, {facts['created']}.",
            "",
            *_measured("Before and after", facts["measured"]),
            *_measured("Has it forgotten anything?", facts["forgetting"]),
            "## Cases",
            "",
            "By id; no image is in this folder"
            " except the pictures in `before_after.png`, which are left out of exports.",
            "",
            *_case_lines(facts["cases"]),
            "",
            "## Training",
            "",
            training.get("how", ""),
            "",
            *(f"- {name}: {value}" for name, value in facts["settings"].items()),
            "",
            "## Licence",
            "",
            facts["licence"],
            "",
        ]
    )


def _measured(title: str, measurement: dict[str, Any]) -> list[str]:
    """A section that says how Dice was measured, and what came out."""
    return [f"## {title}", "", measurement["how"], "", _dice_table(measurement["organs"]), ""]


def _dice_table(organs: dict[str, dict[str, float]]) -> str:
    """Dice by organ, and the mean."""
    if not organs:
        return "Nothing could be measured."
    rows = ["| organ | Dice before | Dice after | change |", "| --- | --- | --- | --- |"]
    for organ, score in organs.items():
        rows.append(_row(organ.replace("_", " "), score["before"], score["after"]))
    count = len(organs)
    before, after = (sum(s[key] for s in organs.values()) / count for key in ("before", "after"))
    rows.append(_row("**mean**", before, after))
    return "\n".join(rows)


def _row(name: str, before: float, after: float) -> str:
    return f"| {name} | {before:.3f} | {after:.3f} | {after - before:+.3f} |"


def _case_lines(cases: list[dict[str, Any]]) -> list[str]:
    return [
        f"- `{case['id']}` ({case['modality']}): "
        + "; ".join(f"{organ.replace('_', ' ')}, slices {text}" for organ, text in case["organs"].items())
        for case in cases
    ]
