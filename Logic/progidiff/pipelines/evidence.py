"""Evidence: what the image says about a prompt before any mask is drawn."""

from __future__ import annotations

import torch
from torch import Tensor


def log_odds_evidence(organs: Tensor, choice: Tensor) -> Tensor:
    """The organ head's opinion of what the text chose.

    Args:
        organs: (B, 1 + organs, …) logits of the auxiliary all-organ head.
        choice: (B, 1 + organs) logits of a linear layer on the text: which of the organs is meant.

    Returns:
        (B, 1, …) float32 in (−1, 1): tanh of a quarter of the log odds that a pixel belongs to it.
    """
    weight = choice.float().softmax(1).view(*choice.shape, *(1 for _ in organs.shape[2:]))
    # No einsum: under autocast it would round to bf16, whose 1 − 10⁻⁴ is 1, and the log odds to infinity.
    probability = (organs.float().softmax(1) * weight).sum(1, keepdim=True)
    return torch.tanh(torch.logit(probability, eps=1e-4) / 4)


def evidence_logits(evidence: Tensor) -> Tensor:
    """The log odds that evidence stands for, for a loss on it."""
    return 4 * torch.atanh(evidence.clamp(-0.99, 0.99))
