"""A prompt as a row of tokens: which words name organs, give a side, join, exclude, or say nothing.

The longest known phrase wins at every place. Misspelt organ names are accepted within strict limits, so
that no word of another meaning is ever taken for an organ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from rapidfuzz.distance import OSA

from progidiff.prompts import vocabulary
from progidiff.prompts.organ_table import Group, Organ, name_key, name_keys, organ_table

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

_LONGEST_PHRASE = 6
_SEGMENT = ("segment", "segmento", "segments", "segmente")
_NUMBER_OF_SEGMENT = re.compile(r"(i{1,3}|iv|vi{0,3}|[1-8])[ab]?")
_PIECES = re.compile(
    r"(?P<elision>(?<!\w)(?:[cdjlmnst]|qu)['’](?=\w))"
    r"|(?P<word>[^\W_]+(?:['’]t\b)?)"
    r"|(?P<also>[&+])"
    r"|(?P<break>[,;:/|•·()\[\]{}\n，、。；]|[.?!](?=\s|$))",
    re.IGNORECASE,
)


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
    tokens = [_as_short_side(tokens, index) for index in range(len(tokens))]
    tokens = [_as_misspelt_side(tokens, index) for index in range(len(tokens))]
    tokens = [_as_misspelt_word(token) for token in tokens]
    tokens = [_as_liver_segment(tokens, index) for index in range(len(tokens))]
    tokens = [_as_narrowing(tokens, index) for index in range(len(tokens))]
    tokens = [_as_conversation(prompt, tokens, index) for index in range(len(tokens))]
    return [_without_idiom(tokens, index) for index in range(len(tokens))]


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
    return _lexicon().get(key)


def _exact(words: list[str]) -> Entry | None:
    key = "".join(words)
    if len(words) > 1:
        entry = _lexicon().get(key)
        return None if entry and entry.kind == "command" else entry  # "segment à part" is no "segmenta"
    return _lexicon().get(key) or _sided_words().get(key) or _german_compound(key)


def _german_compound(key: str) -> Entry | None:
    for ending in vocabulary.COMPOUND_ENDINGS:
        entry = _lexicon().get(key.removesuffix(ending)) if key.endswith(ending) else None
        if entry and entry.kind == "organs":
            return entry
    return None


@lru_cache(maxsize=1024)
def _misspelt(words: tuple[str, ...]) -> Entry | None:
    """The one organ name of as many words that is close enough, unless another known word is as close."""
    found: dict[Entry, int] = {}
    for known_words, entry in _organ_names().get(len(words), ()):
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
        for key, entry in _lexicon().items()
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
        for key, entry in _lexicon().items()
    )


def _as_misspelt_side(tokens: list[Token], index: int) -> Token:
    """A token, read as a side where it stands beside a paired organ and looks like one ("rigth kidney").

    To ignore it would silently segment both.
    """
    token = tokens[index]
    if token.kind != "unknown" or not any(is_pair(tokens[at]) for at in _beside(tokens, index)):
        return token
    for key, entry in _lexicon().items():
        alike = len(key) >= 4 and key[0] == token.key[0] and OSA.distance(key, token.key, score_cutoff=1) <= 1
        if alike and entry.kind in ("side before", "side after"):
            return replace(token, entry=entry)
    return token


def _as_short_side(tokens: list[Token], index: int) -> Token:
    """A token, read as a side where one or two letters stand right beside a pair: "Niere re", "rein G"."""
    token = tokens[index]
    side = vocabulary.SHORT_SIDES.get(token.key)
    if side is None or token.stop - token.start != len(token.key):  # "d'un" is no side
        return token
    after_noun = index > 0 and is_pair(tokens[index - 1])
    before_noun = index + 1 < len(tokens) and is_pair(tokens[index + 1])
    if after_noun or (before_noun and tokens[index + 1].key.startswith(vocabulary.NOUNS_AFTER_SHORT_SIDES)):
        return replace(token, entry=Entry("side after", (side,)))
    return token


def _as_misspelt_word(token: Token) -> Token:
    """A token, read as the word for an exception or a finding that it misspells by one letter.

    To ignore it would give what is to be left out ("everything exept the liver"), or the whole organ for its
    tumor.
    """
    if token.kind != "unknown":
        return token
    for key, kind in _weighty_words().items():
        if key[0] == token.key[:1] and OSA.distance(key, token.key, score_cutoff=1) <= 1:
            return replace(token, entry=Entry(kind), key=key)
    return token


def _as_liver_segment(tokens: list[Token], index: int) -> Token:
    """A token, read as a part of an organ in "liver segment VI" and "segment 4a of the liver"."""
    token = tokens[index]
    number = tokens[index + 1].key if index + 1 < len(tokens) else ""
    if token.key not in _SEGMENT or not _NUMBER_OF_SEGMENT.fullmatch(number):
        return token
    of_organ = index > 0 and tokens[index - 1].kind == "organs"
    if of_organ or (index + 2 < len(tokens) and tokens[index + 2].key in ("of", "der", "du", "del")):
        return replace(token, entry=Entry("other"))
    return token


def _as_narrowing(tokens: list[Token], index: int) -> Token:
    """A token, "but" read as a comma in "kidneys, but only the left"."""
    following = tokens[index + 1].key if index + 1 < len(tokens) else ""
    if tokens[index].kind == "but" and following in vocabulary.ONLY.split():
        return replace(tokens[index], entry=Entry("break"))
    return tokens[index]


def _as_conversation(prompt: str, tokens: list[Token], index: int) -> Token:
    """A token, "right" read as talk in "Right, now segment the kidneys" and "kidneys, right?"."""
    token = tokens[index]
    if token.key != "right":
        return token
    before, after = tokens[index - 1] if index else None, tokens[index + 1 : index + 3]
    signs = [prompt[other.start] for other in after if other.kind == "break"]
    opens = before is None and len(after) == 2 and signs[:1] in ([","], ["."], ["!"])
    talk = opens and (after[1].kind in ("command", "filler") or _is_plural_pair(after[1]))
    asks = before is not None and before.kind == "break" and len(after) == 1 and signs == ["?"]
    agrees = before is not None and before.key in ("thats", "s") and bool(signs)
    return replace(token, entry=Entry("filler")) if talk or asks or agrees else token


def _is_plural_pair(token: Token) -> bool:
    return is_pair(token) and token.key.endswith("s")


def _without_idiom(tokens: list[Token], index: int) -> Token:
    """A token, without meaning where it belongs to "all right" as in "all right, segment the kidneys"."""
    for at in (index - 1, index):
        if at < 0 or at + 1 >= len(tokens):
            continue
        joined = tokens[at].kind == "all" and tokens[at + 1].key == "right"
        if joined and not _is_side_of_next(tokens, at + 1):
            return replace(tokens[index], entry=Entry("filler"))
    return tokens[index]


def _is_side_of_next(tokens: list[Token], side: int) -> bool:
    """Whether right after a side there is its noun or another side: "right kidney", "right and left"."""
    rest = [token for token in tokens[side + 1 : side + 4] if token.key not in vocabulary.SIDE_NOUNS]
    if rest and rest[0].kind == "and":
        return len(rest) > 1 and rest[1].is_side
    return bool(rest) and is_pair(rest[0])


def is_pair(token: Token) -> bool:
    """Whether a token names the right and the left organ of a pair."""
    return token.kind == "organs" and len(token.entry.value) == 2


def _beside(tokens: list[Token], index: int) -> Iterator[int]:
    """Indices of the nearest tokens to the left and right that say something."""
    for step in (-1, 1):
        at = index + step
        while 0 <= at < len(tokens) and tokens[at].kind in ("filler", "break"):
            at += step
        if 0 <= at < len(tokens):
            yield at


@lru_cache(maxsize=1)
def _lexicon() -> dict[str, Entry]:
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
def _weighty_words() -> dict[str, Kind]:
    """Words of exceptions and findings, by key, that are long enough to be known when misspelt."""
    kinds: dict[Kind, str] = {
        "except": vocabulary.EXCEPT,
        "other": vocabulary.TUMORS + vocabulary.OTHER_FINDINGS,
    }
    return {
        key: kind
        for kind, words in kinds.items()
        for word in words.split()
        for key in name_keys(word)
        if len(key) >= 5
    }


@lru_cache(maxsize=1)
def _sided_words() -> dict[str, Entry]:
    """Names with a side written as one word ("rkid", "RightKidney"); in several words the side is a token."""
    return {
        key: Entry("organs", (organ.id,))
        for organ in organ_table()
        if organ.side
        for name in organ.names
        for key in name_keys(name)
    }


@lru_cache(maxsize=1)
def _organ_names() -> dict[int, list[tuple[tuple[str, ...], Entry]]]:
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
