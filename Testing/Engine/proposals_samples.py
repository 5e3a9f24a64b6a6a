"""Small proposals for the tests of `progidiff.proposals`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from progidiff.prompts.target import Target
from progidiff.proposals import NOWHERE, Proposal, Provenance, bounding_region
from progidiff.volumes.volume import Grid, axial_grid

LIVER = Target("liver", "liver", None, "liver", "the liver")
SPLEEN = Target("spleen", "spleen", None, "spleen", "the spleen")


def grid_of(shape: tuple[int, int, int], spacing: tuple[float, float, float] = (2.0, 2.0, 5.0)) -> Grid:
    return axial_grid(shape, spacing, np.array([10.0, -20.0, 300.0]))


def proposal_of(
    probability: NDArray,
    name: str = "liver 1",
    *,
    target: Target = LIVER,
    threshold: float = 0.5,
    grid: Grid | None = None,
    seed: int = 0,
    prompt: str = "segment the liver",
) -> Proposal:
    """A proposal cropped to where `probability` (I, J, K) is not zero, as the engine makes them."""
    probability = np.asarray(probability, np.float32)
    region = bounding_region(probability)
    return Proposal(
        name=name,
        target=target,
        grid=grid or grid_of(probability.shape),
        region=region if probability.any() else NOWHERE,
        probability_in_region=probability[region],
        provenance=Provenance(prompt, "embedded", "0123abcd", seed, 4, "cpu"),
        threshold=threshold,
    )


def ball(
    shape: tuple[int, int, int], center: tuple[float, float, float], radius: float
) -> NDArray[np.float32]:
    """Soft ball: 1 inside, 0 outside, a ramp of two voxels between."""
    index = np.indices(shape, np.float32)
    distance = np.sqrt(sum((index[a] - center[a]) ** 2 for a in range(3)))
    return np.clip((radius + 1.0 - distance) / 2.0, 0.0, 1.0).astype(np.float32)
