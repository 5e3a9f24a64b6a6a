"""One suggested mask as the panel knows it, and how it is written into a segment's tags."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import vtk

_TAG = "ProGiDiff."
PROVENANCE = (
    "prompt", "model", "model_hash", "seed", "steps", "device", "adapter", "parent", "method", "strength",
    "constraints",
)  # fmt: skip
# What is to be the same for proposals to be the same. Not the prompt: it may name other organs besides.
_DRAWN_BY = ("model_hash", "adapter", "seed", "steps", "method", "parent", "strength", "constraints")
CONSENSUS, SAMPLED, MERGED, EDITED = "consensus", "sampled", "merged", "edited"


@dataclass
class Proposal:
    """A suggestion for one organ.

    Attributes:
        id: also the id of its segment in the proposals' segmentation node.
        organ: id in the organ table; `organ_name` is what people call it.
        kind: consensus, sampled, merged or edited.
        score: in [0, 1]: the Dice its mask can expect, higher is better.
        dice_to_consensus: overlap with the consensus in [0, 1]; None when there is none.
        region: box of the volume's (I, J, K) grid as [[i0, i1], [j0, j1], [k0, k1]].
        probability: uint8, shape of the region, 255 = certain; None after a scene was re-opened.
        threshold: probability in [0, 1] above which a voxel belongs to the mask.
        provenance: prompt, model, seed, steps, device, adapter, parent, method, strength, constraints.
        from_mask: the probability was read back from a mask and is only 0 or 255.
    """

    id: str
    name: str
    organ: str
    organ_name: str
    kind: str
    score: float
    volume_ml: float
    region: list[list[int]]
    probability: np.ndarray | None
    threshold: float = 0.5
    dice_to_consensus: float | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    from_mask: bool = False

    @classmethod
    def from_worker(
        cls, description: dict[str, Any], probability: np.ndarray, kind: str = SAMPLED
    ) -> Proposal:
        """From the worker's PROPOSAL object and the array it named."""
        return cls(
            id=str(description["proposal_id"]),
            name=str(description["name"]),
            organ=str(description["organ"]),
            organ_name=str(description.get("organ_name") or description["organ"]),
            kind=kind,
            score=float(description["score"]),
            volume_ml=float(description["volume_ml"]),
            region=[[int(a), int(b)] for a, b in description["region"]],
            probability=probability,
            threshold=float(description["threshold"]),
            dice_to_consensus=description.get("dice_to_consensus"),
            provenance=dict(description.get("provenance") or {}),
        )

    @property
    def is_steered(self) -> bool:
        """Made near a mask or around marks, not from a prompt alone."""
        return self.provenance.get("method") in ("varied", "constrained")

    def is_drawn_like(self, other: Proposal) -> bool:
        """Same organ, model, seed and so on: the same mask may have come of it."""
        one, two = (
            (p.kind, p.organ, *(_clean(p.provenance.get(name)) for name in _DRAWN_BY)) for p in (self, other)
        )
        return one == two

    @property
    def mask(self) -> np.ndarray:
        """(I, J, K) bool over the region."""
        if self.probability is None:
            raise ValueError(f"the probability of {self.name} was not kept")
        return self.probability > self.threshold * 255

    @property
    def has_probabilities(self) -> bool:
        """False also where a mask stands for the probability, as after a scene was re-opened."""
        return self.probability is not None and self.kind != EDITED and not self.from_mask

    def write_tags(self, segment: Any) -> None:
        """Everything but the voxels, so that a saved scene lists the proposal again."""
        kept = {
            "proposal": "1",
            "organ": self.organ,
            "organ_name": self.organ_name,
            "kind": self.kind,
            "score": f"{self.score:.4f}",
            "volume_ml": f"{self.volume_ml:.3f}",
            "threshold": f"{self.threshold:.4f}",
            "dice_to_consensus": "" if self.dice_to_consensus is None else f"{self.dice_to_consensus:.4f}",
            "region": json.dumps(self.region),
        }
        for name, value in kept.items():
            segment.SetTag(_TAG + name, _clean(value))
        for name in PROVENANCE:
            segment.SetTag(f"{_TAG}from.{name}", _clean(self.provenance.get(name, "")))

    @classmethod
    def from_segment(cls, segment_id: str, segment: Any) -> Proposal | None:
        """The proposal that a segment's tags describe; None for a segment that is not a proposal."""
        if _tag(segment, "proposal") != "1":
            return None
        agreement = _tag(segment, "dice_to_consensus")
        return cls(
            id=segment_id,
            name=segment.GetName(),
            organ=_tag(segment, "organ"),
            organ_name=_tag(segment, "organ_name"),
            kind=_tag(segment, "kind"),
            score=float(_tag(segment, "score") or 0),
            volume_ml=float(_tag(segment, "volume_ml") or 0),
            region=json.loads(_tag(segment, "region") or "[]"),
            probability=None,
            threshold=float(_tag(segment, "threshold") or 0.5),
            dice_to_consensus=float(agreement) if agreement else None,
            provenance=_provenance(segment),
        )


def copy_provenance(proposal: Proposal, segment: Any) -> None:
    """Writes where a mask came from into a segment that is not itself a proposal."""
    for name in PROVENANCE:
        segment.SetTag(f"{_TAG}from.{name}", _clean(proposal.provenance.get(name, "")))
    segment.SetTag(_TAG + "score", f"{proposal.score:.4f}")
    segment.SetTag(_TAG + "accepted_from", _clean(proposal.name))


def _clean(value: Any) -> str:
    """Segmentation files separate tags by a bar, so a value may not hold one."""
    return "" if value is None else str(value).replace("|", "/").replace("\n", " ")


def _tag(segment: Any, name: str) -> str:
    value = vtk.reference("")
    return str(value) if segment.GetTag(_TAG + name, value) else ""


def _provenance(segment: Any) -> dict[str, str]:
    return {name: _tag(segment, f"from.{name}") for name in PROVENANCE}
