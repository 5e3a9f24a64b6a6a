"""What was typed becomes targets, or an error that says what is not understood and what is known."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import groupby

from rapidfuzz import fuzz

from progidiff.errors import PromptError
from progidiff.prompts.context import PORTAL_VEIN
from progidiff.prompts.exceptions import excluded, without_content
from progidiff.prompts.findings import finding_error, is_finding_word, join_findings
from progidiff.prompts.organ_table import Group, Organ, name_key, organ_table
from progidiff.prompts.recognise import recognise
from progidiff.prompts.target import Target
from progidiff.prompts.tokens import Token, is_pair

LONGEST_PROMPT = 1000
LONGEST_ENCODED_PROMPT = 200
_EXAMPLE = "Name what to segment, for example “segment the liver” or “both kidneys and the pancreas”."
_WITHOUT = re.compile(r"(?<!\w)w/o(?:ut)?(?!\w)", re.IGNORECASE)
_GAPS = ("filler", "command")
_SEPARATED_GAPS = (*_GAPS, "and", "break")


@dataclass(frozen=True)
class _Mention:
    """Organs named at one place of the prompt, characters `start` to `stop`; `shared`: with others' words."""

    organs: tuple[str, ...]
    start: int
    stop: int
    excluded: bool
    shared: bool = False


def parse_prompt(prompt: str, findings: Collection[str] = ()) -> list[Target]:
    """The organs that a prompt asks for, in the order of asking; of a pair, the right one first.

    Understands lists, sides, exceptions ("everything except the liver") and small typing errors in
    English, German, French, Spanish and Latin.

    Args:
        prompt: what was typed.
        findings: ids of the findings that may be asked for as well, such as "liver_tumor"; a model says
            which ones it knows.

    Raises:
        PromptError: the prompt is empty or too long, names no structure, or one that is not known.
        FindingError: it asks for a finding that is not in `findings`.
    """
    prompt = _checked(prompt)
    tokens = join_findings(prompt, recognise(prompt), findings)
    _refuse_findings(prompt, tokens, findings)
    unknown = list(dict.fromkeys(_unknown_words(prompt, tokens)))
    if unknown:
        raise _unknown_error(unknown, tokens)
    taken_out = excluded(prompt, tokens)
    empty = without_content(tokens, taken_out)
    if empty is not None:
        raise PromptError(
            f"The prompt does not say what to leave out after “{prompt[empty.start : empty.stop]}”.",
            "Name it right after that word, for example “everything except the liver”.",
        )
    return _targets(prompt, _mentions(tokens, taken_out))


def _refuse_findings(prompt: str, tokens: list[Token], drawn: Collection[str]) -> None:
    """To leave out the word "tumor" would segment the whole organ, so that is never advised."""
    for index, token in enumerate(tokens):
        if token.kind == "finding":
            first = tokens[_start_of_description(tokens, index)]
            named = prompt[min(first.start, token.start) : token.stop]
            raise finding_error(_shortened(named, 80), token.entry.value, drawn)
    for token in tokens:
        if is_finding_word(token):
            raise PromptError(
                f"The prompt does not say in which organ to look for “{prompt[token.start : token.stop]}”.",
                "Name both, for example “liver tumor”; or ask for an organ.",
            )


def known_structures() -> list[str]:
    """What a clinician reads where the known structures are listed; pairs appear once."""
    table = organ_table()
    pairs = {group.organs[0]: group.name for group in table.groups if len(group.organs) == 2}
    return [pairs.get(organ.id, organ.name) for organ in table if organ.side is None or organ.id in pairs]


def _checked(prompt: str) -> str:
    if not isinstance(prompt, str):
        raise PromptError("The prompt is not text.", _EXAMPLE)
    lines = unicodedata.normalize("NFC", prompt).splitlines()
    prompt = "\n".join(" ".join(line.split()) for line in lines if line.strip()).strip(" ,")
    prompt = _WITHOUT.sub("without", prompt)
    if not prompt:
        raise PromptError("The prompt is empty.", _EXAMPLE)
    if len(prompt) > LONGEST_PROMPT:
        raise PromptError(
            f"The prompt has {len(prompt)} characters, more than the {LONGEST_PROMPT} that are read.",
            "Shorten it to the organs you want.",
        )
    return prompt


