"""The segmentation engine's process, spoken to in JSON-RPC 2.0 lines over its stdin and stdout."""

from __future__ import annotations

import collections
import json
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import qt

from ProGiDiffSlicerLib.errors import SegmentationError

_LOG = logging.getLogger("ProGiDiffSlicer")
_STOP_MILLISECONDS = 1500
Answered = Callable[[dict[str, Any]], None]
Failed = Callable[[SegmentationError], None]


@dataclass(frozen=True)
class Launch:
    """How to start the worker."""

    program: str
    arguments: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


class Worker:
    """One process. Requests are answered through callbacks on the main thread.

    Args:
        launch: how to start it.
        on_notice: called with (method, params) for each notification, such as progress.
        on_gone: called once with the error when the process ends without having been asked to.
    """

    def __init__(
        self, launch: Launch, on_notice: Callable[[str, dict[str, Any]], None], on_gone: Failed
    ) -> None:
        self.launch = launch
        self._on_notice, self._on_gone = on_notice, on_gone
        self._waiting: dict[int, tuple[Answered, Failed]] = {}
        self._next_id = 1
        self._unfinished_line = b""
        self._log_tail: collections.deque[str] = collections.deque(maxlen=60)
        self._stopping = False
        self.pid = 0  # the real interpreter, which may be a child of a launcher
        self._process = self._make_process()

    def _make_process(self) -> Any:
        process = qt.QProcess()
        environment = qt.QProcessEnvironment()
        for name, value in self.launch.environment.items():
            environment.insert(name, value)
        process.setProcessEnvironment(environment)
        process.connect("readyReadStandardOutput()", self._read_answers)
        process.connect("readyReadStandardError()", self._read_log)
        process.connect("finished(int,QProcess::ExitStatus)", self._on_finished)
        process.connect("errorOccurred(QProcess::ProcessError)", self._on_error)
        return process

    def start(self) -> None:
        self._process.start(self.launch.program, list(self.launch.arguments))

    def is_running(self) -> bool:
        return self._process is not None and self._process.state() != qt.QProcess.NotRunning

    def request(self, method: str, params: dict[str, Any], answered: Answered, failed: Failed) -> None:
        """Sends a request; exactly one of the two callbacks is called later."""
        number, self._next_id = self._next_id, self._next_id + 1
        self._waiting[number] = (answered, failed)
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        self._process.write(json.dumps(message).encode() + b"\n")

    def wait(self, milliseconds: int) -> None:
        """For scripts without an event loop: lets answers come in."""
        if self.is_running():
            self._process.waitForReadyRead(milliseconds)

    def stop(self) -> None:
        """Ends the process: it leaves by itself when its stdin closes, and is killed if it does not."""
        self._stopping = True
        self._waiting.clear()
        process, self._process = self._process, None
        if process is None or process.state() == qt.QProcess.NotRunning:
            return
        process.closeWriteChannel()
        if not process.waitForFinished(_STOP_MILLISECONDS):
            self._kill(process)

    def _kill(self, process: Any) -> None:
        """Killing a launcher would leave the interpreter behind it running, so that one goes first."""
        if self.pid:
            try:
                os.kill(self.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
            except OSError as problem:
                _LOG.info("The worker's interpreter was already gone: %s", problem)
        process.kill()
        process.waitForFinished(_STOP_MILLISECONDS)

    def _read_answers(self) -> None:
        if self._process is None:
            return
        self._unfinished_line += self._process.readAllStandardOutput().data() or b""
        *lines, self._unfinished_line = self._unfinished_line.split(b"\n")
        for line in lines:
            if not line.strip() or self._stopping:
                continue
            try:
                self._dispatch(line)
            except Exception:  # of whoever was told: the answers behind this one must still be read
                _LOG.exception("An answer of the engine could not be shown")

    def _dispatch(self, line: bytes) -> None:
        try:
            message = json.loads(line.decode("utf-8"))
            if not isinstance(message, dict):
                raise ValueError("not an object")
        except ValueError:
            self._log_tail.append(f"unreadable answer: {line[:200]!r}")
            self.give_up(
                SegmentationError(
                    "The segmentation engine sent an answer that cannot be read.",
                    "Press Propose again; the engine is restarted. "
                    "If it happens again, run the self-check in Setup.",
                    kind="BrokenAnswer",
                    details=self.log(),
                )
            )
            return
        if "method" in message:
            self._on_notice(message["method"], message.get("params") or {})
        elif message.get("id") in self._waiting:
            answered, failed = self._waiting.pop(message["id"])
            if "error" in message:
                failed(_error_of(message["error"]))
            else:
                answered(message.get("result") or {})

    def _read_log(self) -> None:
        if self._process is None:
            return
        text = (self._process.readAllStandardError().data() or b"").decode("utf-8", "replace")
        for line in text.splitlines():
            self._log_tail.append(line)
            _LOG.debug("worker: %s", line)

    def log(self) -> str:
        return "\n".join(self._log_tail)

    def _on_finished(self, exit_code: int, _status: Any) -> None:
        if self._stopping:
            return
        self._read_log()
        self.give_up(_death(exit_code, self.log(), self.launch.program))

    def _on_error(self, error: Any) -> None:
        if error == qt.QProcess.FailedToStart and not self._stopping:
            self.give_up(
                SegmentationError(
                    f"The Python interpreter {self.launch.program} could not be started.",
                    "Choose another one in Advanced, or clear the field to use Slicer's own.",
                    kind="InterpreterMissing",
                )
            )

    def give_up(self, error: SegmentationError) -> None:
        """Ends this worker once and tells everyone who waits."""
        if self._stopping:
            return
        waiting = list(self._waiting.values())
        process = self._process
        self.stop_quietly(process)
        for _answered, failed in waiting:
            failed(error)
        self._on_gone(error)

    def stop_quietly(self, process: Any) -> None:
        self._stopping = True
        self._waiting.clear()
        if process is not None and process.state() != qt.QProcess.NotRunning:
            self._kill(process)


def _error_of(error: dict[str, Any]) -> SegmentationError:
    data = error.get("data") or {}
    return SegmentationError(
        data.get("message") or error.get("message") or "The segmentation engine reported an error.",
        data.get("remedy", ""),
        kind=data.get("kind", "WorkerError"),
        details=data.get("traceback", ""),
    )


def _death(exit_code: int, log: str, program: str) -> SegmentationError:
    """Says why a worker ended, from the last thing it wrote."""
    # Earlier lines may warn of packages that are optional; a missing one is Python's last word, with code 1.
    last = [line for line in log.splitlines()[-3:] if "No module named" in line and exit_code == 1]
    if last:
        package = last[-1].split("No module named")[1].strip(" '\")")
        return SegmentationError(
            f"The Python interpreter {program} lacks the package {package}.",
            "Open Setup and press Install, or choose another interpreter in Advanced.",
            kind="MissingPackage",
            details=log,
        )
    if "MemoryError" in log or "Cannot allocate memory" in log:
        return SegmentationError(
            "The segmentation engine ran out of memory.",
            "Close other programs or crop the volume, then press Propose again.",
            kind="OutOfMemory",
            details=log,
        )
    return SegmentationError(
        f"The segmentation engine stopped unexpectedly (code {exit_code}).",
        "Proposals that had arrived are kept. Press Propose again; the engine is restarted.",
        kind="WorkerDied",
        details=log,
    )
