"""The organ table as the panel needs it: completion, standard names, colours and terminology.

Findings, such as a tumor of the liver, stand in the same table; only some models draw them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ProGiDiffSlicerLib.locations import resource

_ORGANS_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
_FINDINGS_CONTEXT = "Segmentation category and type - DICOM master list"
_REGIONS_CONTEXT = "Anatomic codes - DICOM master list"
EXAMPLES = ("segment the pancreas", "liver and both kidneys", "outline the spleen")


@dataclass(frozen=True)
class Organ:
    """One structure, or finding in one, that the engine knows.

    Attributes:
        color: red, green, blue in [0, 1].
        terminology: entry in Slicer's serialised form, which DICOM SEG export reads.
        within: of a finding, id of the organ it lies in; "" for an organ.
    """

    id: str
    name: str
    color: tuple[float, float, float]
    terminology: str
    within: str = ""


@lru_cache(maxsize=1)
def organs() -> dict[str, Organ]:
    """All structures by id, in the order of the table, then the findings in them."""
    places = {row["id"]: row["snomed"] for row in _rows("organs")}
    structures = [_organ(row, _terminology(row["snomed"])) for row in _rows("organs")]
    findings = [_organ(row, _terminology(row["snomed"], places[row["within"]])) for row in _rows("findings")]
    return {organ.id: organ for organ in (*structures, *findings)}


@lru_cache(maxsize=8)
def prompt_completions(findings: tuple[str, ...] = ()) -> list[str]:
    """English prompts offered while typing, standard names first.

    Args:
        findings: ids of those that the model can draw.
    """
    rows = _rows("organs")
    names = [row["name"] for row in rows] + [organs()[f].name for f in findings if f in organs()]
    synonyms = [s for row in rows for s in row["synonyms"].get("en", []) if s not in names]
    return [f"segment the {name}" for name in names] + names + synonyms


@lru_cache(maxsize=2)
def _rows(kind: str) -> list[dict[str, Any]]:
    return json.loads(Path(resource("organs.json")).read_text(encoding="utf-8"))[kind]


def _organ(row: dict[str, Any], terminology: str) -> Organ:
    red, green, blue = (value / 255 for value in row["color"])
    return Organ(row["id"], row["name"], (red, green, blue), terminology, row.get("within", ""))


def _terminology(codes: dict[str, Any], place: dict[str, Any] | None = None) -> str:
    """Slicer's serialised entry.

    Args:
        place: codes of the organ that a finding lies in: its anatomic region.
    """
    what = [_code(codes["category"]), _code(codes["type"]), _code(codes["modifier"])]
    if place is None:
        return "~".join([_ORGANS_CONTEXT, *what, "", "^^", "^^"])
    where = [_code(place["type"]), _code(place["modifier"])]
    return "~".join([_FINDINGS_CONTEXT, *what, _REGIONS_CONTEXT, *where])


def _code(code: list[str] | None) -> str:
    return "^".join(code) if code else "^^"
