"""A prompt as a row of tokens: which words name organs, give a side, join, exclude, or say nothing.

The longest known phrase wins at every place. Misspelt organ names are accepted within strict limits, so
that no word of another meaning is ever taken for an organ.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from rapidfuzz.distance import OSA

from progidiff.prompts import vocabulary
from progidiff.prompts.context import reread
from progidiff.prompts.lexicon import lexicon, organ_names, sided_words
from progidiff.prompts.organ_table import name_key
from progidiff.prompts.tokens import Entry, Kind, Token

_LONGEST_PHRASE = 6
_PIECES = re.compile(
    r"(?P<elision>(?<!\w)(?:[cdjlmnst]|qu)['’](?=\w))"
    r"|(?P<word>[^\W_]+(?:['’]t\b)?)"
    r"|(?P<also>[&+])"
    r"|(?P<break>[,;:/|•·()\[\]{}\n，、。；]|[.?!](?=\s|$))",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Piece:
    group: str
    start: int
    stop: int
    key: str


def recognise(prompt: str) -> list[Token]:
    """The tokens of a prompt, in order."""
    pieces = [
        _Piece(match.lastgroup or "", match.start(), match.end(), name_key(match.group()))
        for match in _PIECES.finditer(prompt)
    ]
    tokens = []
    at = 0
    while at < len(pieces):
        length, entry = _longest_meaning(pieces, at)
        first, last = pieces[at], pieces[at + length - 1]
        key = "".join(piece.key for piece in pieces[at : at + length])
        tokens.append(Token(entry, first.start, last.stop, key))
        at += length
    return reread(prompt, tokens)


def _longest_meaning(pieces: list[_Piece], at: int) -> tuple[int, Entry]:
    """How many pieces from `at` on belong together, and what they mean."""
    by_group: dict[str, Kind] = {"elision": "filler", "also": "and", "break": "break"}
    if pieces[at].group in by_group:
        return 1, Entry(by_group[pieces[at].group])
    words: list[str] = []
    for piece in pieces[at : at + _LONGEST_PHRASE]:
        if piece.group not in ("word", "elision"):
            break
        words.append(piece.key)
    for length in range(len(words), 0, -1):
        entry = _exact(words[:length]) or _misspelt(tuple(words[:length]))
        if entry:
            return length, entry
    return 1, Entry("filler" if _says_nothing(words[0]) else "unknown")


def meaning(key: str) -> Entry | None:
    """What a word means, given as its key; None if it is not known as it is spelt."""
    return lexicon().get(key)


def _exact(words: list[str]) -> Entry | None:
    key = "".join(words)
    if len(words) > 1:
        entry = lexicon().get(key)
        return None if entry and entry.kind == "command" else entry  # "segment à part" is no "segmenta"
    return lexicon().get(key) or sided_words().get(key) or _german_compound(key)


def _german_compound(key: str) -> Entry | None:
    for ending in vocabulary.COMPOUND_ENDINGS:
        entry = lexicon().get(key.removesuffix(ending)) if key.endswith(ending) else None
        if entry and entry.kind == "organs":
            return entry
    return None


@lru_cache(maxsize=1024)
def _misspelt(words: tuple[str, ...]) -> Entry | None:
    """The one organ name of as many words that is close enough, unless another known word is as close."""
    found: dict[Entry, int] = {}
    for known_words, entry in organ_names().get(len(words), ()):
        errors = _errors(words, known_words)
        if errors is not None:
            found[entry] = min(errors, found.get(entry, errors))
    if not found:
        return None
    fewest = min(found.values())
    nearest = {entry.value: entry for entry, errors in found.items() if errors == fewest}
    if len(nearest) > 1 or (len(words) == 1 and _is_other_word(words[0], fewest)):
        return None
    return next(iter(nearest.values()))


def _errors(words: tuple[str, ...], known_words: tuple[str, ...]) -> int | None:
    """Typing errors between two phrases of as many words, or None where a word has too many of them."""
    total = 0
    for word, known in zip(words, known_words, strict=True):
        limit = _allowed_errors(known, in_phrase=len(words) > 1)
        errors = OSA.distance(word, known, score_cutoff=limit)
        wrong_start = word[:1] != known[:1] and (len(known) < 8 or errors > 1)
        if errors > limit or (errors and wrong_start):
            return None
        total += errors
    return total if len(words) > 1 or total == 0 or len(words[0]) >= 5 else None


def _allowed_errors(known: str, in_phrase: bool) -> int:
    """Short names have too many neighbours in every language to be guessed on their own."""
    if len(known) < 4 or (len(known) == 4 and not in_phrase):
        return 0
    return 1 if len(known) < 8 else 2


def _is_other_word(word: str, errors: int) -> bool:
    """Whether a word that is no organ is within as few errors."""
    return any(
        entry.kind == "other" and OSA.distance(word, key, score_cutoff=errors) <= errors
        for key, entry in lexicon().items()
    )


def _says_nothing(word: str) -> bool:
    """Numbers, signs, and misspelt words that are not about organs ("segmnet")."""
    if not word or word.isdigit():
        return True
    limit = 2 if len(word) > 8 else 1
    return len(word) > 5 and any(
        entry.kind in ("filler", "command")
        and len(key) > 4
        and OSA.distance(word, key, score_cutoff=limit) <= limit
        for key, entry in lexicon().items()
    )
