"""The words TextDiffSeg learns from: captions of organs and findings, and a small BERT vocabulary."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.trainers import WordPieceTrainer
from transformers import BertTokenizer

from progidiff.pipelines.textdiffseg.text import TOKENS
from progidiff.prompts import Organ, organ_table
from progidiff.training.generator import Captions

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_PER_ORGAN = 2000
_TEMPLATES = (
    "{n}", "the {n}", "segment the {n}", "segment {n}", "outline the {n}", "show me the {n}", "find the {n}",
    "mark {n}", "where is the {n}?", "delineate the {n} please", "please segment the {n}", "is there a {n}?",
    "contour of the {n}", "mask of the {n}", "{n} segmentation", "any {n}", "{n} on this scan",
    "I need the {n}", "can you see a {n}?", "highlight the {n} in this CT", "{n} volume", "extract {n}",
)  # fmt: skip


class Wording:
    """Captions by label number, of organs and of findings."""

    def __init__(self) -> None:
        self.by_label = {**Captions(_PER_ORGAN).by_label, **_finding_captions()}

    def draw(self, labels: torch.Tensor, rng: np.random.Generator) -> list[str]:
        """One caption for each label number (B,)."""
        return [self.by_label[int(n)][rng.integers(len(self.by_label[int(n)]))] for n in labels]


@cache
def _finding_captions(seed: int = 2) -> dict[int, list[str]]:
    rng = np.random.default_rng(seed)
    return {f.label: finding_captions(f, rng, _PER_ORGAN) for f in organ_table().findings}


def finding_captions(finding: Organ, rng: np.random.Generator, n: int) -> list[str]:
    """`n` varied prompts for a finding.

    Names without the side are left out where the finding has one: "kidney tumor" does not say which.
    """
    names = [name for name in finding.names if _says_side(finding, name)]
    usual = [finding.name] * len(names)
    chosen = rng.choice([*names, *usual], n)
    return [_TEMPLATES[rng.integers(len(_TEMPLATES))].format(n=name) for name in chosen]


def _says_side(finding: Organ, name: str) -> bool:
    other = {f.id: set(f.names) for f in organ_table().findings if f.side and f.id != finding.id}
    return finding.side is None or not any(name in names for names in other.values())


def train_bert_tokenizer(vocabulary: int = 1500, captions: Iterable[str] | None = None) -> BertTokenizer:
    """Learn WordPieces from the captions; any other word falls apart into letters.

    The same captions give the same numbers in every process: the trainer counts words in a random order and
    numbers letters inside words ("##a") as it meets them, so the letters get their numbers before.

    Args:
        vocabulary: number of tokens.
        captions: the corpus, by default all captions of organs and findings.
    """
    if captions is None:
        captions = (caption for texts in Wording().by_label.values() for caption in texts)
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    corpus = [backend.normalizer.normalize_str(caption) for caption in captions]
    met = set().union(*corpus) - {" "}
    letters = sorted(met.union(chr(n) for n in range(33, 127)))
    trainer = WordPieceTrainer(
        vocab_size=vocabulary,
        special_tokens=[*_SPECIAL, *letters, *(f"##{letter}" for letter in sorted(met))],
        show_progress=False,
    )
    backend.train_from_iterator(corpus, trainer)
    vocab = backend.get_vocab()
    for letter in letters:  # inside words too, so that no word is unknown
        vocab.setdefault(f"##{letter}", len(vocab))
    return BertTokenizer(vocab=vocab, model_max_length=TOKENS)
