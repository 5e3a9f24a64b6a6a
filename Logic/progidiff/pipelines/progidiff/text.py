"""Prompt → tokens → embedding."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def encode_text(tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, prompts: list[str]) -> Tensor:
    """Embed prompts.

    Args:
        tokenizer, text_encoder: a CLIP pair.
        prompts: B strings; what exceeds the tokenizer's length is cut.

    Returns:
        (B, tokens, width) hidden states of every token.
    """
    tokens = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
    ids = tokens.input_ids.to(next(text_encoder.parameters()).device)
    return text_encoder(ids).last_hidden_state


def pooled(embedding: Tensor) -> Tensor:
    """(B, tokens, width) → (B, width): the mean over the tokens."""
    return embedding.mean(1)


def freeze(module: AnyModule) -> AnyModule:
    """Freeze a trained part: evaluation mode, no gradients to its parameters."""
    return module.eval().requires_grad_(False)
