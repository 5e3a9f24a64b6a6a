"""Kinds of command-line arguments that argparse checks by itself."""

from __future__ import annotations

import argparse
from pathlib import Path

from progidiff.paths import expanded


def some_path(text: str) -> Path:
    """A path with "~" expanded. An empty one, as an unset shell variable gives, would be this very folder."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return expanded(text)


def label_value(text: str) -> int:
    """The value of an organ in a label map; 0 is the background."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("the value of a label is 1 or more")
    return value
