"""Words that mean something else in the company they stand in: "re", "right", "but", "segment VI"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from rapidfuzz.distance import OSA

from progidiff.prompts import vocabulary
from progidiff.prompts.lexicon import lexicon
from progidiff.prompts.tokens import Entry, Token, is_pair

PORTAL_VEIN = "portal_and_splenic_vein"
_SEGMENT = ("segment", "segmento", "segments", "segmente")
_NUMBER_OF_SEGMENT = re.compile(r"(i{1,3}|iv|vi{0,3}|[1-8])[ab]?")


def reread(prompt: str, tokens: list[Token]) -> list[Token]:
    """The tokens of a prompt, each read again beside its neighbours; some stops are left out."""
    tokens = [tokens[n] for n in range(len(tokens)) if not _shortens_side(prompt, tokens, n)]
    for read in _READINGS:
        tokens = [read(prompt, tokens, index) for index in range(len(tokens))]
    return tokens


def _shortens_side(prompt: str, tokens: list[Token], index: int) -> bool:
    """Whether a token is the full stop of a shortened side: "re. und li. Niere", "riñones der. e izq."."""
    if not 0 < index < len(tokens) - 1 or prompt[tokens[index].start] != ".":
        return False
    side, following = tokens[index - 1], tokens[index + 1]
    if side.key not in vocabulary.SHORT_SIDES and side.key not in vocabulary.SHORTENED_SIDES.split():
        return False
    begins_other = index > 1 and is_pair(tokens[index - 2])  # "Niere re. Nebenniere li."
    return following.kind == "and" or (is_pair(following) and not begins_other)


def _as_regarding(prompt: str, tokens: list[Token], index: int) -> Token:
    """A token, "re" without meaning where it announces what follows: "Re: both kidneys"."""
    token = tokens[index]
    if token.key == "re" and prompt[token.stop :].lstrip().startswith(":"):
        return replace(token, entry=Entry("filler"))
    return token


def _as_both_sides(prompt: str, tokens: list[Token], index: int) -> Token:
    """A token, stroke or comma between two sides read as "and": "Nieren re/li", "kidney right, left"."""
    token = tokens[index]
    if token.kind != "break" or prompt[token.start] not in "/," or not 0 < index < len(tokens) - 1:
        return token
    between = _may_be_side(tokens[index - 1]) and _may_be_side(tokens[index + 1])
    if prompt[token.start] == ",":
        between = between and _of_one_pair(tokens, index)
    return replace(token, entry=Entry("and")) if between else token


def _of_one_pair(tokens: list[Token], comma: int) -> bool:
    """Not in "kidney left, right adrenal", nor where the comma may end an exception."""
    beside = [at for at in (comma - 2, comma + 2) if 0 <= at < len(tokens) and is_pair(tokens[at])]
    return len(beside) == 1 and not any(token.kind in ("except", "but") for token in tokens)


def _may_be_side(token: Token) -> bool:
    return token.is_side or token.key in vocabulary.SHORT_SIDES


def _as_short_side(prompt: str, tokens: list[Token], index: int) -> Token:
    """A token, read as a side where one or two letters stand right beside a pair: "Niere re", "rein G"."""
    token = tokens[index]
    side = vocabulary.SHORT_SIDES.get(token.key)
    if side is None or token.stop - token.start != len(token.key):  # "d'un" is no side
        return token
    if _short_side_after(prompt, tokens, index) or _short_side_before(tokens, index):
        return replace(token, entry=Entry("side after", (side,)))
    return token


def _short_side_after(prompt: str, tokens: list[Token], index: int) -> bool:
    """ "Niere re", "reins G et D", but not "kidneys re-segmented" and "reins d un patient"."""
    noun = index - 1
    if index >= 3 and tokens[index - 1].kind == "and" and _may_be_side(tokens[index - 2]):
        noun = index - 3
    if noun < 0 or not is_pair(tokens[noun]) or prompt.startswith("-", tokens[index].stop):
        return False
    if tokens[index].key == "der" and not tokens[noun].key.startswith(vocabulary.NOUNS_BEFORE_DER):
        return False
    following = tokens[index + 1 :][:2]
    if not following or following[0].kind == "break":
        return True
    if following[0].kind == "and" and _may_be_side(following[-1]):
        return True
    return tokens[index].key not in vocabulary.SINGLE_LETTER_SIDES and following[0].kind != "command"


def _short_side_before(tokens: list[Token], index: int) -> bool:
    """ "re Niere", "re und li Niere": only before German nouns, or "re kidneys" would be one."""
    noun = index + 1
    if tokens[noun + 1 :] and tokens[noun].kind == "and" and _may_be_side(tokens[noun + 1]):
        noun += 2
    return any(
        is_pair(t) and t.key.startswith(vocabulary.NOUNS_AFTER_SHORT_SIDES) for t in tokens[noun : noun + 1]
    )


def _as_misspelt_side(prompt: str, tokens: list[Token], index: int) -> Token:
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


def _as_misspelt_word(prompt: str, tokens: list[Token], index: int) -> Token:
    """A token, read as the word for an exception or a finding that it is a known misspelling of."""
    token = tokens[index]
    if token.kind != "unknown":
        return token
    if token.key in vocabulary.MISSPELT_EXCEPT.split():
        return replace(token, entry=Entry("except"))
    if token.key in vocabulary.MISSPELT_TUMOR.split():
        return replace(token, entry=Entry("other"), key="tumor")
    return token


def _as_taking_away(prompt: str, tokens: list[Token], index: int) -> Token:
    """A token, "remove" or "leave" read as an exception where something was named before a pause."""
    token = tokens[index]
    if token.key not in vocabulary.TAKING_AWAY.split():
        return token
    pauses = index > 0 and tokens[index - 1].kind in ("break", "and", "but")
    named = any(other.kind in ("organs", "all") for other in tokens[:index])
    return replace(token, entry=Entry("except" if pauses and named else "filler"))


def _as_liver_segment(prompt: str, tokens: list[Token], index: int) -> Token:
    """A token, read as a part of the liver in "liver segment VI" and "segment 4a of the liver"."""
    token = tokens[index]
    number = tokens[index + 1].key if index + 1 < len(tokens) else ""
    if token.key not in _SEGMENT or not _NUMBER_OF_SEGMENT.fullmatch(number):
        return token
    before = index > 0 and _is_liver(tokens[index - 1])
    after = index + 2 < len(tokens) and tokens[index + 2].key in ("of", "der", "du", "del")
    if before or (after and any(_is_liver(other) for other in tokens[index + 3 : index + 5])):
        return replace(token, entry=Entry("other"))
    return token


def _is_liver(token: Token) -> bool:
    return token.entry.value == ("liver",)


def _as_splenic_vein(prompt: str, tokens: list[Token], index: int) -> Token:
    """A token, the spleen of "splenic and portal veins" and "Milz- und Pfortader" read as the vein's."""
    token, following = tokens[index], tokens[index + 1 : index + 3]
    named_in_part = token.entry.adjective or prompt.startswith("-", token.stop)
    if token.entry.value != ("spleen",) or not named_in_part or len(following) < 2:
        return token
    if following[0].kind in ("and", "break") and following[1].entry.value == (PORTAL_VEIN,):
        return replace(token, entry=Entry("filler"))
    return token


