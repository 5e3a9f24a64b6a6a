"""What `proposals.json` says: the result in words and numbers."""

from __future__ import annotations

import platform
from dataclasses import asdict
from datetime import datetime, timezone
from importlib import metadata
from typing import Any

import progidiff
from progidiff.prompts.organ_table import organ_table
from progidiff.proposals.distinct import dice, same_as
from progidiff.proposals.proposal import Proposal, ProposalSet
from progidiff.proposals.result import SegmentationResult

SCHEMA = "progidiff-proposals-1"

_PACKAGES = ("numpy", "SimpleITK", "torch", "diffusers", "transformers")


def describe(result: SegmentationResult) -> dict[str, Any]:
    """The result without its voxels, ready for JSON.

    `input` names the DICOM series, if it was one; nothing else of a DICOM header is in it, since that
    may identify the patient. `organs` lists, in the order of the prompt, each organ's name, its `label` in
    the consensus map, whether it was found, a note for the user, and its proposals with score (expected
    Dice, see `proposals.ranking`), volume in ml, seed and Dice with each proposal of the list.
    """
    volume = result.volume
    return {
        "schema": SCHEMA,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "prompt": result.prompt,
        "input": {
            "name": volume.name,
            "path": volume.metadata.get("path", ""),
            "series_uid": volume.metadata.get("series", ""),
            "series_description": volume.metadata.get("description", ""),
            "modality": volume.modality,
            "shape": list(volume.shape),
            "spacing_mm": [round(float(edge), 6) for edge in volume.spacing],
            "affine_ras": volume.affine.tolist(),
        },
        "model_id": result.model_id,
        "model_hash": result.model_hash,
        "device": result.device,
        "seconds": {stage: round(seconds, 3) for stage, seconds in result.seconds.items()},
        "versions": _versions(),
        "organs": [_organ(group) for group in result.sets],
    }


def note_on(group: ProposalSet) -> str:
    """One sentence for the user: how many of an organ's proposals differ, or why there are none."""
    count = len(group.proposals)
    if not group.found:
        return group.reason
    if count == 1:
        return "One proposal."
    if group.distinct == count:
        return f"All {count} proposals differ."
    if group.distinct == 1:
        return f"All {count} proposals are the same."
    return f"{group.distinct} of {count} proposals differ."


def repeated_by(group: ProposalSet) -> list[str | None]:
    """For each proposal the name of the better one that it repeats, or None."""
    if group.pairwise_dice is None:
        return [None] * len(group.proposals)
    leaders = same_as(group.pairwise_dice)
    return [None if leader == n else group.proposals[leader].name for n, leader in enumerate(leaders)]


def _organ(group: ProposalSet) -> dict[str, Any]:
    target = group.target
    repeats = repeated_by(group)
    return {
        "organ": target.organ,
        "name": target.name,
        "label": organ_table().by_id(target.organ).label,
        "phrase": target.phrase,
        "found": group.found,
        "note": note_on(group),
        "distinct": group.distinct,
        "consensus": _numbers(group.consensus) if group.consensus else None,
        "proposals": [_proposal(group, n, repeats[n]) for n in range(len(group.proposals))],
    }


def _proposal(group: ProposalSet, index: int, repeats: str | None) -> dict[str, Any]:
    proposal = group.proposals[index]
    matrix = group.pairwise_dice
    with_consensus = dice(proposal, group.consensus) if group.consensus else 0.0
    return {
        "name": proposal.name,
        **_numbers(proposal),
        "seed": proposal.provenance.seed,
        "dice_to_consensus": round(with_consensus, 4),
        "pairwise_dice": [] if matrix is None else [round(float(value), 4) for value in matrix[index]],
        "same_as": repeats,
        "provenance": asdict(proposal.provenance),
    }


def _numbers(proposal: Proposal) -> dict[str, float]:
    return {
        "score": round(proposal.score, 4),
        "volume_ml": round(proposal.volume_ml, 3),
        "threshold": round(proposal.threshold, 4),
    }


def _versions() -> dict[str, str]:
    versions = {"progidiff": progidiff.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
