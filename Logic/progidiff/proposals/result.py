"""Everything one prompt gave on one volume."""

from __future__ import annotations

from dataclasses import dataclass, field

from progidiff.proposals.proposal import ProposalSet
from progidiff.volumes.volume import Volume


@dataclass
class SegmentationResult:
    """Answer to one prompt.

    Attributes:
        volume: the image that was asked about; every mask lies on its grid.
        prompt: what the user typed.
        sets: one for each organ of the prompt, in its order.
        model_id: name of the model, and `model_hash`, the SHA-256 of its weights.
        device: "cpu" or "cuda:0": where it really ran.
        seconds: wall time by stage, such as {"prepare": 1.2, "propose": 4.0}.
    """

    volume: Volume
    prompt: str
    sets: list[ProposalSet]
    model_id: str
    model_hash: str
    device: str
    seconds: dict[str, float] = field(default_factory=dict)
