"""A small client of the worker, standard library only: for tests, benchmarks and other programs.

The Slicer module has a client of its own on QProcess, which needs no threads.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any

OnNotification = Callable[[str, dict[str, Any]], None]


class RemoteError(Exception):
    """The worker answered with an error; `kind`, `remedy` and `traceback` are in `data`."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.code: int = error["code"]
        self.data: dict[str, Any] = error.get("data", {})


class WorkerGone(Exception):
    """The worker ended before it answered; the message has its exit code and last words."""


class WorkerClient:
    """Starts a worker and talks to it. Usable as a context manager.

    Args:
        command: how to start it; by default with this very interpreter.
        env: environment of the process, None for this one's.
        on_notification: called with (method, params) from the reading thread.
    """

    def __init__(
        self,
        command: Sequence[str] = (sys.executable, "-m", "progidiff.worker"),
        env: dict[str, str] | None = None,
        on_notification: OnNotification = lambda method, params: None,
    ) -> None:
        self._on_notification = on_notification
        self._lock = threading.Lock()
        self._waiting: dict[int, Future] = {}
        self._next_id = 0
        self._gone = False
        self.log: deque[str] = deque(maxlen=200)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(list(command), stdin=pipe, stdout=pipe, stderr=pipe, env=env)
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (self._read_log, self._read_messages)
        ]
        for thread in self._threads:
            thread.start()

    def request(self, method: str, **params: Any) -> Future:
        """Sends a request; the future gets the result, RemoteError or WorkerGone."""
        future: Future = Future()
        with self._lock:
            self._next_id += 1
            request_id = self._next_id
            self._waiting[request_id] = future
        message = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
        try:
            self.send_raw(json.dumps(message).encode() + b"\n")
        except OSError:
            self._fail_all()
        if self._gone:
            self._fail_all()
        return future

    def call(self, method: str, timeout: float = 60.0, **params: Any) -> Any:
        """Sends a request and waits for its result."""
        return self.request(method, **params).result(timeout)

    def send_raw(self, data: bytes) -> None:
        """Writes bytes as they are (tests send nonsense with it)."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def close(self, timeout: float = 10.0) -> int:
        """Closes the worker's stdin and waits for its end; kills it if it does not come."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # it may have ended already
            self.process.stdin.close()
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        for thread in self._threads:
            thread.join(timeout)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return code

    def __enter__(self) -> WorkerClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line.decode("utf-8", "replace").rstrip())

    def _read_messages(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            message = json.loads(line)
            if "method" in message:
                self._on_notification(message["method"], message["params"])
                continue
            with self._lock:
                future = self._waiting.pop(message["id"], None)
            if future is None:
                self._on_notification("error", message.get("error", {}))
            elif "error" in message:
                future.set_exception(RemoteError(message["error"]))
            else:
                future.set_result(message["result"])
        self._fail_all()

    def _fail_all(self) -> None:
        self._gone = True
        code = self.process.wait()
        last_words = " | ".join(list(self.log)[-3:])
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            future.set_exception(WorkerGone(f"The worker ended with code {code}. {last_words}".strip()))
