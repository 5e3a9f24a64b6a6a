"""Captions for training and the held-out paraphrases."""

from __future__ import annotations

import random

import numpy as np
import pytest
from progidiff.errors import PromptError
from progidiff.prompts import organ_table, parse_prompt
from progidiff.prompts.organ_table import name_key
from progidiff.prompts.phrasing import captions, paraphrases

each_organ = pytest.mark.parametrize("organ", organ_table().organs, ids=lambda organ: organ.id)


@each_organ
def test_ten_different_paraphrases(organ) -> None:
    texts = paraphrases(organ)
    assert len({name_key(text) for text in texts}) == 10
    assert texts == paraphrases(organ.id)


@each_organ
def test_paraphrases_are_understood(organ) -> None:
    for text in paraphrases(organ):
        assert [target.organ for target in parse_prompt(text)] == [organ.id], text


@each_organ
def test_paraphrases_never_appear_among_the_captions(organ) -> None:
    held_out = {name_key(text) for text in paraphrases(organ)}
    assert held_out.isdisjoint(name_key(text) for text in captions(organ, random.Random(0), 5000))


def test_a_caption_that_equals_a_paraphrase_is_drawn_again(monkeypatch) -> None:
    sentences = iter([paraphrases("liver")[0], paraphrases("liver")[7].upper(), "the liver"])
    monkeypatch.setattr("progidiff.prompts.phrasing._sentence", lambda organ, source: next(sentences))
    assert [name_key(text) for text in captions("liver", random.Random(1), 1)] == ["theliver"]


@each_organ
def test_captions_name_their_organ(organ) -> None:
    """Captions with typing errors may be refused, but hardly any, and none is read as an unrelated organ."""
    refused = 0
    texts = captions(organ, random.Random(2), 300)
    for text in texts:
        try:
            assert organ.id in [target.organ for target in parse_prompt(text)], text
        except PromptError:
            refused += 1
    assert refused <= 0.02 * len(texts)


def test_captions_are_varied_and_repeatable() -> None:
    texts = captions("left_kidney", np.random.default_rng(7), 1000)
    assert len(texts) == 1000
    assert len(set(texts)) > 500
    assert texts == captions("left_kidney", np.random.default_rng(7), 1000)
    assert texts != captions("left_kidney", np.random.default_rng(8), 1000)
    joined = "\n".join(texts)
    for word in (
        "left kidney",
        "LEFT KIDNEY",
        "Niere",
        "rein gauche",
        "riñón",
        "ren sinister",
        "LK",
        "please",
        "?",
    ):
        assert word in joined, word


def test_successive_draws_differ() -> None:
    rng = np.random.default_rng(0)
    assert captions("aorta", rng, 20) != captions("aorta", rng, 20)
    assert captions("aorta", rng, 0) == []
