"""Makes the text encoder deaf to words it does not know, without changing what it says of those it knows.

The captions have a few hundred templates; users have any. Here unknown words are put between the known
ones, and the encoder learns to name the organ all the same, while its embeddings of plain captions stay
where the frozen generator expects them.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from progidiff.pipelines.progidiff.text import encode_text, freeze, pooled
from progidiff.training.generator import Captions
from progidiff.training.loop import Losses, Stage

_LETTERS = np.array(list("eeeaaiioounnrrsstttlldmcpghbvfkzwyéèäöüñ"))


def with_unknown_words(caption: str, rng: np.random.Generator, most: int = 4) -> str:
    """The caption between, before and after up to `most` made-up words."""
    words = caption.split()
    for _ in range(rng.integers(0, most + 1)):
        invented = "".join(rng.choice(_LETTERS, rng.integers(2, 10)))
        place = (
            len(words) if rng.random() < 0.3 else 0 if rng.random() < 0.6 else rng.integers(len(words) + 1)
        )
        words.insert(int(place), invented)
    return " ".join(words)


class WordingStage(Stage):
    """Names the organ through unknown words; keeps the embeddings of plain captions.

    Args:
        text_encoder: as the generator stage left it; trained further.
        tokenizer: its tokenizer.
        organs: number of organ classes.
    """

    def __init__(self, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, organs: int = 13) -> None:
        super().__init__()
        self.text_encoder, self.tokenizer = text_encoder, tokenizer
        self.before = freeze(copy.deepcopy(text_encoder))
        self.captions = Captions()
        self.labels = torch.tensor(sorted(self.captions.by_label))
        self.organ_head = nn.Linear(text_encoder.config.hidden_size, organs + 1)

    def forward(self, batch: int, rng: np.random.Generator) -> Losses:
        organs = self.labels[rng.integers(len(self.labels), size=batch)]
        plain = self.captions.draw(organs, rng)
        noisy = [with_unknown_words(c, rng) for c in plain]
        embedded = encode_text(self.tokenizer, self.text_encoder, plain + noisy).float()
        with torch.no_grad():
            before = encode_text(self.tokenizer, self.before, plain).float()
        named = self._organ_loss(embedded, organs.repeat(2))
        return {"named": named, "kept": F.mse_loss(embedded[:batch], before)}

    def _organ_loss(self, embedded: Tensor, organs: Tensor) -> Tensor:
        return F.cross_entropy(self.organ_head(pooled(embedded)), organs.to(embedded.device))
