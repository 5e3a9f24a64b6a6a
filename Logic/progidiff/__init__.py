"""ProGiDiff: text-prompted organ proposals on CT and MR by latent diffusion.

The engine behind the ProGiDiffSlicer extension. It knows neither Qt nor Slicer::

    import progidiff
    result = progidiff.segment("ct.nii.gz", prompt="segment the liver", output="out")

Importing this package is cheap: torch is imported only when a model is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "segment"]

if TYPE_CHECKING:
    from progidiff.segmenter import segment


def __getattr__(name: str) -> Any:
    if name == "segment":
        from progidiff.segmenter import segment

        return segment
    raise AttributeError(f"module 'progidiff' has no attribute {name!r}")
