"""What can be evaluated: a segmenter that makes proposals, or a folder of finished label maps."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from progidiff.errors import CasesError
from progidiff.prompts.target import Target
from progidiff.proposals.proposal import Proposal, ProposalSet, Provenance
from progidiff.volumes.volume import Volume

if TYPE_CHECKING:
    from progidiff.segmenter import Segmenter


class Predictor(Protocol):
    """Anything that answers for an organ in an image.

    Attributes:
        deterministic: True when it gives label maps: one answer, no probabilities.
        findings: ids of what it draws besides organs, such as "liver_tumor".
    """

    model_id: str
    model_hash: str
    device: str
    deterministic: bool
    findings: tuple[str, ...]

    def prepare(self, case_id: str, image: Volume) -> Any: ...

    def propose(self, prepared: Any, target: Target, count: int) -> ProposalSet: ...


class SegmenterPredictor:
    """The engine itself, asked in its own words."""

    deterministic = False

    def __init__(self, segmenter: Segmenter, steps: int | None, seed: int) -> None:
        self.segmenter = segmenter
        self.steps = steps
        self.seed = seed
        adapter = f" with adapter {segmenter.adapter}" if segmenter.adapter else ""
        self.model_id = segmenter.model_id + adapter
        self.model_hash = segmenter.model_hash
        self.device = str(segmenter.device)
        self.findings = segmenter.findings

    def prepare(self, case_id: str, image: Volume) -> Any:
        return self.segmenter.prepare(image)

    def propose(self, prepared: Any, target: Target, count: int) -> ProposalSet:
        return self.segmenter.propose(
            prepared, target, proposals=count, steps=self.steps, seed=self.seed, prompt=target.phrase
        )


class LabelMapPredictor:
    """Finished label maps `CASE.nii.gz` with our organ numbers, made by any deterministic model.

    Args:
        folder: where the label maps lie.
        name: what the report calls the model; the folder's name if empty.

    Raises:
        CasesError: the folder holds no label map.
    """

    deterministic = True
    device = ""
    findings: tuple[str, ...] = ()

    def __init__(self, folder: Path, name: str = "") -> None:
        files = sorted(folder.rglob("*.nii.gz"))
        if not files:
            raise CasesError(
                f"{folder} holds no predictions.",
                "Give a folder of label maps named CASE.nii.gz after the cases.",
            )
        self.folder = folder
        self.model_id = name or folder.resolve().name
        digest = hashlib.sha256()
        for file in files:
            digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
        self.model_hash = digest.hexdigest()

    def has(self, case_id: str) -> bool:
        return (self.folder / f"{case_id}.nii.gz").is_file()

    def prepare(self, case_id: str, image: Volume) -> Volume:
        from progidiff.volumes import read_label

        if not self.has(case_id):
            raise CasesError(
                f"There is no prediction for {case_id} in {self.folder}.",
                f"Put {case_id}.nii.gz there, or leave the case out with --cases.",
            )
        labels = read_label(self.folder / f"{case_id}.nii.gz")
        if labels.shape != image.shape or not np.allclose(labels.affine, image.affine, atol=1e-2):
            raise CasesError(
                f"The prediction for {case_id} is not on the grid of its image.",
                "Write label maps with the image's own size, spacing, origin and direction.",
            )
        return labels

    def propose(self, prepared: Volume, target: Target, count: int) -> ProposalSet:
        from progidiff.prompts import organ_table

        mask = prepared.array == organ_table().by_id(target.organ).label
        whole = (slice(0, mask.shape[0]), slice(0, mask.shape[1]), slice(0, mask.shape[2]))
        proposal = Proposal(
            name=target.name,
            target=target,
            grid=prepared.grid,
            region=whole,
            probability_in_region=mask.astype(np.float32),
            provenance=Provenance(target.phrase, self.model_id, self.model_hash, 0, 0, ""),
            score=0.0,
        )
        return ProposalSet(
            target, prepared.grid, [proposal], consensus=proposal, distinct=1, found=bool(mask.any())
        )
