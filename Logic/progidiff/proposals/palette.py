"""Colours of the proposals: the same in the segmentation file and on the contact sheet."""

from __future__ import annotations

Color = tuple[int, int, int]

# Bright on grey images, and told apart with the commonest colour blindness (after Okabe and Ito).
_PROPOSALS: tuple[Color, ...] = (
    (86, 190, 255),
    (255, 176, 0),
    (0, 214, 143),
    (240, 120, 190),
    (250, 235, 80),
    (255, 100, 60),
    (150, 140, 255),
    (170, 225, 225),
)


def proposal_color(rank: int) -> Color:
    """Red, green, blue (0 to 255) of the proposal at place `rank`, 0 being the best."""
    return _PROPOSALS[rank % len(_PROPOSALS)]
