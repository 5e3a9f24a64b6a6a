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
from progidiff.prompts.recognise import Entry, Token, meaning


def join_findings(tokens: list[Token], drawn: Collection[str]) -> list[Token]:
    """The tokens, each finding joined with its organ.

    Args:
        tokens: of the whole prompt.
        drawn: ids of the findings that can be drawn; their tokens become "organs", others "finding".
    """
    tokens = [_compound(token, drawn) for token in tokens]
    joined: set[int] = set()
    for index, token in enumerate(tokens):
        if not is_finding_word(token):
            continue
        place = _organ_place(tokens, index)
        if place is not None:
            entry = _entry(_organs(tokens[place]), token.key in _keys(vocabulary.TUMORS), drawn)
            start = min(token.start, tokens[place].start)
            tokens[place] = Token(entry, start, max(token.stop, tokens[place].stop), tokens[place].key)
            between = range(min(index, place) + 1, max(index, place))
            joined.update(at for at in between if tokens[at].key in _keys(vocabulary.FINDING_KINDS))
            joined.add(index)
    return [token for index, token in enumerate(tokens) if index not in joined]


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
    after = index + 1
    while after < len(tokens) and (tokens[after].is_side or tokens[after].key in links | kinds):
        after += 1
    return next((at for at in (before, after) if 0 <= at < len(tokens) and _organs(tokens[at])), None)


def _organs(token: Token) -> tuple[str, ...]:
    """Ids of the organ, or the two of a pair, that a token stands for beside a finding; () for all others."""
    entry = meaning(_adjectives().get(token.key, "")) if token.kind == "unknown" else token.entry
    if entry is None or entry.kind != "organs" or not 1 <= len(entry.value) <= 2:
        return ()
    return entry.value if organ_table().by_id(entry.value[0]).within is None else ()


def _entry(organs: tuple[str, ...], is_tumor: bool, drawn: Collection[str]) -> Entry:
    ids = tuple(f.id for f in organ_table().findings if is_tumor and f.within in organs)
    known = tuple(finding for finding in ids if finding in drawn)
    return Entry("organs", known) if known else Entry("finding", ids)


def _compound(token: Token, drawn: Collection[str]) -> Token:
    """German puts the organ and the finding in one word: "Lebertumor", "Nierenzysten"."""
    if token.kind != "unknown":
        return token
    for endings, is_tumor in ((vocabulary.TUMOR_ENDINGS, True), (vocabulary.OTHER_FINDING_ENDINGS, False)):
        for ending in sorted(_keys(endings), key=len, reverse=True):
            stem = token.key.removesuffix(ending)
            entry = meaning(stem) or meaning(stem.removesuffix("n"))
            if stem != token.key and entry and entry.kind == "organs":
                return replace(token, entry=_entry(entry.value, is_tumor, drawn))
    return token


@lru_cache(maxsize=8)
def _keys(words: str) -> frozenset[str]:
    return frozenset(key for word in words.split() for key in name_keys(word))


@lru_cache(maxsize=1)
def _adjectives() -> dict[str, str]:
    """Keys of adjectives that stand for an organ beside a finding only, and the key of its usual name."""
    return {
        key: name_key(organ) for organ, words in vocabulary.FINDING_ADJECTIVES.items() for key in _keys(words)
    }
