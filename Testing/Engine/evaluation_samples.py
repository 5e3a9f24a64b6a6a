"""Tiny cases and a fake model for the tests of `progidiff.evaluation`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from progidiff.errors import VolumeError
from progidiff.prompts import organ_table, parse_prompt
from progidiff.prompts.target import Target
from progidiff.proposals import (
    NOWHERE,
    Proposal,
    ProposalSet,
    Provenance,
    SegmentationResult,
    bounding_region,
)
from progidiff.volumes.volume import Volume, axial_grid

SHAPE = (30, 28, 14)
GRID = axial_grid(SHAPE, (2.0, 2.0, 4.0), np.array([5.0, -10.0, 200.0]))


def box_mask(start: tuple[int, int, int], size: tuple[int, int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = True
    return mask


LIVER = box_mask((4, 6, 3), (12, 12, 8))
SPLEEN = box_mask((20, 14, 4), (6, 8, 5))


def label_of(masks: dict[str, NDArray[np.bool_]], findings: bool = False) -> NDArray[np.uint8]:
    """A later mask wins; without `findings` these count as their organ."""
    label = np.zeros(SHAPE, np.uint8)
    for structure, mask in masks.items():
        entry = organ_table().by_id(structure)
        label[mask] = (entry if findings or entry.within is None else organ_table().by_id(entry.within)).label
    return label


@dataclass
class TinyCase:
    """A labelled case in memory; `broken` cannot be read."""

    id: str
    masks: dict[str, NDArray[np.bool_]]
    organs: tuple[str, ...] = ("liver", "spleen", "gallbladder")
    broken: bool = False
    findings: tuple[str, ...] = ()

    def load(self, findings: bool = False) -> tuple[Volume, Volume]:
        if self.broken:
            raise VolumeError(f"{self.id} is damaged.", "Copy it again.")
        label = Volume(label_of(self.masks, findings), GRID.affine, "CT", self.id)
        return Volume(label.array.astype(np.float32), GRID.affine, "CT", self.id), label


def tiny_cases() -> list[TinyCase]:
    return [
        TinyCase("btcv_0001", {"liver": LIVER, "spleen": SPLEEN}),
        TinyCase("btcv_0002", {"liver": np.roll(LIVER, 2, axis=0), "spleen": SPLEEN}),
        TinyCase("btcv_0003", {"liver": LIVER, "spleen": np.roll(SPLEEN, -1, axis=1)}),
    ]


@dataclass
class FakeSegmenter:
    """Knows the truth (the image is the label map) and shifts it: proposal n by n − 1 voxels along i.

    So a proposal of the liver, 12 voxels wide, shifted by s has Dice (12 − s) / 12. What is not in the
    image is not found, except for organs in `invents`.
    """

    shifts: tuple[int, ...] = (-1, 0, 1)
    invents: tuple[str, ...] = ()
    stop_at: str = ""
    model_id: str = "fake"
    model_hash: str = "f" * 64
    device: str = "cpu"
    adapter: str = ""
    findings: tuple[str, ...] = ()
    asked: list[tuple[str, str, int]] = field(default_factory=list)

    def prepare(self, volume: Volume, modality: str = "auto") -> Volume:
        if volume.name == self.stop_at:
            raise KeyboardInterrupt
        return volume

    def propose(self, prepared: Volume, target: Target, proposals: int = 5, **options: object) -> ProposalSet:
        self.asked.append((prepared.name, target.text, proposals))
        mask = prepared.array == organ_table().by_id(target.organ).label
        if target.organ in self.invents:
            mask = box_mask((1, 1, 1), (3, 3, 3))
        if not mask.any():
            return ProposalSet(target, prepared.grid, found=False, reason="not in the field of view")
        shifted = [np.roll(mask, shift, axis=0).astype(np.float32) for shift in self.shifts[:proposals]]
        drawn = [
            proposal_of(m, target, 0.9 - 0.1 * abs(s)) for m, s in zip(shifted, self.shifts, strict=False)
        ]
        drawn.sort(key=lambda proposal: -proposal.score)
        mean = np.mean(shifted, axis=0).astype(np.float32)
        consensus = proposal_of(mean, target, 0.9)
        agreement = 1.0 - 4.0 * mean * (1.0 - mean)
        return ProposalSet(
            target,
            prepared.grid,
            drawn,
            consensus=consensus,
            agreement_in_region=agreement[consensus.region],
            distinct=len(drawn),
        )


class WholeFakeSegmenter(FakeSegmenter):
    """Answers `segment` as well: finds a block in the middle of any volume."""

    def segment(
        self,
        volume: Volume,
        prompt: str,
        proposals: int = 5,
        steps: int | None = None,
        on_proposal: Callable[[Proposal], None] | None = None,
    ) -> SegmentationResult:
        target = parse_prompt(prompt)[0]
        middle = tuple(slice(n // 3, 2 * n // 3) for n in volume.shape)
        inside = np.ones(tuple(s.stop - s.start for s in middle), np.float32)
        origin = Provenance(prompt, "fake", "f" * 64, 0, steps or 4, "cpu")
        drawn = [
            Proposal(f"{target.name} {n}", target, volume.grid, middle, inside, origin)
            for n in range(proposals)
        ]
        for proposal in drawn:
            if on_proposal is not None:
                on_proposal(proposal)
        found = ProposalSet(target, volume.grid, drawn)
        seconds = {"prepare": 0.25, "denoise": 0.5, "total": 0.75}
        return SegmentationResult(volume, prompt, [found], "fake", "f" * 64, "cpu", seconds)


def proposal_of(probability: NDArray[np.float32], target: Target, score: float) -> Proposal:
    region = bounding_region(probability) if probability.any() else NOWHERE
    return Proposal(
        name=target.name,
        target=target,
        grid=GRID,
        region=region,
        probability_in_region=probability[region],
        provenance=Provenance(target.phrase, "fake", "f" * 64, 0, 4, "cpu"),
        score=score,
    )


def write_labels(folder: Path, cases: list[TinyCase]) -> None:
    """Label maps of a perfect deterministic model."""
    from progidiff.volumes import write_volume

    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        write_volume(case.load()[1], folder / f"{case.id}.nii.gz")