# What is not understood


def _unknown_words(prompt: str, tokens: list[Token]) -> Iterator[str]:
    """The words that ask for something that cannot be given, or may be a misspelt organ."""
    for clause in _clauses(tokens):
        names_organ = any(token.kind == "organs" for token in clause)
        for first, stop in _runs_not_understood(clause):
            run = clause[first:stop]
            described = _start_of_description(clause, first)
            of_adjective = any(token.kind == "organs" for token in clause[described:first])
            if of_adjective or not names_organ or _asks_for_other(run):
                yield prompt[clause[described].start : run[-1].stop]
    yield from _other_veins(prompt, tokens)


def _other_veins(prompt: str, tokens: list[Token]) -> Iterator[str]:
    """ "hepatic and portal veins", "Leber- und Pfortader": the first organ's vein, which is not known."""
    for first, joint, second in zip(tokens, tokens[1:], tokens[2:], strict=False):
        named_in_part = first.entry.adjective or prompt[first.stop : first.stop + 1] == "-"
        joined = joint.kind in ("and", "break") and second.entry.value == (PORTAL_VEIN,)
        if first.kind == "organs" and first.entry.value != second.entry.value and named_in_part and joined:
            yield prompt[first.start : second.stop]


def _runs_not_understood(clause: list[Token]) -> Iterator[tuple[int, int]]:
    """First and stop index of neighbouring words that are not understood."""
    for understood, run in groupby(enumerate(clause), lambda item: item[1].kind not in ("other", "unknown")):
        if not understood:
            indices = [index for index, _ in run]
            yield indices[0], indices[-1] + 1


def _start_of_description(clause: list[Token], first: int) -> int:
    """Where the adjectives and sides before a word begin: "hepatic vein", "right lung"."""
    while first > 0 and (clause[first - 1].entry.adjective or clause[first - 1].is_side):
        first -= 1
    return first


def _asks_for_other(run: list[Token]) -> bool:
    return any(token.kind == "other" or _closest_names(token.key, at_least=75) for token in run)


def _clauses(tokens: list[Token]) -> Iterator[list[Token]]:
    clause: list[Token] = []
    for token in tokens:
        if token.kind in ("and", "break"):
            yield clause
            clause = []
        else:
            clause.append(token)
    yield clause


def _suggestions(phrase: str) -> list[str]:
    """Known structures that an unknown phrase, or a word of it, may have meant."""
    words = recognise(phrase)[:5]
    whole = _closest_names(name_key(phrase), at_least=70, languages=["en"]) if len(words) > 1 else []
    # Words that are spelt right, such as "heart", only resemble organs of other languages by chance.
    each = (_closest_names(word.key, 70, ["en"] if word.kind == "other" else None) for word in words)
    return [*whole, *(name for names in each for name in names)]


def _closest_names(key: str, at_least: float, languages: list[str] | None = None) -> list[str]:
    """Known structures one of whose names resembles a word (0 to 100), the closest first."""
    if len(key) < 4:
        return []
    table = organ_table()
    items: list[Organ | Group] = [*(organ for organ in table if organ.side is None), *table.groups]
    scores: dict[str, float] = {}
    for item in items:
        by_language = [name for language in languages or item.synonyms for name in item.synonyms[language]]
        keys = [name_key(name) for name in (*by_language, *item.adjectives)]
        scores[item.name] = max((fuzz.ratio(key, known) for known in keys if len(known) >= 5), default=0.0)
    best = max(scores.values())
    close = [name for name, score in scores.items() if score >= max(at_least, best - 10)]
    return sorted(close, key=lambda name: -scores[name])


