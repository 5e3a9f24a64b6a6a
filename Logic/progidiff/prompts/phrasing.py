"""The many ways to ask for one organ: captions to train the text encoder, paraphrases to test it.

The paraphrases are held out: no caption says the same words, even in other case or punctuation.
"""

from __future__ import annotations

import random
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from progidiff.prompts.organ_table import Organ, name_key, organ_table

if TYPE_CHECKING:
    import numpy as np

_VERBS = (
    "segment", "outline", "delineate", "contour", "extract", "find", "show", "show me", "mark", "highlight",
    "locate", "isolate", "label", "draw", "annotate", "trace", "mask", "identify", "get", "give me",
)  # fmt: skip
_NOUNS = (
    "segmentation",
    "mask",
    "contour",
    "outline",
    "label map",
    "annotation",
    "region",
    "volume",
    "boundary",
)
_OPENINGS = ("please ", "Please ", "pls ", "kindly ", "now ", "can you ", "could you please ", "I want to ",
             "I would like to ", "we need to ", "let's ", "you should ", "hi, ", "")  # fmt: skip
_ENDINGS = (" please", ", please", ", thanks", " thank you", " in this scan", " in this CT", " in this MR",
            " in this image", " on the abdominal CT", " in the abdomen", " here", " for me", " as a whole",
            " completely", " of this patient", " now")  # fmt: skip
_NAMING_TEMPLATES = (
    "{n}", "{n}", "{n}", "the {n}", "{n} {noun}", "{noun} of the {n}", "{noun} of {n}", "a {noun} of the {n}",
    "{n} only", "only the {n}", "just the {n}", "the whole {n}", "entire {n}", "organ: {n}", "target: {n}",
    "structure: {n}", "{noun}: {n}", "{n} in CT", "CT of the {n}", "MRI of the {n}", "{n} on this scan",
    "a CT scan of the {n}", "all of the {n}", "pixels of the {n}", "voxels that belong to the {n}",
)  # fmt: skip
_ASKING_TEMPLATES = (
    "where is the {n}?", "where is {n}", "which part is the {n}?", "can you see the {n}?",
    "what is the {n} here?",
    "where can I find the {n}?", "I need the {n}", "I need a {noun} of the {n}",
    "give me a {noun} of the {n}",
    "I am looking for the {n}", "show where the {n} is", "how big is the {n}?", "make a {noun} for the {n}",
    "create a {noun} of the {n}", "compute the {noun} of the {n}", "let me see the {n}",
    "try to {verb} the {n}",
)  # fmt: skip
_ADJECTIVE_TEMPLATES = ("{a} {noun}", "{a} tissue", "{a} contours", "the {a} {noun}", "{a}")
_FOREIGN_TEMPLATES = {
    "la": ("{n}", "{n}", "{n} segmenta", "segmentatio: {n}", "monstra {n}", "ubi est {n}?",
           "segment the {n}"),
    "de": ("{n}", "{n} segmentieren", "bitte {n} segmentieren", "Segmentierung: {n}", "Maske {n}",
           "{n} bitte", "{n} markieren", "bitte {n} einzeichnen", "{n} im CT", "Kontur {n}"),
    "fr": ("{n}", "segmenter {n}", "segmentation : {n}", "masque {n}", "contour {n}", "{n} s'il vous plaît",
           "montrer {n}", "{n} sur ce scanner"),
    "es": ("{n}", "segmentar {n}", "segmentación: {n}", "máscara {n}", "contorno {n}", "{n} por favor",
           "mostrar {n}", "{n} en este TAC"),
}  # fmt: skip
_ARTICLE_TEMPLATES = {
    "de": ("{o}", "segmentiere {o}", "bitte segmentiere {o}", "zeige {o}", "zeig mir bitte {o}",
           "bitte {o} markieren", "ich brauche {o}", "suche {o}", "{o} bitte umranden"),
    "fr": ("{o}", "segmente {o}", "segmentez {o} s'il vous plaît", "montre-moi {o}", "trouver {o}",
           "où est {o} ?", "veuillez segmenter {o}", "je cherche {o}"),
    "es": ("{o}", "segmenta {o}", "por favor segmenta {o}", "muestra {o}", "encuentra {o}",
           "¿dónde está {o}?", "quiero {o}", "marca {o}, por favor"),
}  # fmt: skip
_HELD_OUT_TYPOS = {
    "spleen": "splean",
    "right_kidney": "right kidny",
    "left_kidney": "left kideny",
    "gallbladder": "gallblader",
    "esophagus": "esophogus",
    "liver": "livver",
    "stomach": "stomache",
    "aorta": "aortta",
    "inferior_vena_cava": "inferior vena cavva",
    "portal_and_splenic_vein": "portel and splenic vein",
    "pancreas": "pancreaz",
    "right_adrenal_gland": "right adrenel gland",
    "left_adrenal_gland": "left adrenall gland",
}


