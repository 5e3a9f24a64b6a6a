"""Proposals and proposal sets as they travel: JSON with the names of array files."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from progidiff.proposals import Proposal, ProposalSet, Region, dice
from progidiff.worker.array_store import ArrayStore


def to_bytes(probability: NDArray[np.floating], threshold: float | None = None) -> NDArray[np.uint8]:
    """[0, 1] → 0..255, with ``bytes > threshold * 255`` exactly where ``probability > threshold``."""
    rounded = np.rint(probability * 255.0)
    if threshold is not None:
        edge = np.floor(threshold * 255.0)
        inside = probability > threshold
        rounded = np.where(inside, np.maximum(rounded, edge + 1), np.minimum(rounded, edge))
    return np.clip(rounded, 0, 255).astype(np.uint8)


def region_json(region: Region) -> list[list[int]]:
    return [[int(side.start), int(side.stop)] for side in region]


def proposal_json(
    proposal: Proposal, proposal_id: str, store: ArrayStore, consensus: Proposal | None = None
) -> dict[str, Any]:
    """PROPOSAL of PROTOCOL.md; writes the probability as an array file.

    Raises:
        OutputError: the array cannot be written.
    """
    from progidiff.prompts import organ_table

    target = proposal.target
    message = {
        "proposal_id": proposal_id,
        "name": proposal.name,
        "organ": target.organ,
        "organ_name": target.name,
        "label": int(organ_table().by_id(target.organ).label),
        "region": region_json(proposal.region),
        "probability": store.write(to_bytes(proposal.probability_in_region, proposal.threshold)),
        "threshold": float(proposal.threshold),
        "score": float(proposal.score),
        "volume_ml": float(proposal.volume_ml),
        "provenance": asdict(proposal.provenance),
    }
    if consensus is not None:
        message["dice_to_consensus"] = float(dice(proposal, consensus))
    return message


def ranking_json(proposal: Proposal, proposal_id: str, consensus: Proposal | None) -> dict[str, Any]:
    """What became known of an already sent proposal once all of them were there."""
    return {
        "proposal_id": proposal_id,
        "name": proposal.name,
        "score": float(proposal.score),
        "dice_to_consensus": None if consensus is None else float(dice(proposal, consensus)),
    }


def set_json(found: ProposalSet, ids: list[str], consensus_id: str, store: ArrayStore) -> dict[str, Any]:
    """One entry of `sets`; `ids` belong to `found.proposals`, in that order."""
    consensus, agreement = found.consensus, found.agreement_in_region
    return {
        "organ": found.target.organ,
        "name": found.target.name,
        "found": bool(found.found),
        "reason": found.reason,
        "distinct": int(found.distinct),
        "pairwise_dice": [] if found.pairwise_dice is None else found.pairwise_dice.tolist(),
        "consensus": None if consensus is None else proposal_json(consensus, consensus_id, store),
        "agreement": None
        if consensus is None or agreement is None
        else {"region": region_json(consensus.region), "array": store.write(to_bytes(agreement))},
        "proposals": ids,
        "ranking": [
            ranking_json(proposal, proposal_id, consensus)
            for proposal, proposal_id in zip(found.proposals, ids, strict=True)
        ],
    }