def _unknown_error(unknown: list[str], tokens: list[Token]) -> PromptError:
    words = " and ".join(f"“{_shortened(word)}”" for word in unknown[:3])
    verb = "is" if len(unknown) == 1 else "are"
    closest = [name for phrase in unknown[:3] for name in _suggestions(phrase)]
    understood = [
        token.entry.value for token in tokens if token.kind == "organs" and not token.entry.adjective
    ]
    remedy = f"Did you mean {_either(closest)}? " if closest else ""
    if understood and not closest:
        remedy = f"Leave {'it' if verb == 'is' else 'them'} out to segment the rest. "
    remedy += f"Known are: {', '.join(known_structures())}."
    return PromptError(f"{words} {verb} not among the structures that can be segmented.", remedy)


def _shortened(word: str, longest: int = 40) -> str:
    return word if len(word) <= longest else word[: longest - 1] + "…"


def _either(names: list[str]) -> str:
    return " or ".join(f"“{name}”" for name in dict.fromkeys(names))


# Who is asked for


def _mentions(tokens: list[Token], taken_out: list[bool]) -> list[_Mention]:
    """All organs named, with the sides that belong to them; the word "all" only where nothing else is."""
    sides, stray = _sides_of_pairs(tokens)
    mentions = []
    for index, token in enumerate(tokens):
        if token.kind == "organs" and not _describes_next(tokens, index):
            mentions.append(
                _mention(token, [tokens[side] for side in sides.get(index, [])], taken_out[index])
            )
        elif index in stray:
            mentions.append(_side_alone(tokens, index, taken_out[index]))
    everything = [
        token for token, out in zip(tokens, taken_out, strict=True) if token.kind == "all" and not out
    ]
    if everything and all(mention.excluded for mention in mentions):
        organs = tuple(organ.id for organ in organ_table())
        mentions.insert(0, _Mention(organs, everything[0].start, everything[0].stop, excluded=False))
    return mentions


def _describes_next(tokens: list[Token], index: int) -> bool:
    """Whether an adjective only says which part of a great vessel is meant: "suprarenal aorta"."""
    following = tokens[index + 1] if index + 1 < len(tokens) else None
    return (
        tokens[index].entry.adjective
        and following is not None
        and not following.entry.adjective
        and following.entry.value in (("aorta",), ("inferior_vena_cava",))
        and following.entry.value != tokens[index].entry.value
    )


def _mention(token: Token, sides: list[Token], excluded: bool) -> _Mention:
    wanted = {side.entry.value[0] for side in sides}
    organs = tuple(
        organ for organ in token.entry.value if not wanted or organ_table().by_id(organ).side in wanted
    )
    start = min(part.start for part in (token, *sides))
    stop = max(part.stop for part in (token, *sides))
    return _Mention(organs, start, stop, excluded, token.entry.shared)


def _side_alone(tokens: list[Token], index: int, excluded: bool) -> _Mention:
    """A side without a noun: "both kidneys, but not the left", "not the left kidney but the right one"."""
    token = tokens[index]
    before = [other for other in tokens[:index] if is_pair(other)]
    after = [other for other in tokens[index:] if is_pair(other)]
    pair = before[-1] if before else after[0] if after and excluded else None
    if pair is None or not (excluded or _contrasted(tokens, index)):
        raise PromptError(
            f"The prompt does not say what “{token.entry.value[0]}” belongs to.",
            "Only kidneys and adrenal glands have a side: write “left kidney”, or leave the side out.",
        )
    return _mention(Token(pair.entry, token.start, token.stop, token.key), [token], excluded)


def _contrasted(tokens: list[Token], index: int) -> bool:
    """Whether a token follows "but", with nothing but fillers between."""
    return next((token.kind for token in reversed(tokens[:index]) if token.kind != "filler"), None) == "but"


def _sides_of_pairs(tokens: list[Token]) -> tuple[dict[int, list[int]], set[int]]:
    """Which side tokens belong to which paired organ (by index), and those that belong to none."""
    sides: dict[int, list[int]] = {}
    stray: set[int] = set()
    for run in _runs_of_sides(tokens):
        noun = _noun_of_sides(tokens, run)
        if noun is None:
            stray.update(run)
        else:
            sides.setdefault(noun, []).extend(run)
    for noun in list(sides):
        _give_back(tokens, sides, noun)
    return sides, stray