def paraphrases(organ: Organ | str) -> list[str]:
    """Ten fixed wordings (of an organ or its id) for evaluation, which training never sees.

    Four in plain English, one with an abbreviation (where the organ has one), one with a typing error,
    and one each in Latin, German, French and Spanish.
    """
    organ = _resolve(organ)
    names = organ.synonyms["en"]
    abbreviation = organ.abbreviations[0] if organ.abbreviations else organ.name
    return [
        f"could you draw around the {organ.name} for me?",
        f"I'd like to have the {organ.name} contoured on this scan",
        f"colour in the whole {names[1] if len(names) > 1 else organ.name}",
        f"Where exactly does the {organ.name} lie?",
        f"{abbreviation} for volumetry",
        f"pleese segment the {_HELD_OUT_TYPOS[organ.id]}",
        f"monstretur {organ.synonyms['la'][0]}",
        f"Können Sie {organ.with_article['de']} bitte einfärben?",
        f"pourriez-vous délimiter {organ.with_article['fr']} ?",
        f"quisiera ver {organ.with_article['es']} en color",
    ]


def captions(organ: Organ | str, rng: np.random.Generator | random.Random, n: int) -> list[str]:
    """`n` varied prompts for an organ (or its id), repeatable with the same state of `rng`.

    English mostly; other languages, abbreviations, cases, punctuation and light typing errors some of
    the time. Every caption names the organ with its side.
    """
    organ = _resolve(organ)
    source = _stdlib_random(rng)
    held_out = _held_out(organ.id)
    result: list[str] = []
    while len(result) < n:
        caption = _dress(_sentence(organ, source), source)
        if name_key(caption) not in held_out:
            result.append(caption)
    return result


def _resolve(organ: Organ | str) -> Organ:
    return organ_table().by_id(organ) if isinstance(organ, str) else organ


def _stdlib_random(rng: np.random.Generator | random.Random) -> random.Random:
    """The standard library's generator picks from lists of words far faster than NumPy's."""
    if isinstance(rng, random.Random):
        return rng
    return random.Random(int(rng.integers(2**62)))


@lru_cache(maxsize=64)
def _held_out(organ_id: str) -> frozenset[str]:
    return frozenset(name_key(text) for text in paraphrases(organ_id))


def _sentence(organ: Organ, source: random.Random) -> str:
    language = source.choices(("en", "la", "de", "fr", "es"), (0.76, 0.06, 0.06, 0.06, 0.06))[0]
    if language == "en":
        return _english(organ, source)
    if language in _ARTICLE_TEMPLATES and source.random() < 0.5:
        return source.choice(_ARTICLE_TEMPLATES[language]).format(o=organ.with_article[language])
    return source.choice(_FOREIGN_TEMPLATES[language]).format(n=source.choice(organ.synonyms[language]))


def _english(organ: Organ, source: random.Random) -> str:
    kind = source.random()
    name = _english_name(organ, source)
    verb, noun = source.choice(_VERBS), source.choice(_NOUNS)
    if organ.adjectives and kind < 0.04:
        return source.choice(_ADJECTIVE_TEMPLATES).format(a=source.choice(organ.adjectives), noun=noun)
    if kind < 0.35:
        return source.choice(_NAMING_TEMPLATES).format(n=name, noun=noun)
    if kind < 0.55:
        return source.choice(_ASKING_TEMPLATES).format(n=name, noun=noun, verb=verb)
    opening = source.choice(_OPENINGS) if source.random() < 0.5 else ""
    ending = source.choice(_ENDINGS) if source.random() < 0.3 else ""
    article = "the " if source.random() < 0.75 else ""
    return f"{opening}{verb} {article}{name}{ending}"


def _english_name(organ: Organ, source: random.Random) -> str:
    choice = source.random()
    if choice < 0.5:
        return organ.name
    if organ.abbreviations and choice < 0.65:
        return source.choice(organ.abbreviations)
    return source.choice(organ.synonyms["en"])


def _dress(text: str, source: random.Random) -> str:
    """Cases, punctuation and slips of the finger, as they come from real keyboards."""
    if source.random() < 0.05:
        text = _typo(text, source)
    choice = source.random()
    if choice < 0.25:
        text = text.lower()
    elif choice < 0.31:
        text = text.upper()
    elif choice < 0.5:
        text = text[0].upper() + text[1:]
    elif choice < 0.53:
        text = text.title()
    if text[-1].isalnum() and source.random() < 0.25:
        text += source.choice((".", ".", "!", " .", ";", "?"))
    return f" {text} " if source.random() < 0.01 else text


def _typo(text: str, source: random.Random) -> str:
    """Doubles, drops or swaps a letter inside one word of five letters or more."""
    words = [match.span() for match in re.finditer(r"[^\W\d_]{5,}", text)]
    if not words:
        return text
    start, stop = source.choice(words)
    at = source.randrange(start + 1, stop - 1)
    kind = source.randrange(3)
    if kind == 0:
        return text[:at] + text[at] + text[at:]
    if kind == 1:
        return text[:at] + text[at + 1 :]
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
