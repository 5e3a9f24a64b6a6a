"""Small proposals for the tests of `progidiff.proposals`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from progidiff.prompts.target import Target
from progidiff.proposals import (
    NOWHERE,
    Proposal,
    ProposalSet,
    Provenance,
    SegmentationResult,
    bounding_region,
    summarise,
)
from progidiff.volumes.volume import Grid, Volume, axial_grid

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


def oblique_grid(shape: tuple[int, int, int]) -> Grid:
    """A mirrored, turned, anisotropic grid with its slices along the first axis."""
    turn = np.deg2rad(20.0)
    rotation = np.array(
        [[np.cos(turn), -np.sin(turn), 0.0], [np.sin(turn), np.cos(turn), 0.0], [0.0, 0.0, 1.0]]
    )
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.array([[0.0, 1.5, 0.0], [0.0, 0.0, 2.0], [5.0, 0.0, 0.0]])
    affine[:3, 3] = [12.25, -30.5, 200.125]
    return Grid(shape, affine)


def group_of(target: Target, grid: Grid, arrays: Sequence[NDArray], prompt: str) -> ProposalSet:
    """Proposals "liver 1", "liver 2" … of one organ, summarised."""
    proposals = [
        proposal_of(array, f"{target.name} {n + 1}", target=target, grid=grid, seed=n, prompt=prompt)
        for n, array in enumerate(arrays)
    ]
    return summarise(target, grid, proposals)


def result_of(groups: list[ProposalSet], grid: Grid, prompt: str = "liver and spleen") -> SegmentationResult:
    """A result on a synthetic image whose grey rises along the third axis."""
    array = np.broadcast_to(np.linspace(-100, 200, grid.shape[2], dtype=np.float32), grid.shape).copy()
    volume = Volume(array, grid.affine, "CT", "phantom", {"path": "scans/phantom.nii.gz"})
    return SegmentationResult(volume, prompt, groups, "embedded", "0123abcd", "cpu", {"propose": 1.25})


def liver_and_spleen(grid: Grid, prompt: str = "liver and spleen") -> SegmentationResult:
    """Three livers that overlap, the third like the second, and two spleens that touch the livers."""
    shape = grid.shape
    livers = [ball(shape, c, 5) for c in [(8, 9, 5), (9, 9, 5), (9, 9, 5)]]
    spleens = [ball(shape, c, 3) for c in [(14, 9, 5), (15, 9, 5)]]
    groups = [group_of(LIVER, grid, livers, prompt), group_of(SPLEEN, grid, spleens, prompt)]
    return result_of(groups, grid, prompt)
