"""The error a user of the panel or of the scripting API meets."""

from __future__ import annotations


class SegmentationError(Exception):
    """Something a user can understand and act on.

    Attributes:
        message: one sentence saying what happened.
        remedy: one sentence saying what to do about it.
        kind: a stable name for programs, such as "PromptError" or "WorkerDied".
        details: what the worker wrote before it failed, for the log.
    """

    def __init__(
        self, message: str, remedy: str = "", kind: str = "SegmentationError", details: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.kind = kind
        self.details = details

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()