def _as_narrowing(prompt: str, tokens: list[Token], index: int) -> Token:
    """A token, "but" read as a comma in "kidneys, but only the left"."""
    following = tokens[index + 1].key if index + 1 < len(tokens) else ""
    if tokens[index].kind == "but" and following in vocabulary.ONLY.split():
        return replace(tokens[index], entry=Entry("break"))
    return tokens[index]


def _as_conversation(prompt: str, tokens: list[Token], index: int) -> Token:
    """A token, "right" read as talk in "Right, now segment the kidneys" and "kidneys, right?"."""
    token, after = tokens[index], tokens[index + 1 : index + 3]
    sign = prompt[after[0].start] if after and after[0].kind == "break" else ""
    if token.key != "right" or not sign:
        return token
    opens = index == 0 and sign in ",.!" and len(after) == 2 and _begins_request(after[1])
    asks = (
        sign == "?" and index > 1 and tokens[index - 1].kind == "break" and _is_plural_pair(tokens[index - 2])
    )
    said = "".join(other.key for other in tokens[max(0, index - 2) : index])
    return replace(token, entry=Entry("filler")) if opens or asks or said.endswith("thats") else token


def _begins_request(token: Token) -> bool:
    return token.kind == "command" or token.key in ("now", "both") or _is_plural_pair(token)


def _without_idiom(prompt: str, tokens: list[Token], index: int) -> Token:
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


_READINGS = (
    _as_regarding,
    _as_both_sides,
    _as_short_side,
    _as_misspelt_side,
    _as_misspelt_word,
    _as_taking_away,
    _as_liver_segment,
    _as_splenic_vein,
    _as_narrowing,
    _as_conversation,
    _without_idiom,
)
