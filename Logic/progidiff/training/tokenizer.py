"""A small CLIP tokenizer whose words are those of organ prompts."""

from __future__ import annotations

import json

import numpy as np
from tokenizers import pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer

from progidiff.prompts import organ_table
from progidiff.prompts.phrasing import captions

TOKENS = 32  # prompts are short; longer ones are cut


def train_tokenizer(vocabulary: int = 1200, captions_per_organ: int = 1500, seed: int = 0) -> CLIPTokenizer:
    """Learn byte-pair merges from generated captions; any other word falls apart into known bytes.

    Args:
        vocabulary: number of tokens.
        captions_per_organ: size of the corpus.
        seed: seed of the captions.
    """
    rng = np.random.default_rng(seed)
    corpus = [c for organ in organ_table().organs for c in captions(organ, rng, captions_per_organ)]
    tokenizer = CLIPTokenizer()
    special = ["<|startoftext|>", "<|endoftext|>"]
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        end_of_word_suffix="</w>",
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend = tokenizer.backend_tokenizer
    backend.train_from_iterator(corpus, trainer)
    model = json.loads(backend.to_str())["model"]
    vocab = dict(model["vocab"])
    # Bytes that end a word are missing for letters the corpus never ended a word with.
    for letter in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocab.setdefault(f"{letter}</w>", len(vocab))
    merges = [tuple(pair.split(" ", 1)) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TOKENS)
