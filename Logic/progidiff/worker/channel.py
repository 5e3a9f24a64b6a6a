"""The two pipes of the worker: whole lines in, whole lines out, and nothing else on them."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator

MAX_LINE = 1 << 20
"""Longest accepted request in bytes; arrays travel as files, so a longer line is a mistake."""


class Channel:
    """The worker's end of the two pipes.

    Args:
        input_fd: file descriptor to read requests from.
        output_fd: file descriptor to write messages to.
    """

    def __init__(self, input_fd: int, output_fd: int) -> None:
        self._input_fd = input_fd
        self._output = os.fdopen(output_fd, "wb")
        self._lock = threading.Lock()
        self.on_broken: Callable[[], None] = lambda: None

    def lines(self) -> Iterator[bytes | None]:
        """Yields each complete line without its newline, None for one that was too long.

        Ends when the other side closes the pipe; half a line before that is dropped.
        """
        buffer, skipping = bytearray(), False
        while chunk := os.read(self._input_fd, 1 << 16):
            buffer += chunk
            *complete, buffer = buffer.split(b"\n")
            for line in complete:
                yield None if skipping or len(line) > MAX_LINE else bytes(line)
                skipping = False
            if len(buffer) > MAX_LINE:
                skipping = True
                buffer.clear()

    def send(self, line: bytes) -> None:
        """Writes one line, whole even when several threads send; calls `on_broken` if nobody reads."""
        try:
            with self._lock:
                self._output.write(line + b"\n")
                self._output.flush()
        except OSError:
            self.on_broken()


def take_over_stdio() -> Channel:
    """Keeps the real stdin and stdout for the protocol and leaves harmless ones to everybody else.

    Works on the level of file descriptors, so that what C libraries and child processes print lands
    on stderr, and none of them reads a request away. Call it before importing anything that prints.
    """
    input_fd, output_fd = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.stdout.flush()
    os.dup2(2, 1)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    return Channel(input_fd, output_fd)
