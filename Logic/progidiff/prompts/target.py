"""What one prompt asks for: a list of organs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Side = Literal["left", "right"]


@dataclass(frozen=True)
class Target:
    """One structure to segment.

    Attributes:
        organ: the organ table's id, such as ``"right_kidney"``.
        name: what a clinician reads, such as ``"right kidney"``.
        side: "left", "right" or None.
        phrase: the words of the prompt that named it (typos included).
        text: what the text encoder is given: the user's own wording, limited to this organ.
    """

    organ: str
    name: str
    side: Side | None
    phrase: str
    text: str
