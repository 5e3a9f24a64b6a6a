"""Prompt → BERT → one vector a token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import BertModel, BertTokenizer

TOKENS = 32
"""Prompts are short; longer ones are cut."""


@dataclass(frozen=True)
class PromptTokens:
    """The embedded tokens of a batch of prompts, z_t in the paper.

    Attributes:
        states: (B, TOKENS, width); zero where a prompt has ended.
        mask: (B, TOKENS) bool, true tokens.
    """

    states: Tensor
    mask: Tensor

    @property
    def mean(self) -> Tensor:
        """(B, width): the mean over the true tokens."""
        return self.states.sum(1) / self.mask.sum(1, keepdim=True)


def encode_text(
    tokenizer: BertTokenizer, text_encoder: BertModel, prompts: list[str], enabled: bool = True
) -> PromptTokens:
    """Embed prompts.

    Args:
        tokenizer, text_encoder: a BERT pair.
        prompts: B strings.
        enabled: False gives zeros for every token: the model without text.
    """
    tokens = tokenizer(
        prompts, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
    ).to(text_encoder.device)
    mask = tokens.attention_mask.bool()
    states = text_encoder(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
    keep = mask if enabled else torch.zeros_like(mask)
    return PromptTokens(states * keep[..., None].to(states.dtype), mask)
