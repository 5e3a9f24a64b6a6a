"""Adapters side by side: what each learnt from, how it was measured, and whether that may be compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from progidiff.adaptation.adapter import Adapter
from progidiff.errors import UsageError
from progidiff.prompts.organ_table import organ_table


def compare(adapters: Sequence[Adapter]) -> dict[str, Any]:
    """A table of adapters, ready for JSON.

    Args:
        adapters: two or more; one that is named twice counts once.

    Returns:
        adapters: of each `adapter_id, name, path, base_model, improved`; `cases`, their number; `how` it was
            measured; `held_out`, the case ids, or None where the adapter does not say; `organs: {id: {before,
            after}}`; `mean` and `forgetting: {before, after}` or None, the latter on the synthesised patient.
            Dice is 0…1.
        organs: ids of all that were measured, in the order of the organ table.
        comparable: whether all were measured on the same held-out masks and organs in the same way.
        notes: sentences for the user about that.

    Raises:
        UsageError: fewer than two.
    """
    adapters = list({adapter.folder.resolve(): adapter for adapter in adapters}.values())
    if len(adapters) < 2:
        raise UsageError("There is nothing to compare.", "Name two or more different adapters.")
    measured = {organ for adapter in adapters for organ in adapter.facts["measured"]["organs"]}
    known = [organ.id for organ in organ_table().organs]
    groups = _same_test(adapters)
    return {
        "adapters": [_row(adapter) for adapter in adapters],
        "organs": sorted(measured, key=lambda organ: known.index(organ) if organ in known else len(known)),
        "comparable": len(groups) == 1,
        "notes": [*_about_dice(groups), *_about_phantoms(adapters)],
    }


def _row(adapter: Adapter) -> dict[str, Any]:
    facts = adapter.facts
    held_out = facts["measured"].get("held_out")
    return {
        "adapter_id": adapter.id,
        "name": adapter.name,
        "path": str(adapter.folder),
        "base_model": facts["base_model"],
        "cases": len(facts["cases"]),
        "how": facts["measured"]["how"],
        "held_out": None if held_out is None else [part["id"] for part in held_out],
        "organs": facts["measured"]["organs"],
        "mean": _mean(facts["measured"]["organs"]),
        "forgetting": _mean(facts["forgetting"]["organs"]),
        "improved": adapter.improved,
    }


def _mean(organs: dict[str, dict[str, float]]) -> dict[str, float] | None:
    if not organs:
        return None
    return {
        when: round(sum(score[when] for score in organs.values()) / len(organs), 4)
        for when in ("before", "after")
    }


def _same_test(adapters: list[Adapter]) -> list[list[Adapter]]:
    """Those together whose Dice means the same; one that does not tell its held-out masks stands alone."""
    groups: dict[str, list[Adapter]] = {}
    for adapter in adapters:
        measured, settings = adapter.facts["measured"], adapter.facts["settings"]
        test = [measured.get("held_out"), sorted(measured["organs"]), settings.get("proposals")]
        alone = "" if measured.get("held_out") and measured["organs"] else str(adapter.folder)
        groups.setdefault(json.dumps([test, alone], sort_keys=True), []).append(adapter)
    return list(groups.values())


def _about_dice(groups: list[list[Adapter]]) -> list[str]:
    if len(groups) == 1:
        return ["All were measured in the same way on the same held-out masks: their Dice can be compared."]
    notes = [
        "Their held-out cases or organs differ, so the Dice of one cannot be compared directly with that of "
        "another; only the before and after of each can."
    ]
    notes += [f"Measured alike: {_names(group)}." for group in groups if len(group) > 1]
    silent = [a for group in groups for a in group if a.facts["measured"].get("held_out") is None]
    if silent:
        notes.append(f"Made before held-out cases were recorded: {_names(silent)}.")
    return notes


def _about_phantoms(adapters: list[Adapter]) -> list[str]:
    kinds = {adapter.facts["cases"][0]["modality"] for adapter in adapters if adapter.facts["cases"]}
    if len(kinds) < 2:
        return []
    return ["The synthesised patient is a CT for some and an MR for others: forgetting cannot be compared."]


def _names(adapters: list[Adapter]) -> str:
    return ", ".join(f"“{adapter.name}”" for adapter in adapters)
