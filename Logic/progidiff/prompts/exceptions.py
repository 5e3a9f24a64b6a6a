"""What a prompt takes out: how far an exception reaches, and exceptions that name nothing."""

from __future__ import annotations

from progidiff.prompts import vocabulary
from progidiff.prompts.organ_table import organ_table
from progidiff.prompts.tokens import Token

_OPENING = ":([{"
_CLOSING = ")]}"
_ABBREVIATED = ("excl", "exc", "exkl")  # their full stop ends nothing
_SENTENCE_ENDS = ".?!。"
_ONLY = frozenset(vocabulary.ONLY.split())


def excluded(prompt: str, tokens: list[Token]) -> list[bool]:
    """For every token whether it stands in what the prompt takes out.

    An exception lasts to the end of its sentence, or until "but", or until the next command, unless the
    command is what is negated ("do not segment the liver, segment the spleen"), or until all organs are named
    ("without the liver: everything"), or to the end of what is put in between ("the liver, no spleen, and the
    pancreas"), to the end of its brackets or of the line that it begins, or until "only" after a comma ("not
    the liver, only the spleen"). "But" begins one where several organs are named before it ("all but the
    liver").
    """
    result = []
    excluding = named = False  # named: the exception has said what it takes out
    organs_before = 0
    for index, token in enumerate(tokens):
        if token.kind == "except" or (token.kind == "but" and not excluding and organs_before > 1):
            excluding, named = True, False
        elif token.kind == "but" or (named and _begins_anew(tokens, index)):
            excluding = False
        elif token.kind == "organs" or token.is_side:
            named = True
        elif token.kind == "break" and excluding:
            ends = _ends(prompt[token.start], named, tokens[index - 1]) or _ends_insertion(tokens, index)
            excluding = not (ends or (named and _ends_enclosed(prompt, tokens, index)))
        if not excluding:
            organs_before += _organs_named(token)
        result.append(excluding)
    return result


def _begins_anew(tokens: list[Token], index: int) -> bool:
    """Whether a token after what is taken out begins what is asked for: a command, "everything", ", only"."""
    token = tokens[index]
    after_comma = index > 0 and tokens[index - 1].kind == "break"
    return token.kind == "command" or _names_all(token) or (after_comma and token.key in _ONLY)


def _ends(sign: str, named: bool, last: Token) -> bool:
    """Whether a punctuation mark ends an exception: "no, segment the liver", "no liver. The spleen too."

    The full stop of "everything except the lt. kidney" does not.
    """
    if not named:
        return sign not in f"{_OPENING}\n" and not (sign == "." and last.key in _ABBREVIATED)
    return sign in _SENTENCE_ENDS and not last.is_side


def _ends_enclosed(prompt: str, tokens: list[Token], index: int) -> bool:
    """Whether the brackets or the line end in which an exception stands: "liver (no spleen), pancreas"."""
    first = next(at for at in range(index - 1, -1, -1) if tokens[at].kind in ("except", "but"))
    if prompt[tokens[index].start] == "\n":
        begins_line = first == 0 or prompt[tokens[first - 1].start] == "\n"
        goes_on = any(
            token.kind in ("and", "break") for token in (*tokens[index + 1 :][:1], tokens[index - 1])
        )
        of_everything = any(token.kind == "all" or _names_all(token) for token in tokens[:first])
        return begins_line and not goes_on and not of_everything
    inside = prompt[tokens[first].start : tokens[index].start]
    return prompt[tokens[index].start] in _CLOSING and not any(sign in inside for sign in "([{")


def _ends_insertion(tokens: list[Token], comma: int) -> bool:
    """Whether a comma ends one thing left out within a list: "the liver, no spleen, and the pancreas".

    What is left out of everything may be a list that ends like this: "everything, not the liver, and spleen".
    """
    if comma + 1 >= len(tokens) or tokens[comma + 1].kind != "and":
        return False
    first = next(at for at in range(comma - 1, -1, -1) if tokens[at].kind in ("except", "but"))
    only_one = sum(token.kind == "organs" for token in tokens[first:comma]) <= 1
    before = [token for token in tokens[:first] if token.kind not in ("filler", "but")]
    set_off = bool(before) and before[-1].kind == "break"
    listed = [token for token in before if token.kind == "organs"]
    return only_one and set_off and bool(listed) and not any(_names_all(token) for token in listed)


def without_content(tokens: list[Token], excluded: list[bool]) -> Token | None:
    """The first exception to what was named before that does not say what to leave out, if there is one.

    Words that are not known say enough where only one organ could be meant ("the liver without artefacts"),
    but may be misspelt ones after "everything except".
    """
    for start in range(len(tokens)):
        if not excluded[start] or (start and excluded[start - 1]):
            continue
        stop = next((at for at in range(start, len(tokens)) if not excluded[at]), len(tokens))
        organs_before = sum(_organs_named(token) for token in tokens[:start])
        inside = tokens[start:stop]
        says_what = any(token.kind == "organs" or token.is_side for token in inside)
        has_unknown = any(token.kind in ("unknown", "other") for token in inside)
        if organs_before and not says_what and (organs_before > 1 or not has_unknown):
            return tokens[start]
    return None


def _organs_named(token: Token) -> int:
    if token.kind == "all":
        return len(organ_table())
    return len(token.entry.value) if token.kind == "organs" else 0


def _names_all(token: Token) -> bool:
    return token.kind == "organs" and len(token.entry.value) == len(organ_table())
