"""Where bf16 is faster than fp32, and only there."""

from __future__ import annotations

import torch


def autocast(device: torch.device, wanted: bool = True) -> torch.autocast:
    """bf16 where the processor computes in it: half the time, the same masks.

    Args:
        device: where it is computed.
        wanted: False computes in fp32 everywhere.
    """
    fast = device.type == "cuda" or (device.type == "cpu" and cpu_has_bf16())
    half = wanted and fast
    return torch.autocast(device.type if half else "cpu", dtype=torch.bfloat16, enabled=half)


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bf16 in hardware; without, bf16 can be a hundred times slower."""
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe is not None and probe())
