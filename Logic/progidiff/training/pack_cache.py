"""Packed cases on disk: `CASE.json` describes `DOMAIN__CASE.….npy` and says what it was made from.

The arrays are mapped files: a process reads only the slices that it touches, and all processes share them in
the system's page cache. Each packing has a name of its own, because another run may be learning from the
former one, and Windows does not replace a mapped file.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import cache as once
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from progidiff.atomic_files import write_json
from progidiff.errors import OutputError
from progidiff.training.case import file_name
from progidiff.training.case_store import PackedCase

_ARRAYS = ("image", "label", "findings")
_OPEN_FILES = 10_000


def cached_case(cache: Path, case_id: str, mark: str, make: Callable[[], PackedCase]) -> PackedCase:
    """A case from the cache, where it is made first if need be.

    Args:
        cache: folder, created if need be.
        case_id: name of the case.
        mark: says what the case is made from; another one makes it anew.
        make: makes it.

    Raises:
        OutputError: the cache cannot be written.
    """
    name = file_name(case_id)
    return read_case(cache, name, mark) or write_case(cache, replace(make(), id=name), mark)


def read_case(cache: Path, name: str, mark: str | None = None) -> PackedCase | None:
    """The case if it is there, whole and made from just that; `mark` None takes what there is."""
    try:
        note = json.loads((cache / f"{name}.json").read_text(encoding="utf-8"))
        if mark is not None and note["made_from"] != mark:
            return None
        return _mapped(name, note, cache / Path(note["file"]).name)
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None  # missing or damaged: packed anew


def made_from(cache: Path, name: str) -> str:
    """The mark of what a case in the cache is made from, "" if it is not there."""
    try:
        return str(json.loads((cache / f"{name}.json").read_text(encoding="utf-8"))["made_from"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def write_case(cache: Path, case: PackedCase, mark: str) -> PackedCase:
    """Put a case into the cache.

    Returns:
        The same case with mapped arrays.

    Raises:
        OutputError: the cache cannot be written.
    """
    arrays = {name: array for name in _ARRAYS if (array := getattr(case, name)) is not None}
    file = cache / f"{case.domain}__{case.id}.{uuid.uuid4().hex[:8]}.npy"
    note = {
        "file": file.name,
        "made_from": mark,
        "domain": case.domain,
        "arrays": list(arrays),
        "spacing": case.spacing,
        "organs": case.organs,
        "annotated_findings": case.annotated_findings,
        "boxes": [(organ, low.tolist(), high.tolist()) for organ, (low, high) in case.boxes.items()],
    }
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _write_whole(file, np.stack(list(arrays.values())))
        _remove_former(cache, case.id)
        write_json(cache / f"{case.id}.json", note)
        return _mapped(case.id, note, file)
    except OSError as error:
        raise OutputError(
            f"{file} cannot be written ({error.strerror or error}).",
            "Free some space, or give another --cache.",
        ) from error


def _write_whole(file: Path, voxels: NDArray[np.uint8]) -> None:
    """Write an array whole or not at all."""
    partial = file.parent / f"partial-{os.getpid()}.npy"
    try:
        with partial.open("wb") as stream:
            np.save(stream, voxels, allow_pickle=False)
            stream.flush()
            os.fsync(stream.fileno())  # nobody reads it through to find what a power cut has left out
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _remove_former(cache: Path, name: str) -> None:
    """Runs that have mapped the file keep it: Windows does not remove it, elsewhere only its name goes."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        note = json.loads((cache / f"{name}.json").read_text(encoding="utf-8"))
        (cache / Path(note["file"]).name).unlink()


def _mapped(name: str, note: dict[str, Any], file: Path) -> PackedCase:
    _allow_many_open_files()
    voxels = np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
    arrays = dict(zip(note["arrays"], voxels, strict=True))
    k, j, i = note["spacing"]
    case = PackedCase(
        name,
        arrays.get("image"),
        arrays["label"],
        (k, j, i),
        tuple(note["organs"]),
        note["domain"],
        findings=arrays.get("findings"),
        annotated_findings=tuple(note["annotated_findings"]),
    )
    # Fills the cached property: to find the boxes again would read every slice of every case.
    vars(case)["boxes"] = {organ: (np.array(low), np.array(high)) for organ, low, high in note["boxes"]}
    return case


@once
def _allow_many_open_files() -> None:
    """A mapped file stays open, and macOS and Linux allow few of them until a process asks for more."""
    if sys.platform == "win32":
        return
    import resource

    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if most == resource.RLIM_INFINITY else min(_OPEN_FILES, most)
    if now != resource.RLIM_INFINITY and now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
