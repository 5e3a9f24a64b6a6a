"""From the names of a data set's labels to our organs, and to findings in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from progidiff.errors import CasesError
from progidiff.prompts.organ_table import name_key, organ_table
from progidiff.training.finding_names import is_cyst, match_findings, pairs_without_side

Names = Mapping[int, tuple[str, ...]]
"""What a data set calls the values of its label map, {value: names}; a value may be in several regions."""

# An organ of two parts counts as annotated only where both are: a data set that labels the splenic vein
# alone does not say where our "portal and splenic vein" ends.
_PARTS = {
    "portal_and_splenic_vein": (("portalvein", "hepaticportalvein"), ("splenicvein",)),
}


def values_by_organ(names: Names) -> dict[str, tuple[int, ...]]:
    """Organ id → the values of the label map that make it up."""
    values: dict[str, list[int]] = {}
    seen: dict[str, set[str]] = {}
    for value, several in names.items():
        for name in several:
            organ = organ_table().by_name(name)
            if organ is not None:
                values.setdefault(organ.id, []).append(value)
                seen.setdefault(organ.id, set()).add(name)
    whole = {organ: found for organ, found in values.items() if _is_whole(organ, seen[organ])}
    return {organ: tuple(found) for organ, found in whole.items()}


def values_by_finding(names: Names) -> dict[str, tuple[int, ...]]:
    """Finding id → the values of the label map that make it up."""
    ids = match_findings(_all(names)).ids
    values: dict[str, list[int]] = {}
    for value, several in names.items():
        for finding in {ids[name] for name in several if name in ids}:
            if not any(is_cyst(name) for name in several):
                values.setdefault(finding, []).append(value)
    return {finding: tuple(found) for finding, found in values.items()}


def unclear_findings(names: Names) -> tuple[str, ...]:
    """Names of findings whose organ is not certain, or not labelled."""
    return match_findings(_all(names)).unclear


def _all(names: Names) -> tuple[str, ...]:
    return tuple(name for several in names.values() for name in several)


def label_number(structure: str, findings: bool) -> int:
    """The value of an organ or finding in label maps; without `findings`, that of the finding's organ."""
    entry = organ_table().by_id(structure)
    return entry.label if findings or entry.within is None else organ_table().by_id(entry.within).label


def is_part(organ: str, name: str) -> bool:
    """Whether a name means one part of an organ that has several."""
    return any(name_key(name) in part for part in _PARTS.get(organ, ()))


def _is_whole(organ: str, names: set[str]) -> bool:
    """Whether the names cover the whole organ: one name that is no mere part of it, or all parts."""
    if any(not is_part(organ, name) for name in names):
        return True
    keys = {name_key(name) for name in names}
    return all(keys & set(part) for part in _PARTS[organ])


def checked_names(names: Names, source: Path) -> Names:
    """The names as they are.

    Raises:
        CasesError: none is that of an organ; `source` is where they stand.
    """
    if not values_by_organ(names):
        remedy = "Use the organs' usual names; `progidiff` knows those of its organ table."
        if pairs := pairs_without_side(_all(names)):
            remedy = f"Label the right and the left one apart: {listing(pairs)}."
        listed = listing(list(_all(names)))
        raise CasesError(f"“{source}” names no organ that is known: {listed}.", remedy)
    return names


def listing(words: list[str], most: int = 12) -> str:
    """The words for a message, the first dozen of many."""
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")
