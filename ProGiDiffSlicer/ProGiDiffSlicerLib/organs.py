"""The organ table as the panel needs it: completion, standard names, colours and terminology."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ProGiDiffSlicerLib.locations import resource

_TERMINOLOGY_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
EXAMPLES = ("segment the pancreas", "liver and both kidneys", "outline the spleen")


@dataclass(frozen=True)
class Organ:
    """One structure the engine knows.

    Attributes:
        color: red, green, blue in [0, 1].
        terminology: entry in Slicer's serialised form, which DICOM SEG export reads.
    """

    id: str
    name: str
    color: tuple[float, float, float]
    terminology: str


@lru_cache(maxsize=1)
def organs() -> dict[str, Organ]:
    """All structures by id, in the order of the table."""
    return {row["id"]: _organ(row) for row in _rows()}


@lru_cache(maxsize=1)
def prompt_completions() -> list[str]:
    """English prompts offered while typing, standard names first."""
    names = [row["name"] for row in _rows()]
    synonyms = [s for row in _rows() for s in row["synonyms"].get("en", []) if s not in names]
    return [f"segment the {name}" for name in names] + names + synonyms


def _rows() -> list[dict[str, Any]]:
    return json.loads(Path(resource("organs.json")).read_text(encoding="utf-8"))["organs"]


def _organ(row: dict[str, Any]) -> Organ:
    red, green, blue = (value / 255 for value in row["color"])
    return Organ(row["id"], row["name"], (red, green, blue), _terminology(row["snomed"]))


def _terminology(codes: dict[str, Any]) -> str:
    def triple(code: list[str] | None) -> str:
        return "^".join(code) if code else "^^"

    parts = [triple(codes["category"]), triple(codes["type"]), triple(codes.get("modifier"))]
    return "~".join([_TERMINOLOGY_CONTEXT, *parts, "", "^^", "^^"])