def _give_back(tokens: list[Token], sides: dict[int, list[int]], noun: int) -> None:
    """In "kidney left adrenal right" each side belongs to the noun before it, as the last one shows."""
    before = [side for side in sides[noun] if side < noun]
    after = [side for side in sides[noun] if side > noun]
    earlier = _neighbour(tokens, before[0], -1, _GAPS) if before and after else None
    if earlier is not None and earlier not in sides:
        sides[earlier], sides[noun] = before, after


def _runs_of_sides(tokens: list[Token]) -> list[list[int]]:
    """Sides that are joined: "left and right". In "kidney left and right adrenal" they are not."""
    runs: list[list[int]] = []
    for index, token in enumerate(tokens):
        if not token.is_side:
            continue
        joined = bool(runs) and all(
            between.kind in ("and", "filler") for between in tokens[runs[-1][-1] + 1 : index]
        )
        if joined:
            last = runs[-1][-1]
            joined = (
                _neighbour(tokens, last, -1, _GAPS) is None or _neighbour(tokens, index, 1, _GAPS) is None
            )
        if joined:
            runs[-1].append(index)
        else:
            runs.append([index])
    return runs


def _noun_of_sides(tokens: list[Token], run: list[int]) -> int | None:
    """The paired organ next to a run of sides, on the side of it where the language puts the noun."""
    before, after = (run[0], -1), (run[-1], 1)
    if tokens[run[0]].kind == "side before":
        places = [(*after, _GAPS), (*before, _GAPS), (*before, _SEPARATED_GAPS), (*after, _SEPARATED_GAPS)]
    else:
        places = [(*before, _GAPS), (*before, _SEPARATED_GAPS), (*after, _GAPS), (*after, _SEPARATED_GAPS)]
    found = (_neighbour(tokens, start, step, gap) for start, step, gap in places)
    return next((noun for noun in found if noun is not None), None)


def _neighbour(tokens: list[Token], start: int, step: int, gap: tuple[str, ...]) -> int | None:
    """Index of the first paired organ from `start` on, with nothing but `gap` between."""
    index = start + step
    while 0 <= index < len(tokens) and tokens[index].kind in gap:
        index += step
    return index if 0 <= index < len(tokens) and is_pair(tokens[index]) else None


def _targets(prompt: str, mentions: list[_Mention]) -> list[Target]:
    wanted: dict[str, _Mention] = {}
    for mention in mentions:
        for organ in mention.organs if not mention.excluded else ():
            wanted.setdefault(organ, mention)
    left_out = {organ for mention in mentions if mention.excluded for organ in mention.organs}
    kept = {organ: mention for organ, mention in wanted.items() if organ not in left_out}
    if not kept:
        raise _nothing_error(bool(wanted), bool(left_out))
    whole_prompt = len(kept) == 1 and not left_out and len(prompt) <= LONGEST_ENCODED_PROMPT
    return [_target(prompt, organ, mention, whole_prompt) for organ, mention in kept.items()]


def _target(prompt: str, organ_id: str, mention: _Mention, whole_prompt: bool) -> Target:
    organ = organ_table().by_id(organ_id)
    closing = prompt.startswith(")", mention.stop) and "(" in prompt[mention.start : mention.stop]
    phrase = prompt[mention.start : mention.stop + closing]
    # Words that name several organs ("kidneys") would not tell the text encoder which one is meant.
    name = phrase if len(mention.organs) == 1 and not mention.shared else organ.name
    text = prompt if whole_prompt else f"segment the {name}"
    return Target(organ.id, organ.name, organ.side, " ".join(phrase.split()), " ".join(text.split()))


def _nothing_error(wanted: bool, left_out: bool) -> PromptError:
    if wanted:
        return PromptError("The prompt leaves out everything that it names.", _EXAMPLE)
    if left_out:
        return PromptError(
            "The prompt only says what to leave out.",
            "Say of what, for example “everything except the liver”.",
        )
    known = f"Known are: {', '.join(known_structures())}."
    return PromptError("The prompt names no structure to segment.", f"{_EXAMPLE} {known}")
