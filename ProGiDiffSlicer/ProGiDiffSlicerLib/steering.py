"""Orders to steer: proposals near a mask, or around what the expert has marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ProGiDiffSlicerLib.errors import SegmentationError
from ProGiDiffSlicerLib.job import Drawing, Job, job_on
from ProGiDiffSlicerLib.source_mask import SourceMask
from ProGiDiffSlicerLib.voxels import Voxels

VARY_STRENGTH, CONSTRAIN_STRENGTH = 0.5, 0.7


@dataclass(frozen=True)
class Marks:
    """What the expert marked.

    Attributes:
        inside: belongs to the organ.
        outside: does not.
        fixed: here the mask one starts from is finished and stays as it is.
    """

    inside: Sequence[Voxels] = ()
    outside: Sequence[Voxels] = ()
    fixed: Sequence[Voxels] = ()


def vary_job(
    volume: Any, source: SourceMask, strength: float, region: Voxels | None, drawing: Drawing
) -> Job:
    """Proposals near a mask.

    Args:
        strength: 0 gives almost the mask, 1 forgets it.
        region: only here anything may change; None for everywhere.
    """
    params = {"strength": float(strength), "prompt": source.prompt, **_region(region)}
    return job_on(volume, "vary", {"organ": source.organ, "parent": _parent(source), **params}, drawing)


def constrain_job(
    volume: Any,
    source: SourceMask | None,
    organ: str,
    marks: Marks,
    region: Voxels | None,
    drawing: Drawing,
    strength: float = CONSTRAIN_STRENGTH,
) -> Job:
    """Proposals that keep exactly to what was marked.

    Args:
        source: the mask to start from; None starts from a draft of the model's own.
        organ: id in the organ table, used without a source.

    Raises:
        SegmentationError: nothing is marked, or something is to stay as it is of nothing.
    """
    if not (marks.inside or marks.outside or marks.fixed or region):
        raise SegmentationError(
            "Nothing is marked yet.", "Mark what is inside or outside, what is finished, or where to work."
        )
    if marks.fixed and source is None:
        raise SegmentationError("A fresh draft has no finished part.", "Start from a proposal or a segment.")
    params = {
        "organ": source.organ if source else organ,
        "inside": list(marks.inside),
        "outside": list(marks.outside),
        "fixed": list(marks.fixed),
        "strength": float(strength),
        "prompt": source.prompt if source else "",
        **_region(region),
    }
    if source is not None:
        params["parent"] = _parent(source)
    return job_on(volume, "constrain", params, drawing)


def _parent(source: SourceMask) -> Voxels:
    return {**source.voxels, "name": source.name}


def _region(region: Voxels | None) -> dict[str, Voxels]:
    return {"region": region} if region else {}
