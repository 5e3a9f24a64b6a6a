"""Words that mean something else in the company they stand in: "re", "right", "but", "segment VI"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from rapidfuzz.distance import OSA

from progidiff.prompts import vocabulary
from progidiff.prompts.lexicon import lexicon, weighty_words
from progidiff.prompts.tokens import Entry, Token, is_pair

_SEGMENT = ("segment", "segmento", "segments", "segmente")
_NUMBER_OF_SEGMENT = re.compile(r"(i{1,3}|iv|vi{0,3}|[1-8])[ab]?")


def reread(prompt: str, tokens: list[Token]) -> list[Token]:
    """The tokens of a prompt, each read again beside its neighbours."""
    tokens = [_as_short_side(tokens, index) for index in range(len(tokens))]
    tokens = [_as_misspelt_side(tokens, index) for index in range(len(tokens))]
    tokens = [_as_misspelt_word(token) for token in tokens]
    tokens = [_as_liver_segment(tokens, index) for index in range(len(tokens))]
    tokens = [_as_narrowing(tokens, index) for index in range(len(tokens))]
    tokens = [_as_conversation(prompt, tokens, index) for index in range(len(tokens))]
    return [_without_idiom(tokens, index) for index in range(len(tokens))]


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


def _as_misspelt_side(tokens: list[Token], index: int) -> Token:
    """A token, read as a side where it stands beside a paired organ and looks like one ("rigth kidney").

    To ignore it would silently segment both.
    """
    token = tokens[index]
    if token.kind != "unknown" or not any(is_pair(tokens[at]) for at in _beside(tokens, index)):
        return token
    for key, entry in lexicon().items():
        alike = len(key) >= 4 and key[0] == token.key[0] and OSA.distance(key, token.key, score_cutoff=1) <= 1
        if alike and entry.kind in ("side before", "side after"):
            return replace(token, entry=entry)
    return token


def _as_misspelt_word(token: Token) -> Token:
    """A token, read as the word for an exception or a finding that it misspells by one letter.

    To ignore it would give what is to be left out ("everything exept the liver"), or the whole organ for its
    tumor.
    """
    if token.kind != "unknown":
        return token
    for key, kind in weighty_words().items():
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


def _without_idiom(tokens: list[Token], index: int) -> Token:
    """A token, without meaning where it belongs to "all right" as in "all right, segment the kidneys"."""
    for at in (index - 1, index):
        if at < 0 or at + 1 >= len(tokens):
            continue
        joined = tokens[at].kind == "all" and tokens[at + 1].key == "right"
        if joined and not _is_side_of_next(tokens, at + 1):
            return replace(tokens[index], entry=Entry("filler"))
    return tokens[index]


def _is_plural_pair(token: Token) -> bool:
    return is_pair(token) and token.key.endswith("s")


def _is_side_of_next(tokens: list[Token], side: int) -> bool:
    """Whether right after a side there is its noun or another side: "right kidney", "right and left"."""
    rest = [token for token in tokens[side + 1 : side + 4] if token.key not in vocabulary.SIDE_NOUNS]
    if rest and rest[0].kind == "and":
        return len(rest) > 1 and rest[1].is_side
    return bool(rest) and is_pair(rest[0])


def _beside(tokens: list[Token], index: int) -> Iterator[int]:
    """Indices of the nearest tokens to the left and right that say something."""
    for step in (-1, 1):
        at = index + step
        while 0 <= at < len(tokens) and tokens[at].kind in ("filler", "break"):
            at += step
        if 0 <= at < len(tokens):
            yield at
