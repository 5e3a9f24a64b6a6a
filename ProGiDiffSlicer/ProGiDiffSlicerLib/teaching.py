"""Orders around learning: keep a checked mask as a case, and adapt the model to all cases."""

from __future__ import annotations

from typing import Any

from ProGiDiffSlicerLib.errors import SegmentationError
from ProGiDiffSlicerLib.job import Job
from ProGiDiffSlicerLib.organs import organs
from ProGiDiffSlicerLib.source_mask import SourceMask
from ProGiDiffSlicerLib.volume_image import VolumeImage

_STOP_SECONDS = 60  # a training step or a volume being read is finished first


def add_case_job(
    volume: Any, source: SourceMask, library: str, slices: tuple[int, int] | None = None, by: str = ""
) -> Job:
    """Copies volume and mask into a folder. It goes on when the scene is closed meanwhile.

    Args:
        library: folder of the cases, made if missing.
        slices: first and last that were really checked, both included, counted from 0 along the patient's
            long axis; None for all of them.
        by: who checked it.

    Raises:
        SegmentationError: the volume is empty or gone, or the mask shows a finding.
    """
    organ = organs().get(source.organ)
    if organ is not None and organ.within:
        raise SegmentationError(
            f"Organs can be taught, not findings such as {organ.name}.",
            "Choose a mask of an organ.",
        )
    ranges = None if slices is None else [[min(slices), max(slices) + 1]]
    params = {"library": library, "organ": source.organ, "mask": source.voxels, "slices": ranges, "by": by}
    image = VolumeImage.of(volume)
    return Job("cases_add", {**params, "source": image.name}, image, has_id=False)


def adapt_job(library: str, name: str = "", minutes: float | None = None) -> Job:
    """Learns from all cases of a folder; needs no scene.

    Args:
        name: of the adapter; "" takes the date.
        minutes: None for the engine's own idea.
    """
    params = {"library": library, "name": name, "minutes": minutes}
    return Job("adapt", params, cancel_seconds=_STOP_SECONDS)
