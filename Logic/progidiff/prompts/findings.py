"""Findings in a prompt: "hepatic lesions", "tumor of the left kidney", "Lebertumor", "lésion splénique".

A word such as "tumor" is joined with the organ that it lies in. Which model draws what is not known here, so
what is not drawn is told from what is by the ids that are passed in.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import lru_cache

from progidiff.errors import FindingError, PromptError
from progidiff.prompts import vocabulary
from progidiff.prompts.organ_table import name_key, name_keys, organ_table
from progidiff.prompts.recognise import meaning
from progidiff.prompts.tokens import Entry, Token


def join_findings(prompt: str, tokens: list[Token], drawn: Collection[str]) -> list[Token]:
    """The tokens, each finding joined with its organ, or with all organs of a list.

    Args:
        prompt: what was typed.
        tokens: of the whole prompt.
        drawn: ids of the findings that can be drawn; their tokens become "organs", others "finding".
    """
    tokens = _compounds(prompt, tokens, drawn)
    joined: set[int] = set()
    for index, token in enumerate(tokens):
        if not is_finding_word(token):
            continue
        place = _organ_place(tokens, index)
        if place is not None:
            is_tumor = token.key in _keys(vocabulary.TUMORS)
            if place > index:
                others = _listed_after(prompt, tokens, place)
            else:
                several = token.key in _keys(vocabulary.SEVERAL_TUMORS)
                others = _listed_before(prompt, tokens, place, several)
            tokens[place] = _joined(tokens[place], token, is_tumor, drawn)
            for at in others:
                shared = _joined(tokens[at], token, is_tumor, drawn)
                tokens[at] = replace(shared, entry=replace(shared.entry, shared=True))
            between = range(min(index, place) + 1, max(index, place))
            joined.update(at for at in between if tokens[at].key in _keys(vocabulary.FINDING_KINDS))
            joined.add(index)
    return [token for index, token in enumerate(tokens) if index not in joined]


def _joined(organ: Token, finding: Token, is_tumor: bool, drawn: Collection[str]) -> Token:
    entry = _entry(_organs(organ), is_tumor, drawn)
    return Token(entry, min(finding.start, organ.start), max(finding.stop, organ.stop), organ.key)


def is_finding_word(token: Token) -> bool:
    """Whether a token says "tumor" or the like."""
    return token.key in _keys(vocabulary.TUMORS) | _keys(vocabulary.OTHER_FINDINGS)


def finding_error(named: str, ids: Collection[str], drawn: Collection[str]) -> PromptError:
    """Why a finding is not drawn, and which model of this computer would draw it.

    Args:
        named: the finding in the user's words.
        ids: what it is called in the organ table; empty for what no model can know.
        drawn: ids of the findings that the model draws.
    """
    if not ids:
        known = ", ".join(finding.name for finding in organ_table().findings)
        return PromptError(
            f"“{named}” is not among the findings that can be segmented.",
            f"Ask for an organ, or, where the model draws them, for one of: {known}.",
        )
    if drawn:
        names = ", ".join(organ_table().by_id(finding).name for finding in drawn)
        message = f"This model does not draw “{named}”, only the organs and: {names}."
    else:
        message = f"This model draws organs only, not findings in them such as “{named}”."
    able = _models_that_draw(ids)
    if able:
        return FindingError(message, f"Choose the model {able[0]}, which draws it, or ask for an organ.")
    return FindingError(message, "No model on this computer draws it; ask for an organ.")


def _models_that_draw(ids: Collection[str]) -> list[str]:
    from progidiff.model_list import installed_models

    return [model.id for model in installed_models() if set(ids) & set(model.findings)]


def _organ_place(tokens: list[Token], index: int) -> int | None:
    """Where the organ of a finding stands: before it ("liver tumor"), else after ("tumor of the liver")."""
    kinds, links = _keys(vocabulary.FINDING_KINDS), _keys(vocabulary.FINDING_LINKS)
    before = index - 1
    while before >= 0 and tokens[before].key in kinds:
        before -= 1
    if before >= 0 and tokens[before].is_side:  # "kidney on the left tumor"
        while before >= 0 and (tokens[before].is_side or tokens[before].key in links):
            before -= 1
    after = _described(tokens, index + 1)
    return next((at for at in (before, after) if 0 <= at < len(tokens) and _organs(tokens[at])), None)


def _described(tokens: list[Token], at: int) -> int:
    """Where the noun stands, from `at` on, after articles and sides: "of the left and right kidney"."""
    passed = _keys(vocabulary.FINDING_LINKS) | _keys(vocabulary.FINDING_KINDS)
    while at < len(tokens):
        between_sides = tokens[at].kind == "and" and all(
            t.is_side for t in (tokens[at - 1], *tokens[at + 1 :][:1])
        )
        if not (between_sides or tokens[at].is_side or tokens[at].key in passed):
            break
        at += 1
    return at


def _listed_after(prompt: str, tokens: list[Token], place: int) -> list[int]:
    """The other organs of a list that begins at `place`: "tumors of the liver and pancreas".

    The list ends with what "and" joins: in "mass of the pancreas, spleen" and "tumors of the liver, and the
    spleen" there is none, and the spleen is an organ of its own.
    """
    listed, confirmed, at = [place], 1, place
    while True:
        first = _described(tokens, at + 1)
        stop = first
        while stop < len(tokens) and (tokens[stop].kind == "and" or _is_comma(prompt, tokens[stop])):
            stop += 1
        kinds = [token.kind for token in tokens[first:stop]]
        at = _described(tokens, stop)
        if not kinds or not _continues_list(tokens, listed, at) or ("break" in kinds and confirmed > 1):
            break
        if "and" in kinds and (kinds[0] == "and" or len(listed) > 1):
            confirmed = len(listed) + 1
        listed.append(at)
    return listed[1:confirmed]


def _continues_list(tokens: list[Token], listed: list[int], at: int) -> bool:
    """Whether another organ stands there without a finding of its own, and not one that is listed already."""
    if at >= len(tokens) or not _organs(tokens[at]):
        return False
    following = next((t for t in tokens[at + 1 :] if t.key not in _keys(vocabulary.FINDING_KINDS)), None)
    repeated = any(_organs(tokens[at]) == _organs(tokens[other]) for other in listed)
    return not repeated and not (following and is_finding_word(following))


def _is_comma(prompt: str, token: Token) -> bool:
    return token.kind == "break" and prompt[token.start] == ","


def _listed_before(prompt: str, tokens: list[Token], place: int, several: bool) -> list[int]:
    """The other organs of a list that ends at `place`: "hepatic and pancreatic lesions".

    Adjectives lack a noun otherwise. A noun could be an organ of its own, as it is in "liver and pancreas
    tumor", and shares the finding only where the word for that is plural: "liver and pancreas tumors".
    """
    listed: list[int] = []
    at = place
    while True:
        at -= 1
        while at > 0 and (tokens[at].is_side or tokens[at].key in _keys(vocabulary.FINDING_KINDS)):
            at -= 1
        before = at
        while before > 0 and tokens[before].kind in ("and", "break"):
            before -= 1
        if before == at or not _organs(tokens[before]):
            return listed
        is_adjective = tokens[before].entry.adjective or tokens[before].kind == "unknown"
        if not is_adjective and not (several and _shares_tumors(prompt, tokens, before, [*listed, place])):
            return listed
        listed.append(before)
        at = before


def _shares_tumors(prompt: str, tokens: list[Token], noun: int, listed: list[int]) -> bool:
    """Whether a noun before the organs of a list begins it: "liver and pancreas tumors".

    "And" joins the list as in `_listed_after`. What can have no tumor ("spleen and liver tumors"), is plural
    ("kidneys and liver tumors") or is listed already ("liver and liver tumors") is an organ of its own.
    """
    joints = [t for t in tokens[noun + 1 : min(listed)] if t.kind in ("and", "break")]
    is_list = all(t.kind == "and" or _is_comma(prompt, t) for t in joints)
    if len(listed) == 1:
        goes_on = noun > 0 and _is_comma(prompt, tokens[noun - 1])  # "liver, pancreas, and kidney tumors"
        is_list = is_list and joints[-1].kind == "and" and (joints[0].kind == "and" or goes_on)
    key, organs = tokens[noun].key, _organs(tokens[noun])
    is_plural = key.endswith("s") and meaning(key[:-1]) is not None
    repeated = any(_organs(tokens[other]) == organs for other in listed)
    return is_list and bool(_tumors(organs)) and not is_plural and not repeated


def _organs(token: Token) -> tuple[str, ...]:
    """Ids of the organ, or the two of a pair, that a token stands for beside a finding; () for all others."""
    entry = meaning(_adjectives().get(token.key, "")) if token.kind == "unknown" else token.entry
    if entry is None or entry.kind != "organs" or not 1 <= len(entry.value) <= 2:
        return ()
    return entry.value if organ_table().by_id(entry.value[0]).within is None else ()


def _entry(organs: tuple[str, ...], is_tumor: bool, drawn: Collection[str]) -> Entry:
    ids = _tumors(organs) if is_tumor else ()
    known = tuple(finding for finding in ids if finding in drawn)
    return Entry("organs", known) if known else Entry("finding", ids)


def _tumors(organs: tuple[str, ...]) -> tuple[str, ...]:
    """Ids of the tumors that the organ table knows in some organs."""
    return tuple(finding.id for finding in organ_table().findings if finding.within in organs)


def _compounds(prompt: str, tokens: list[Token], drawn: Collection[str]) -> list[Token]:
    """German puts the organ and the finding in one word: "Lebertumor", "Leber- und Nierenzysten"."""
    tokens = list(tokens)
    for index, token in enumerate(tokens):
        found = _compound(token)
        if found is None:
            continue
        organs, is_tumor = found
        tokens[index] = replace(token, entry=_entry(organs, is_tumor, drawn))
        at = index
        while at > 1 and tokens[at - 1].kind in ("and", "break") and _ends_in_hyphen(prompt, tokens[at - 2]):
            at -= 2
            entry = _entry(_organs(tokens[at]), is_tumor, drawn)
            tokens[at] = replace(tokens[at], entry=replace(entry, shared=True), stop=token.stop)
    return tokens


def _ends_in_hyphen(prompt: str, token: Token) -> bool:
    return bool(_organs(token)) and prompt[token.stop : token.stop + 1] == "-"


def _compound(token: Token) -> tuple[tuple[str, ...], bool] | None:
    """Ids of the organs and whether the finding is a tumor; None if the word is no such compound."""
    if token.kind != "unknown":
        return None
    for endings, is_tumor in ((vocabulary.TUMOR_ENDINGS, True), (vocabulary.OTHER_FINDING_ENDINGS, False)):
        for ending in sorted(_keys(endings), key=len, reverse=True):
            stem = token.key.removesuffix(ending)
            entry = meaning(stem) or meaning(stem.removesuffix("n"))
            if stem != token.key and entry and entry.kind == "organs":
                return entry.value, is_tumor
    return None


@lru_cache(maxsize=8)
def _keys(words: str) -> frozenset[str]:
    return frozenset(key for word in words.split() for key in name_keys(word))


@lru_cache(maxsize=1)
def _adjectives() -> dict[str, str]:
    """Keys of adjectives that stand for an organ beside a finding only, and the key of its usual name."""
    return {
        key: name_key(organ) for organ, words in vocabulary.FINDING_ADJECTIVES.items() for key in _keys(words)
    }
