"""An adapter is a folder: low-rank weights, and the facts that make them trustworthy.

::

    adapter.json          schema, id, name, base model, cases by id, scores before and after, settings
    adapter.safetensors   the low-rank matrices ("PART.LAYER.lora_A" and "….lora_B")
    README.md             the same facts for people
    before_after.png      pictures of held-out slices; stays on this computer (see `adapter_store.export`)
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from progidiff.errors import AdapterError

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = "progidiff-adapter-1"
FACTS, WEIGHTS, CARD, PICTURE = "adapter.json", "adapter.safetensors", "README.md", "before_after.png"

# What every adapter.json must hold, and of which type.
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "id": str,
    "name": str,
    "created": str,
    "base_model": str,
    "base_hash": str,
    "weights_hash": str,
    "rank": int,
    "layers": dict,
    "cases": list,
    "organs": list,
    "improved": bool,
    "verdict": str,
    "measured": dict,
    "forgetting": dict,
    "settings": dict,
    "training": dict,
    "licence": str,
}


@dataclass(frozen=True)
class Adapter:
    """A checked adapter folder.

    Attributes:
        folder: where it lies.
        facts: the content of `adapter.json`.
    """

    folder: Path
    facts: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Adapter:
        """Reads and checks a folder; the weights are not loaded.

        Raises:
            AdapterError: it is missing, malformed, or its weights are not those it was saved with.
        """
        folder = Path(folder).expanduser()
        try:
            text = (folder / FACTS).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise AdapterError(
                f"{folder} is not an adapter: it has no {FACTS}.", "Choose another folder."
            ) from error
        adapter = cls(folder, check_facts(text, str(folder)))
        weights = folder / WEIGHTS
        if not weights.is_file() or file_hash(weights) != adapter.facts["weights_hash"]:
            raise AdapterError(
                f"The weights of the adapter “{adapter.name}” are missing or damaged.",
                "Import or train it again.",
            )
        return adapter

    @property
    def id(self) -> str:
        return str(self.facts["id"])

    @property
    def name(self) -> str:
        return str(self.facts["name"])

    @property
    def improved(self) -> bool:
        """Whether it was measurably better than the model alone on what it had not seen."""
        return bool(self.facts["improved"])

    def require_base(self, model_hash: str) -> None:
        """Raises AdapterError unless the adapter was trained on the model with these weights."""
        if self.facts["base_hash"] != model_hash:
            raise AdapterError(
                f"The adapter “{self.name}” belongs to another model ({self.facts['base_model']}).",
                "Use that model, or adapt the present one to your cases.",
            )

    def tensors(self) -> dict[str, Tensor]:
        """The low-rank matrices.

        Raises:
            AdapterError: the file is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(self.folder / WEIGHTS)
        except (OSError, SafetensorError, ValueError) as error:
            raise AdapterError(
                f"The weights of the adapter “{self.name}” cannot be read ({error}).",
                "Import or train it again.",
            ) from error


def check_facts(text: str, where: str) -> dict[str, Any]:
    """The content of an `adapter.json` that is complete and of a known schema.

    Raises:
        AdapterError: it is not.
    """
    try:
        facts = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except ValueError as error:
        raise AdapterError(
            f"The {FACTS} of {where} is not JSON.", "Import or train the adapter again."
        ) from error
    if not isinstance(facts, dict) or facts.get("schema") != SCHEMA:
        raise AdapterError(
            f"{where} is not an adapter of a known kind.",
            "Use an adapter that this version of ProGiDiff has made.",
        )
    wrong = [n for n, kind in _FIELDS.items() if type(facts.get(n)) is not kind]
    if not wrong:
        wrong = _wrong_inside(facts)
    if wrong or not facts["id"].startswith("adapter-") or not facts["id"][8:].isalnum():
        raise AdapterError(
            f"The facts of the adapter in {where} are incomplete ({', '.join(wrong) or 'id'}).",
            "Import or train it again.",
        )
    return facts


def _finite(text: str) -> float | None:
    """A number of a JSON text; None for NaN and infinity, which no message to an application can hold."""
    number = float(text)
    return number if isfinite(number) else None


def _wrong_inside(facts: dict[str, Any]) -> list[str]:
    """Names of the facts whose parts are not what tables and cards are made of."""
    right = {
        "organs": all(isinstance(organ, str) for organ in facts["organs"]),
        "cases": all(_is_case(case) for case in facts["cases"]),
        "measured": _is_measurement(facts["measured"]),
        "forgetting": _is_measurement(facts["forgetting"]),
        "training": isinstance(facts["training"].get("minutes", 0), int | float),
    }
    return [name for name, is_right in right.items() if not is_right]


def _is_case(case: Any) -> bool:
    return (
        isinstance(case, dict)
        and isinstance(case.get("id"), str)
        and isinstance(case.get("modality"), str)
        and isinstance(case.get("organs"), dict)
    )


def _is_measurement(part: dict[str, Any]) -> bool:
    """How and on what it was measured, and Dice before and after by organ."""
    organs, held_out = part.get("organs"), part.get("held_out") or []
    return (
        isinstance(part.get("how"), str)
        and isinstance(held_out, list)
        and all(isinstance(case, dict) and "id" in case for case in held_out)
        and isinstance(organs, dict)
        and all(
            isinstance(score, dict)
            and all(isinstance(score.get(w), int | float) for w in ("before", "after"))
            for score in organs.values()
        )
    )


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
