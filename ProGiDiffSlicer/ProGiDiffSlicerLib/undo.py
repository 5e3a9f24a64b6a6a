"""Takes back the last accept or merge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class UndoStack:
    """What can be taken back, latest last."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], None], Any]] = []

    def push(self, what: str, take_back: Callable[[], None], inside: Any = None) -> None:
        """`what` finishes the sentence "Undo …", such as "accepting pancreas".

        Args:
            inside: what the step goes with, see :meth:`forget`; None for a step that stands alone.
        """
        self._steps.append((what, take_back, inside))

    def next_step(self) -> str:
        """What would be undone; empty when nothing can be."""
        return self._steps[-1][0] if self._steps else ""

    def undo(self) -> str:
        """Takes back the latest step and says which; one that cannot be taken back is dropped too.

        Raises:
            SegmentationError: what happened since makes it impossible.
        """
        what, take_back, _inside = self._steps.pop()
        take_back()
        return what

    def forget(self, inside: Any) -> None:
        """Something has gone, and the steps inside it with it; the others can still be taken back."""
        self._steps = [step for step in self._steps if step[2] is not inside]

    def clear(self) -> None:
        self._steps.clear()
