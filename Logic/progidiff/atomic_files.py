"""Writing so that a file or folder is complete or not there, whatever happens in between."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from progidiff.errors import OutputError

UNFINISHED = ".unfinished-"  # how the name of what is half-written begins
LOCK = ".lock"
_ABANDONED_SECONDS = 24 * 3600.0  # what is older was left by a process that was killed


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replaces a JSON file atomically; the old one stays until the new one is on disk.

    Raises:
        OutputError: the disk is full or the folder cannot be written to.
    """
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """As `write_json`, for any text."""
    unfinished = path.parent / f"{UNFINISHED}{uuid.uuid4().hex}"
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Gives a folder to fill, which gets its name only when the block ends well.

    Raises:
        OutputError: `path` exists already, or the disk is full.
    """
    unfinished = path.parent / f"{UNFINISHED}{uuid.uuid4().hex}"
    try:
        if path.exists():
            raise OutputError(f"“{path}” exists already.", "Choose another name, or remove it first.")
        unfinished.mkdir(parents=True)
        yield unfinished
        unfinished.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    except OutputError as error:  # which names a file of the folder that is gone when it is read
        if isinstance(error.__cause__, OSError):
            raise _cannot_write(path, error.__cause__) from error
        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Deletes a folder; it disappears from its parent at once, however long its contents take.

    Raises:
        OutputError: it cannot be removed.
    """
    doomed = path.parent / f"{UNFINISHED}{uuid.uuid4().hex}"
    try:
        path.rename(doomed)
    except OSError as error:
        raise OutputError(
            f"“{path}” cannot be removed: {error.strerror or error}.", "Close what is using it and try again."
        ) from error
    shutil.rmtree(doomed, ignore_errors=True)


def remove_abandoned(folder: Path) -> None:
    """Deletes what killed processes have left unfinished in a folder, once it is a day old."""
    for path in folder.glob(f"{UNFINISHED}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def sync_folder(folder: Path) -> None:
    """Makes a rename survive a power cut; Windows has no such call and needs none."""
    if sys.platform != "win32":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a folder's lock, so that two processes do not rewrite one record at once.

    The operating system releases it when a process dies. Where the disk knows no locks (some network
    drives) the block runs without one.
    """
    with (folder / LOCK).open("a+b") as file:
        with contextlib.suppress(OSError):
            _lock(file.fileno())
        yield


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """As `locked`, but does not wait: gives False where another process holds the lock."""
    with (folder / LOCK).open("a+b") as file:
        free = True
        try:
            _lock(file.fileno(), wait=False)
        except (BlockingIOError, PermissionError):
            free = False
        except OSError:
            pass  # a disk that knows no locks
        # whoever held it may have deleted the folder meanwhile, and this file with it
        yield free and (folder / LOCK).is_file() and _same(file.fileno(), folder / LOCK)


def _same(handle: int, path: Path) -> bool:
    return os.path.samestat(os.fstat(handle), path.stat())


if sys.platform == "win32":

    def _lock(handle: int, wait: bool = True) -> None:
        import msvcrt

        os.lseek(handle, 0, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)

else:

    def _lock(handle: int, wait: bool = True) -> None:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"“{path}” cannot be written: {error.strerror or error}.",
        "Free some space or choose another folder; everything saved before is still there.",
    )
