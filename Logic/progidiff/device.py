"""Where to compute: what the user asks for, if this computer has it."""

from __future__ import annotations

import torch

from progidiff.errors import DeviceError


def choose_device(device: str) -> str:
    """ "auto", "cpu", "cuda" or "cuda:<n>" → a device that exists.

    Raises:
        DeviceError: it does not.
    """
    count = torch.cuda.device_count()
    if device == "auto":
        return "cuda:0" if count else "cpu"
    if device == "cpu":
        return device
    name, _, index = device.partition(":")
    if name != "cuda" or (index and not index.isdigit()):
        raise DeviceError(f"There is no device {device!r}.", "Use auto, cpu, cuda or cuda:<n>.")
    if int(index or 0) >= count:
        raise DeviceError(
            f"The device {device!r} was asked for, but this computer offers {count} CUDA GPUs.",
            "Use --device cpu, or install the CUDA build of PyTorch.",
        )
    return f"cuda:{index or 0}"
