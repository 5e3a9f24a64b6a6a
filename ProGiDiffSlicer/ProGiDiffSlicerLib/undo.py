"""Takes back the last accept or merge."""

from __future__ import annotations

from collections.abc import Callable


class UndoStack:
    """What can be taken back, latest last."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], None]]] = []

    def push(self, what: str, take_back: Callable[[], None]) -> None:
        """`what` finishes the sentence "Undo …", such as "accepting pancreas"."""
        self._steps.append((what, take_back))

    def next_step(self) -> str:
        """What would be undone; empty when nothing can be."""
        return self._steps[-1][0] if self._steps else ""

    def undo(self) -> str:
        """Takes back the latest step and says which; one that cannot be taken back is dropped too.

        Raises:
            SegmentationError: what happened since makes it impossible.
        """
        what, take_back = self._steps.pop()
        take_back()
        return what

    def clear(self) -> None:
        self._steps.clear()
