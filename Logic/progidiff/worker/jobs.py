"""Which jobs are waiting or running, and which of them the user has cancelled."""

from __future__ import annotations

import threading

from progidiff.errors import UsageError


class Jobs:
    """Shared between the reading thread (adds, cancels) and the job thread (asks, finishes)."""

    def __init__(self) -> None:
        # Re-entrant, because a signal may cancel all while the reading thread is in here.
        self._lock = threading.RLock()
        self._cancelled: dict[str, threading.Event] = {}

    def add(self, job_id: str) -> None:
        """Raises UsageError for an id that is still in use."""
        with self._lock:
            if job_id in self._cancelled:
                raise UsageError(f"The job {job_id!r} is still running.", "Give every job a new id.")
            self._cancelled[job_id] = threading.Event()

    def cancel(self, job_id: str) -> bool:
        """Marks a job; False if it is not known, for instance because it has just finished."""
        with self._lock:
            event = self._cancelled.get(job_id)
            if event is not None:
                event.set()
            return event is not None

    def cancel_all(self) -> None:
        with self._lock:
            for event in self._cancelled.values():
                event.set()

    def is_cancelled(self, job_id: str) -> bool:
        with self._lock:
            event = self._cancelled.get(job_id)
        return event is not None and event.is_set()

    def finish(self, job_id: str) -> None:
        with self._lock:
            self._cancelled.pop(job_id, None)
