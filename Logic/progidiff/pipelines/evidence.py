"""Evidence: what the image says about a prompt before any mask is drawn."""

from __future__ import annotations

import torch
from torch import Tensor


def chosen_probability(organs: Tensor, choice: Tensor) -> Tensor:
    """The organ head's opinion of what the text chose.

    Args:
        organs: (B, 1 + organs, …) logits of the auxiliary all-organ head.
        choice: (B, 1 + organs) logits of a linear layer on the text: which of the organs is meant.

    Returns:
        (B, 1, …) float32 in [0, 1].
    """
    weight = choice.float().softmax(1).view(*choice.shape, *(1 for _ in organs.shape[2:]))
    # No einsum: under autocast it would round to bf16, whose 1 − 10⁻⁴ is 1, and the log odds to infinity.
    return (organs.float().softmax(1) * weight).sum(1, keepdim=True)


def evidence_of(probability: Tensor) -> Tensor:
    """Probabilities as networks see them: float32 in (−1, 1), tanh of a quarter of the log odds."""
    return torch.tanh(torch.logit(probability.float(), eps=1e-4) / 4)


def evidence_logits(evidence: Tensor) -> Tensor:
    """The log odds that evidence stands for, for a loss on it."""
    return 4 * torch.atanh(evidence.clamp(-0.99, 0.99))
