"""Endings for a prompt that is being typed."""

from __future__ import annotations

import re

from progidiff.prompts.organ_table import Group, Organ, name_key, organ_table


def complete(prefix: str, limit: int = 15) -> list[str]:
    """Whole prompts that begin with `prefix`, whose last words are completed to a known name.

    An empty prefix, or one that ends between words, is completed with the organs' usual names.
    """
    if not prefix.strip():
        return [f"segment the {organ.name}" for organ in organ_table()][:limit]
    if prefix[-1].isspace():
        return [prefix + organ.name for organ in organ_table()][:limit]
    starts = [match.start() for match in re.finditer(r"[^\W_]+", prefix)]
    for start in starts[-6:]:
        endings = _names_beginning_with(prefix[start:])
        if endings:
            return [prefix[:start] + name for name in endings[:limit]]
    return []


def _names_beginning_with(words: str) -> list[str]:
    """Known names longer than `words` that begin with them: the usual ones, then those of all languages."""
    items: list[Organ | Group] = [*organ_table().organs, *organ_table().groups]
    usual = [item.name for item in items]
    others = [name for item in items for name in item.names if name not in item.adjectives]
    key = name_key(words)
    longer: dict[str, str] = {}
    for name in [*usual, *others]:
        if name_key(name) != key and name_key(name).startswith(key) and not _is_shorthand(name):
            longer.setdefault(name_key(name), name)
    return list(longer.values())


def _is_shorthand(name: str) -> bool:
    """ "kidney, left" and "L kidney" are understood but need not be offered."""
    return "," in name or any(len(word) == 1 for word in name.split())
