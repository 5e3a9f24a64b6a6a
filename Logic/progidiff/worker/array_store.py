"""The private directory through which arrays travel between worker and application."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
import tempfile
import uuid
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from progidiff.errors import OutputError, VolumeError

_DIRECTORY_NAME = re.compile(r"progidiff-worker-(\d+)-\w+")
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*\.npy")


class ArrayStore:
    """A directory only this user can enter, removed at the end.

    Both sides write a file under a temporary name and rename it, and delete what they have read.
    """

    def __init__(self) -> None:
        remove_stale_directories()
        self.directory = Path(tempfile.mkdtemp(prefix=f"progidiff-worker-{os.getpid()}-"))

    def write(self, array: NDArray) -> str:
        """Stores an array for the application and returns the file's name.

        Raises:
            OutputError: the disk is full or the directory is gone.
        """
        name = f"{uuid.uuid4().hex}.npy"
        unfinished = self.directory / f"{name}.part"
        try:
            with unfinished.open("xb") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
            unfinished.replace(self.directory / name)
        except OSError as error:
            raise OutputError(
                f"A result could not be written to {self.directory} ({error.strerror or error}).",
                "Free some space on the disk of temporary files and try again.",
            ) from error
        finally:
            unfinished.unlink(missing_ok=True)
        return name

    def read(self, name: str) -> NDArray:
        """Takes an array the application has left: its file is deleted, whether it could be read or not.

        Raises:
            VolumeError: the name is not one of a plain file in the directory, or it is not a .npy array.
        """
        path = self._inside(name)
        try:
            # Mapping checks the header against the file's length before any memory is claimed.
            mapped = np.lib.format.open_memmap(path, mode="r")
            array = np.array(mapped)
            del mapped
        except (OSError, ValueError, EOFError) as error:
            raise VolumeError(
                f"The array file {name} cannot be read ({error}).", "Send the volume again."
            ) from error
        finally:
            path.unlink(missing_ok=True)
        return array

    def _inside(self, name: str) -> Path:
        path = self.directory / name
        if not _FILE_NAME.fullmatch(name) or not _is_plain_file(path):
            raise VolumeError(
                f"There is no array file named {name[:80]!r} in the worker's directory.",
                "Write the .npy file into the directory that hello returned and pass its bare name.",
            )
        return path

    def close(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)


def _is_plain_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def remove_stale_directories() -> None:
    """Deletes what crashed workers of this user have left in the system's temporary folder."""
    for path in Path(tempfile.gettempdir()).glob("progidiff-worker-*"):
        match = _DIRECTORY_NAME.fullmatch(path.name)
        if match and _is_own_directory(path) and not _is_running(int(match[1])):
            shutil.rmtree(path, ignore_errors=True)


def _is_own_directory(path: Path) -> bool:
    """True for a real directory (no link) that belongs to this user."""
    try:
        status = path.lstat()
    except OSError:
        return False
    ours = sys.platform == "win32" or status.st_uid == os.getuid()
    return stat.S_ISDIR(status.st_mode) and ours


if sys.platform == "win32":

    def _is_running(pid: int) -> bool:
        """Whether the process exists; on Windows `os.kill` would end it instead of asking."""
        import ctypes

        synchronize = 0x00100000
        handle = ctypes.windll.kernel32.OpenProcess(synchronize, False, pid)
        if handle:
            ctypes.windll.kernel32.CloseHandle(handle)
        return bool(handle)

else:

    def _is_running(pid: int) -> bool:
        """Whether the process exists, even one of another user."""
        try:
            os.kill(pid, 0)
        except PermissionError:
            return True
        except (ProcessLookupError, OverflowError):
            return False
        return True
