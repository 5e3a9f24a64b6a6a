"""Installs what the engine needs into Slicer's own Python, when the user says so."""

from __future__ import annotations

import importlib.metadata
import inspect
import shutil
import subprocess
import tempfile
from pathlib import Path

import slicer

from ProGiDiffSlicerLib.errors import SegmentationError
from ProGiDiffSlicerLib.launching import downloads_folder

TORCH_VERSION = ">=2.4"
# Without torch, which the PyTorch extension installs to suit the graphics card.
REQUIREMENTS = (
    "diffusers>=0.37",
    "transformers>=4.56",
    "peft>=0.17",
    "accelerate>=1.0",
    "safetensors>=0.4",
    "scipy>=1.11",
    "rapidfuzz>=3.0",
    "monai>=1.4",
    "einops>=0.6",
    "rich>=13",
    "matplotlib>=3.8",
    "pillow>=10",
)
# Bundled with Slicer: another version would break it or other extensions.
_KEEP_AS_THEY_ARE = ("numpy", "SimpleITK", "vtk", "scipy", "torch", "torchvision")
QUESTION = (
    "ProGiDiffSlicer will download and install PyTorch (through the PyTorch extension) and the packages\n"
    "{packages}\ninto Slicer's own Python. This takes some minutes and a few gigabytes of disk space.\n\n"
    "No image leaves this computer. Continue?"
)


def question() -> str:
    """What the user agrees to."""
    return QUESTION.format(packages=", ".join(r.split(">=")[0] for r in REQUIREMENTS))


def install() -> None:
    """Installs torch, then the other packages. Call it only after the user agreed.

    Raises:
        SegmentationError: what failed and what to do.
    """
    _install_torch()
    _install_packages()


def remove_downloads() -> int:
    """Deletes downloaded models and says how many megabytes that freed."""
    folder = downloads_folder()
    if not folder.is_dir():
        return 0
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file() and not f.is_symlink())
    try:
        shutil.rmtree(folder)
    except OSError as problem:
        raise SegmentationError(
            f"Some downloads in {folder} could not be deleted: {problem.strerror or problem}.",
            "Close other programs that use them and try again.",
        ) from problem
    return round(size / 1e6)


def _install_torch() -> None:
    try:
        import PyTorchUtils
    except ImportError as problem:
        raise SegmentationError(
            "PyTorch is installed through the PyTorch extension, which is missing.",
            "Install the PyTorch extension in the Extensions Manager, restart Slicer and press Install "
            "again; or choose another Python that has torch.",
            kind="MissingExtension",
        ) from problem
    logic = PyTorchUtils.PyTorchUtilsLogic()
    if logic.torchInstalled():
        return
    # Its keywords have changed between versions, so only those it knows are given.
    known = inspect.signature(logic.installTorch).parameters
    wanted = {"askConfirmation": False, "torchVersionRequirement": TORCH_VERSION}
    if logic.installTorch(**{k: v for k, v in wanted.items() if k in known}) is None:
        raise SegmentationError("PyTorch was not installed.", "Try again from the PyTorch Utils module.")


def _install_packages() -> None:
    with tempfile.TemporaryDirectory(prefix="ProGiDiffSlicer-") as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(_pins()), encoding="utf-8")
        try:
            _pip_install(str(constraints))
        except (subprocess.CalledProcessError, RuntimeError) as problem:
            raise SegmentationError(
                "The packages could not be installed.",
                "Look into the Python console for the reason: often a proxy, no network, or a full disk. "
                "On a computer without network choose another Python that has them.",
                kind="InstallFailed",
                details=str(problem),
            ) from problem


def _pip_install(constraints: str) -> None:
    """With Slicer's progress dialog where it has one, from 5.11 on."""
    try:
        from slicer import packaging
    except ImportError:
        slicer.util.pip_install([*REQUIREMENTS, "--constraint", constraints])
    else:
        packaging.pip_install(list(REQUIREMENTS), constraints=constraints, requester="ProGiDiffSlicer")


def _pins() -> list[str]:
    """Lines that keep what Slicer came with."""
    pins = []
    for name in _KEEP_AS_THEY_ARE:
        try:
            pins.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return pins
