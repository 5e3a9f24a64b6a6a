"""Tells "out of memory" apart from other failures, on every device and without importing torch."""

from __future__ import annotations

import gc
import sys

from progidiff.errors import DeviceError

# Of torch, of CUDA libraries, and of SimpleITK.
_WORDS = ("out of memory", "can't allocate memory", "ALLOC_FAILED", "Failed to allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """True for Python's MemoryError, torch's errors, and a DeviceError that speaks of memory.

    torch raises its OutOfMemoryError for the GPU but a bare RuntimeError where a CPU allocation or a
    CUDA library fails, as SimpleITK does, so the text decides there.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, DeviceError):
        return "memory" in str(error)
    text = str(error)
    return isinstance(error, RuntimeError) and any(words in text for words in _WORDS)


def release_memory() -> None:
    """Gives freed tensors back to the operating system and the GPU driver."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
