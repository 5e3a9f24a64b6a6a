"""All words and phrases that a prompt may hold, by key: names of organs, and the small words around them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from progidiff.prompts import vocabulary
from progidiff.prompts.organ_table import Group, Organ, name_key, name_keys, organ_table
from progidiff.prompts.tokens import Entry, Kind


@lru_cache(maxsize=1)
def lexicon() -> dict[str, Entry]:
    """All words and phrases by key. Where two meanings meet, the organ comes first."""
    lexicon: dict[str, Entry] = {}
    for name, entry in [*_names(), *_words()]:
        for key in name_keys(name):
            lexicon.setdefault(key, entry)
    return lexicon


def _names() -> Iterator[tuple[str, Entry]]:
    table = organ_table()
    for organ in table:
        if organ.side is None:
            for name in organ.names:
                yield name, Entry("organs", (organ.id,), name in organ.adjectives)
    for group in table.groups:
        for name in group.names:
            yield name, Entry("organs", group.organs, name in group.adjectives)


def _words() -> Iterator[tuple[str, Entry]]:
    for side, words in vocabulary.SIDE_BEFORE.items():
        yield from ((word, Entry("side before", (side,))) for word in words.split())
    for side, words in vocabulary.SIDE_AFTER.items():
        yield from ((word, Entry("side after", (side,))) for word in words.split())
    phrases: list[tuple[Kind, tuple[str, ...]]] = [
        ("filler", vocabulary.PHRASES_WITHOUT_MEANING),
        ("except", vocabulary.PHRASES_OF_EXCEPTION),
        ("other", vocabulary.OTHER_PHRASES),
        ("and", tuple(vocabulary.AND.split())),
        ("except", tuple(vocabulary.EXCEPT.split())),
        ("but", tuple(vocabulary.BUT.split())),
        ("all", tuple(vocabulary.ALL.split())),
        ("other", tuple(vocabulary.OTHER_STRUCTURES.split())),
        ("other", tuple(vocabulary.TUMORS.split() + vocabulary.OTHER_FINDINGS.split())),
        ("command", tuple(vocabulary.COMMANDS.split())),
        ("filler", tuple(vocabulary.FILLERS.split())),
    ]
    for kind, names in phrases:
        yield from ((name, Entry(kind)) for name in names)


@lru_cache(maxsize=1)
def sided_words() -> dict[str, Entry]:
    """Names with a side written as one word ("rkid", "RightKidney"); in several words the side is a token."""
    return {
        key: Entry("organs", (organ.id,))
        for organ in organ_table()
        if organ.side
        for name in organ.names
        for key in name_keys(name)
    }


@lru_cache(maxsize=1)
def organ_names() -> dict[int, list[tuple[tuple[str, ...], Entry]]]:
    """The words of every organ name, by their number, for comparing with misspelt ones."""
    rare = _short_rare_names()
    names: dict[int, dict[tuple[str, ...], Entry]] = {}
    for name, entry in _names():
        for spelling in {name, name.replace("ö", "oe")} - rare:
            words = tuple(name_key(word) for word in re.findall(r"[^\W_]+", spelling))
            names.setdefault(len(words), {})[words] = entry
    return {count: list(entries.items()) for count, entries in names.items()}


def _short_rare_names() -> set[str]:
    """Names that common words resemble by chance: "caval" and canal, "iecur" and incur, "alles" and aller."""
    table = organ_table()
    items: list[Organ | Group] = [*table.organs, *table.groups]
    rare = {name for item in items for name in (*item.synonyms["la"], *item.adjectives)}
    usual = {name for organ in table for language in ("en", "de") for name in organ.synonyms[language]}
    everything = {name for group in table.groups if group.id == "all" for name in group.names}
    return {name for name in (rare - usual) | everything if len(name) < 7}
