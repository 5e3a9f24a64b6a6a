"""The methods of the worker; each signature is the schema of its parameters (see `registry`)."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Any

import numpy as np

import progidiff
from progidiff.errors import UsageError, VolumeError
from progidiff.worker.protocol import INVALID_PARAMS, PROTOCOL_VERSION, RpcError
from progidiff.worker.registry import method
from progidiff.worker.session import Choice, Session

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODALITIES = ("auto", "CT", "MR")


@method("hello")
def hello(session: Session) -> dict[str, Any]:
    """Who is there, where arrays go, and which models and devices there are."""
    from progidiff.self_check import cuda_devices, import_torch

    torch, problem = import_torch()
    cards = cuda_devices(torch) if torch else []
    return {
        "version": progidiff.__version__,
        "protocol": PROTOCOL_VERSION,
        "pid": os.getpid(),
        "directory": str(session.store.directory),
        "python": platform.python_version(),
        "torch": torch.__version__ if torch else "",
        "torch_problem": problem,
        "device": "cuda" if cards else "cpu",
        "cuda": bool(cards),
        "cuda_name": cards[0][0] if cards else "",
        "vram_gb": round(cards[0][1], 1) if cards else 0.0,
        "models": _models(),
    }


def _models() -> list[dict[str, Any]]:
    from progidiff.model_list import installed_models

    return [
        {
            "id": model.id,
            "path": str(model.path),
            "description": model.description,
            "findings": list(model.findings),
            "embedded": model.is_embedded,
        }
        for model in installed_models()
    ]


@method("doctor")
def doctor(session: Session) -> dict[str, Any]:
    """The self-check, line by line: [name, value, ok]."""
    from progidiff.self_check import self_check

    return {"lines": [list(finding) for finding in self_check()]}


@method("ping", at_once=True)
def ping(session: Session) -> dict[str, Any]:
    """Shows that the worker lives, also while a job runs."""
    return {}


@method("load_model")
def load_model(
    session: Session, *, model: str = "embedded", device: str = "auto", adapter: str = ""
) -> dict[str, Any]:
    """Loads a model now, so that the first prompt does not have to wait for it."""
    segmenter, seconds = session.load(Choice(model, device, adapter))
    return {
        "model_id": segmenter.model_id,
        "model_hash": segmenter.model_hash,
        "device": str(segmenter.device),
        "seconds": seconds,
        "default_steps": segmenter.default_steps,
    }


@method("open_volume")
def open_volume(
    session: Session,
    *,
    volume_id: str,
    array: str,
    affine: list,
    modality: str = "auto",
    name: str = "volume",
) -> dict[str, Any]:
    """Takes a volume from the private directory and computes its features once for all prompts."""
    import time

    from progidiff.volumes.volume import Volume

    start = time.monotonic()
    matrix = _affine(affine)
    if modality not in MODALITIES:
        raise UsageError(f"There is no modality {modality!r}.", f"Choose one of: {', '.join(MODALITIES)}.")
    voxels = session.store.read(array)
    if voxels.ndim != 3:
        raise VolumeError(
            f"The volume has {voxels.ndim} dimensions instead of three.", "Send one 3D scalar image."
        )
    prepared = session.open_volume(volume_id, Volume(voxels, matrix, name=name), modality)
    seconds = time.monotonic() - start
    return {"volume_id": volume_id, "modality": prepared.modality, "seconds": seconds}


def _affine(rows: list) -> NDArray[np.float64]:
    """Raises RpcError for anything but four rows of four finite numbers."""
    try:
        matrix = np.array(rows, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        matrix = np.zeros(0)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise RpcError(INVALID_PARAMS, "affine must be four rows of four finite numbers.")
    return matrix


@method("close_volume")
def close_volume(session: Session, *, volume_id: str) -> dict[str, Any]:
    """Forgets a volume and its features."""
    session.close_volume(volume_id)
    return {}


@method("segment")
def segment(
    session: Session,
    *,
    job_id: str,
    volume_id: str,
    prompt: str,
    proposals: int = 5,
    quality: str = "standard",
    steps: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Streams proposals for the organs of a prompt; `steps` overrides `quality`."""
    from progidiff.worker.segment_job import Order, SegmentJob

    return SegmentJob(session, Order(job_id, volume_id, prompt, proposals, quality, steps, seed)).run()


@method("cancel", at_once=True)
def cancel(session: Session, *, job_id: str) -> dict[str, Any]:
    """Asks a job to stop after the present step; `cancelled` is False if no such job is left."""
    return {"cancelled": session.jobs.cancel(job_id)}


@method("shutdown", at_once=True)
def shutdown(session: Session) -> dict[str, Any]:
    """Answered at once; the server then ends the process (as it does when stdin closes)."""
    session.jobs.cancel_all()
    return {}
