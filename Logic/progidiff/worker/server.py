"""Two threads: one reads requests and answers the quick ones, the other does the jobs in order."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from typing import Any

from progidiff.errors import ProGiDiffError
from progidiff.worker import adapt_methods, methods, steer_methods  # noqa: F401  (they fill the registry)
from progidiff.worker.array_store import ArrayStore
from progidiff.worker.channel import Channel
from progidiff.worker.protocol import (
    Request,
    RpcError,
    error_line,
    notification_line,
    parse_line,
    result_line,
)
from progidiff.worker.registry import Method, check_params, find_method
from progidiff.worker.session import Choice, Loader, Session

SECONDS_TO_STOP = 0.8
"""How long a running job gets to notice that the worker is leaving."""


class Server:
    """Serves one application over one channel until that closes.

    The main thread reads, because Python runs signal handlers there: so a signal, a closed pipe and
    a cancel are all noticed while torch is busy in the other thread.
    """

    def __init__(self, channel: Channel, load_segmenter: Loader, choice: Choice) -> None:
        self._channel = channel
        self._store = ArrayStore()
        self._session = Session(load_segmenter, self._store, self._notify, choice)
        self._queue: queue.SimpleQueue[tuple[Request, Method, dict[str, Any]] | None] = queue.SimpleQueue()
        self._job_thread = threading.Thread(target=self._do_jobs, name="jobs", daemon=True)
        channel.on_broken = self._leave

    def serve(self) -> None:
        """Reads requests until stdin closes or `shutdown` is asked for. Never returns."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._leave())
        self._job_thread.start()
        for line in self._channel.lines():
            if line is None or line.strip():
                request = self._receive(line)
                if request is not None and request.method == "shutdown":
                    break
        self._leave()

    def _leave(self) -> None:
        """Ends the process. Not by sys.exit, which would wait for a job that does not look up."""
        self._session.jobs.cancel_all()
        self._queue.put(None)
        if threading.current_thread() is not self._job_thread:
            self._job_thread.join(SECONDS_TO_STOP)
        self._store.close()
        sys.stderr.flush()
        os._exit(0)

    # -- reading thread ------------------------------------------------------------------------

    def _receive(self, line: bytes | None) -> Request | None:
        """Answers a request or passes it on to the job thread; returns it if it could be read."""
        try:
            request = parse_line(line)
        except RpcError as error:
            self._channel.send(error_line(error.request_id, error))
            return None
        try:
            method = find_method(request)
            params = check_params(method, request)
            if method.is_job:
                self._session.jobs.add(params["job_id"])
        except (RpcError, ProGiDiffError) as error:
            self._print_error(request, error)
            if request.wants_answer:
                self._channel.send(error_line(request.id, error))
            return None
        if method.at_once:
            self._call(request, method, params)
        else:
            self._queue.put((request, method, params))
        return request

    # -- job thread ----------------------------------------------------------------------------

    def _do_jobs(self) -> None:
        while (job := self._queue.get()) is not None:
            self._call(*job)

    # -- both ----------------------------------------------------------------------------------

    def _call(self, request: Request, method: Method, params: dict[str, Any]) -> None:
        """Runs a method and answers, whatever happens: one bad request must not end the worker."""
        try:
            line = result_line(request.id, method.call(self._session, **params))
        except BaseException as error:
            self._print_error(request, error)
            line = error_line(request.id, error)
        if method.is_job:
            self._session.jobs.finish(params["job_id"])
        if request.wants_answer:
            self._channel.send(line)

    def _print_error(self, request: Request, error: BaseException) -> None:
        print(f"{request.method} failed: {type(error).__name__}: {error}", file=sys.stderr)

    def _notify(self, method: str, params: dict[str, Any]) -> None:
        self._channel.send(notification_line(method, params))
