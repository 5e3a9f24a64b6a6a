"""What `progidiff doctor` and the panel's self-check print. Works where torch is missing, too."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from typing import Any, NamedTuple

import progidiff
from progidiff.errors import ProGiDiffError
from progidiff.model_list import installed_models, weights_hash

GIB = 1 << 30
PACKAGES = ("diffusers", "transformers", "peft", "safetensors", "numpy", "scipy", "SimpleITK", "rapidfuzz")


class Finding(NamedTuple):
    """One line of the report; `ok` is False where something has to be mended."""

    name: str
    value: str
    ok: bool = True


def self_check() -> list[Finding]:
    """Looks at interpreter, packages, graphics card, memory, disk and models."""
    return [*_interpreter(), *_torch(), *_packages(), *_machine(), *_models()]


def _interpreter() -> Iterator[Finding]:
    yield Finding("ProGiDiff", progidiff.__version__)
    yield Finding("Python", f"{platform.python_version()} ({sys.executable})", sys.version_info >= (3, 10))
    yield Finding("System", platform.platform())


def import_torch() -> tuple[Any, str]:
    """(torch, "") or (None, why it cannot be imported): a broken install fails in many ways."""
    try:
        import torch
    except ModuleNotFoundError as error:
        return None, f"not installed ({error})" if error.name != "torch" else "not installed"
    except Exception as error:
        return None, f"installed but cannot be loaded ({error})"
    return torch, ""


def _torch() -> Iterator[Finding]:
    torch, problem = import_torch()
    if torch is None:
        yield Finding("torch", f"{problem}; install PyTorch to segment anything", False)
    else:
        yield Finding("torch", torch.__version__)
        yield from _cuda(torch)
        yield Finding("CPU precision", _cpu_precision())
    driver = nvidia_driver()
    yield Finding("NVIDIA driver", driver or "none found")


def _cuda(torch: Any) -> Iterator[Finding]:
    if torch.cuda.is_available():
        yield Finding("CUDA", str(torch.version.cuda))
        for gpu in cuda_devices(torch):
            yield Finding("GPU", f"{gpu[0]}, {gpu[1]:.1f} GiB")
    elif torch.version.cuda is None:
        wanted = "; a graphics card is present, so install the CUDA build" if nvidia_driver() else ""
        yield Finding("CUDA", f"this is PyTorch for the CPU only{wanted}", not wanted)
    else:
        yield Finding("CUDA", f"built for {torch.version.cuda}, but no usable card; the CPU will be used")


def _cpu_precision() -> str:
    from progidiff.pipelines.precision import cpu_has_bf16

    slow = "fp32; the processor does not compute in bf16 and is several times slower than one that does"
    return "bf16" if cpu_has_bf16() else slow


def cuda_devices(torch: Any) -> list[tuple[str, float]]:
    """(name, memory in GiB) of each graphics card torch can use."""
    if not torch.cuda.is_available():
        return []
    properties = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())]
    return [(p.name, p.total_memory / GIB) for p in properties]


def nvidia_driver() -> str:
    """Version of the NVIDIA driver, "" without one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip().partition("\n")[0]


def _packages() -> Iterator[Finding]:
    for name in PACKAGES:
        try:
            yield Finding(name, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, "not installed", False)


def _machine() -> Iterator[Finding]:
    yield Finding("Processor", f"{os.cpu_count()} cores, {platform.machine()}")
    total, free = memory()
    if total:
        yield Finding("Memory", f"{total / GIB:.1f} GiB, {free / GIB:.1f} GiB free", free > 2 * GIB)
    folder = tempfile.gettempdir()
    space = shutil.disk_usage(folder).free
    yield Finding("Temporary folder", f"{folder}, {space / GIB:.1f} GiB free", space > GIB)


def memory() -> tuple[int, int]:
    """(total, available) bytes of main memory; zeros where the system does not tell."""
    try:
        import psutil
    except ImportError:
        return _memory_by_sysconf()
    seen = psutil.virtual_memory()
    return seen.total, seen.available


def _memory_by_sysconf() -> tuple[int, int]:
    names = getattr(os, "sysconf_names", {})
    if not {"SC_PHYS_PAGES", "SC_AVPHYS_PAGES"} <= names.keys():
        return 0, 0
    page = os.sysconf("SC_PAGE_SIZE")
    return os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page


def _models() -> Iterator[Finding]:
    try:
        models = installed_models()
    except ProGiDiffError as error:
        yield Finding("Models", str(error), False)
        return
    if not models:
        yield Finding("Models", "none installed", False)
    for model in models:
        yield Finding("Model", f"{model.id} ({model.path}), hash {weights_hash(model.path)}")
