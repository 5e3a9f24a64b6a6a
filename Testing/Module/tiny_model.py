"""The engine with a tiny, untrained model, for PROGIDIFF_SEGMENTER: its learning takes seconds and is real.

TINY_DISK is a number of bytes above which the operating system lets no file grow, as on a full disk.
"""

from __future__ import annotations

import os
import resource
from typing import Any

from adaptation_samples import SETTINGS, tiny_segmenter
from progidiff.adaptation import adapt
from progidiff.adaptation import settings as settings_file
from progidiff.training.phantom import make_phantom


def load(_model: str, _device: str) -> Any:
    settings_file.AdaptSettings = lambda **_: SETTINGS  # type: ignore[assignment, misc]
    adapt.make_phantom = lambda *_: make_phantom(1, "MR", (48, 48, 12), (7.0, 7.0, 14.0))  # type: ignore[assignment]
    if "TINY_DISK" in os.environ:
        most = int(os.environ["TINY_DISK"])
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    return tiny_segmenter()
