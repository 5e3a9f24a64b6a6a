"""The folder in which an adaptation keeps what it has got so far, so that a stopped one goes on from there.

`plan.json` marks such a folder; beside it lie checkpoints and measures. A folder without one belongs to
somebody else and is never touched. One process at a time works in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from progidiff.adaptation.case_library import StoredCase
from progidiff.adaptation.settings import CPU_MINUTES, GPU_MINUTES, AdaptSettings
from progidiff.atomic_files import LOCK, UNFINISHED, claimed, write_json
from progidiff.errors import OutputError

PLAN = "plan.json"
_STALE_SECONDS = 14 * 24 * 3600.0  # a cancelled adaptation is not waited for any longer


def seconds_of(settings: AdaptSettings, device: str) -> float:
    """The time an adaptation may take, in seconds."""
    return (settings.minutes or (CPU_MINUTES if device == "cpu" else GPU_MINUTES)) * 60


def digest_of(base_hash: str, settings: AdaptSettings, seconds: float, cases: Sequence[StoredCase]) -> str:
    """SHA-256 of what is learnt, from what and how: the same for an adaptation that may be continued."""
    described = {
        "base": base_hash,
        "settings": asdict(settings),
        "seconds": seconds,
        "cases": sorted(
            [case.id, case.modality, [[c.organ, c.mask_hash, c.slices] for c in case.organs.values()]]
            for case in cases
        ),
    }
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Holds a work folder, made if missing, for this process alone; one left empty goes.

    Raises:
        OutputError: it holds files that no adaptation has put there, or another process works in it.
        OSError: it cannot be made.
    """
    _require_ours(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with claimed(folder) as mine:
        if not mine:
            raise OutputError(
                f"Another adaptation is at work in {folder}.",
                "Wait until it has ended, or stop it; the same can then be started again.",
            )
        try:
            yield
        finally:
            if not _contents(folder):
                shutil.rmtree(folder, ignore_errors=True)
    if sys.platform == "win32":  # which does not delete a file that is held; one held by another stays
        with contextlib.suppress(OSError):
            if not _contents(folder):
                (folder / LOCK).unlink()
                folder.rmdir()


def open_plan(folder: Path, digest: str) -> dict[str, Any]:
    """The plan of an earlier, stopped adaptation of the same, or a new one in an emptied folder.

    Args:
        folder: held by `working_in`.
        digest: see `digest_of`.
    """
    found = _read_plan(folder)
    if found is not None and found["digest"] == digest:
        return found
    empty(folder)
    fresh = {"digest": digest, "seconds_used": 0.0, "steps": {}, "kept": {}, "losses": {}}
    write_json(folder / PLAN, fresh)
    return fresh


def empty(folder: Path) -> None:
    """Deletes what an adaptation has kept; the plan last, so that the rest is never without an owner."""
    for path in sorted(_contents(folder), key=lambda path: path.name == PLAN):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def remove_stale(place: Path, pattern: str) -> None:
    """Deletes the work folders of adaptations that nobody has continued for two weeks.

    Args:
        place: where they lie.
        pattern: of their names; others are left alone, as are those at work and those not ours.
    """
    for folder in place.glob(pattern):
        with contextlib.suppress(OSError, OutputError):
            if _read_plan(folder) and time.time() - (folder / PLAN).stat().st_mtime > _STALE_SECONDS:
                with working_in(folder):
                    empty(folder)


def _require_ours(folder: Path) -> None:
    if folder.is_dir() and _contents(folder) and _read_plan(folder) is None:
        raise OutputError(
            f"“{folder}” holds files that no adaptation has put there.",
            "Move or rename that folder, or choose another one for the adapter.",
        )


def _contents(folder: Path) -> list[Path]:
    """What lies in a folder, without the lock and half-written records."""
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.name != LOCK and not path.name.startswith(UNFINISHED)]


def _read_plan(folder: Path) -> dict[str, Any] | None:
    try:
        plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return plan if isinstance(plan, dict) and isinstance(plan.get("digest"), str) else None
