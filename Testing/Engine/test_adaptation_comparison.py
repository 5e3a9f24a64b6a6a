"""Adapters side by side, and when their figures must not be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from progidiff.adaptation.adapter import Adapter
from progidiff.adaptation.comparison import compare
from progidiff.errors import UsageError

_MASKS = [{"id": "case-a", "organs": {"liver": {"slices": "1–12", "mask": "0" * 16}}}]


def adapter(
    name: str, held_out: Any = _MASKS, modality: str = "MR", **organs: tuple[float, float]
) -> Adapter:
    """One that is not on disk: only its facts are compared."""
    scores = {organ: {"before": b, "after": a} for organ, (b, a) in (organs or {"liver": (0.5, 0.7)}).items()}
    measured: dict[str, Any] = {"how": "case-a was held out.", "organs": scores}
    if held_out is not None:
        measured["held_out"] = held_out
    facts = {
        "id": f"adapter-{name}",
        "name": name,
        "base_model": "tiny",
        "cases": [{"id": "case-b", "modality": modality}] * 2,
        "improved": True,
        "measured": measured,
        "forgetting": {"how": "", "organs": {"spleen": {"before": 0.9, "after": 0.8}}},
        "settings": {"proposals": 3},
    }
    return Adapter(Path("/adapters") / name, facts)


def test_the_table_holds_what_was_measured() -> None:
    table = compare([adapter("one", spleen=(0.4, 0.5), liver=(0.6, 0.9)), adapter("two")])
    first, second = table["adapters"]
    assert table["organs"] == ["spleen", "liver"]  # as in the organ table
    assert (first["name"], first["base_model"], first["cases"]) == ("one", "tiny", 2)
    assert (first["how"], first["held_out"]) == ("case-a was held out.", ["case-a"])
    assert first["mean"] == {"before": 0.5, "after": 0.7}
    assert first["forgetting"] == {"before": 0.9, "after": 0.8}
    assert second["organs"] == {"liver": {"before": 0.5, "after": 0.7}}


def test_the_same_held_out_masks_can_be_compared() -> None:
    table = compare([adapter("one"), adapter("two")])
    assert table["comparable"]
    assert table["notes"] == [
        "All were measured in the same way on the same held-out masks: their Dice can be compared."
    ]


@pytest.mark.parametrize(
    "other",
    [
        adapter("two", [{"id": "case-b", "organs": _MASKS[0]["organs"]}]),
        adapter("two", [{"id": "case-a", "organs": {"liver": {"slices": "1–9", "mask": "0" * 16}}}]),
        adapter("two", [{"id": "case-a", "organs": {"liver": {"slices": "1–12", "mask": "1" * 16}}}]),
        adapter("two", liver=(0.5, 0.7), spleen=(0.5, 0.7)),
    ],
    ids=["another case", "other slices", "a corrected mask", "another organ"],
)
def test_different_tests_cannot_be_compared_directly(other: Adapter) -> None:
    table = compare([adapter("one"), other, adapter("three")])
    assert not table["comparable"]
    assert "cannot be compared directly" in table["notes"][0]
    assert table["notes"][1:] == ["Measured alike: “one”, “three”."]


def test_those_that_do_not_tell_or_were_not_measured_are_alike_with_none() -> None:
    table = compare([adapter("one", None), adapter("two", None)])
    assert not table["comparable"]
    assert table["adapters"][0]["held_out"] is None
    assert "Made before held-out cases were recorded: “one”, “two”." in table["notes"]
    assert not compare([adapter("one", []), adapter("two", [])])["comparable"]


def test_another_phantom_is_told() -> None:
    assert (
        "forgetting cannot be compared"
        in compare([adapter("one"), adapter("two", modality="CT")])["notes"][-1]
    )


def test_one_alone_is_no_comparison() -> None:
    with pytest.raises(UsageError, match="nothing to compare"):
        compare([adapter("one"), adapter("one")])
