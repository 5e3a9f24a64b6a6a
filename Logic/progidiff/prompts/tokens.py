"""A word or phrase of a prompt, and what it means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "organs",  # value: ids of the organs named; right and left of a pair where the word gives no side
    "side before",  # value: the side; stands before its noun
    "side after",
    "all",
    "and",
    "break",
    "except",
    "but",
    "command",
    "filler",
    "other",  # a structure that cannot be segmented
    "finding",  # value: ids of the findings meant, which the model does not draw; see `findings`
    "unknown",
]


@dataclass(frozen=True)
class Entry:
    """What a word or phrase means; an adjective needs a noun that is not another structure's.

    Of "tumors of the liver and pancreas" the second entry is `shared`: its words name the first organ too.
    """

    kind: Kind
    value: tuple[str, ...] = ()
    adjective: bool = False
    shared: bool = False


@dataclass(frozen=True)
class Token:
    """A recognised word or phrase and its characters `start` to `stop` of the prompt."""

    entry: Entry
    start: int
    stop: int
    key: str

    @property
    def kind(self) -> Kind:
        return self.entry.kind

    @property
    def is_side(self) -> bool:
        return self.kind in ("side before", "side after")


def is_pair(token: Token) -> bool:
    """Whether a token names the right and the left organ of a pair."""
    return token.kind == "organs" and len(token.entry.value) == 2
