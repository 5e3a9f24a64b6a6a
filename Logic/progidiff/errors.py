"""The errors a user meets: each says in one sentence what happened and what to do.

Every foreseeable failure of the engine is a :class:`ProGiDiffError`. The command line prints
``message`` and ``remedy`` and exits with ``exit_code``; the worker sends the three fields to the
application; neither shows a traceback unless asked for one.
"""

from __future__ import annotations


class ProGiDiffError(Exception):
    """Base of all errors that are meant to be read by a user.

    Args:
        message: one sentence saying what happened, naming the file or value at fault.
        remedy: one sentence saying what to do about it.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    @property
    def kind(self) -> str:
        """Stable name of the error for programs, such as ``"PromptError"``."""
        return type(self).__name__

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class UsageError(ProGiDiffError):
    """An argument is out of range or contradicts another one."""

    exit_code = 2


class PromptError(UsageError):
    """The prompt names no structure, or none that is known."""


class FindingError(PromptError):
    """The prompt asks for a finding, such as a tumor, that this model does not draw but another one may."""


class VolumeError(ProGiDiffError):
    """The image cannot be read, or its voxels or geometry cannot be used."""


class ModelError(ProGiDiffError):
    """The model folder is missing, incomplete, unsafe, or does not fit."""


class AdapterError(ProGiDiffError):
    """The adapter is missing, malformed, or belongs to another base model."""


class DeviceError(ProGiDiffError):
    """The requested device does not exist or ran out of memory."""


class OutputError(ProGiDiffError):
    """The results cannot be written."""


class CasesError(ProGiDiffError):
    """The case library or training data is missing or unusable."""


class Cancelled(ProGiDiffError):
    """The user stopped the job; what had been finished is kept."""

    exit_code = 130
