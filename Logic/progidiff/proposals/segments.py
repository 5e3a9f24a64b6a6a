"""Proposals as Slicer's segments: name, colour, terminology, provenance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from progidiff.prompts.organ_table import Organ, organ_table
from progidiff.proposals.palette import Color, proposal_color
from progidiff.proposals.proposal import Proposal, ProposalSet
from progidiff.proposals.segmentation_file import Segment

# Slicer's word for a segment that nobody has approved yet.
_STATUS = "inprogress"
_ORGANS_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
_FINDINGS_CONTEXT = "Segmentation category and type - DICOM master list"
_REGIONS_CONTEXT = "Anatomic codes - DICOM master list"


def segments_of(sets: Sequence[ProposalSet]) -> dict[str, Segment]:
    """Segments by id, consensus before proposals; a proposal without a voxel gives none."""
    segments: dict[str, Segment] = {}
    for group in sets:
        organ = organ_table().by_id(group.target.organ)
        listed: list[tuple[Proposal, Color]] = [(group.consensus, organ.color)] if group.consensus else []
        listed += [(proposal, proposal_color(rank)) for rank, proposal in enumerate(group.proposals)]
        for proposal, color in listed:
            if not proposal.is_empty:
                segment_id = _unused(proposal.name.replace(" ", "_"), segments)
                segments[segment_id] = Segment(
                    id=segment_id,
                    name=proposal.name,
                    color=color,
                    region=proposal.region,
                    mask=proposal.mask_in_region,
                    tags=segment_tags(proposal, organ),
                )
    return segments


def segment_tags(proposal: Proposal, organ: Organ) -> dict[str, str]:
    """Slicer's status and terminology, and how the mask was made as `ProGiDiff.…` tags."""
    facts = {"organ": organ.id, **asdict(proposal.provenance)}
    facts |= {"threshold": f"{proposal.threshold:.4f}", "score": f"{proposal.score:.4f}"}
    tags = {"Segmentation.Status": _STATUS, "TerminologyEntry": terminology_entry(organ)}
    return tags | {f"ProGiDiff.{key}": str(fact) for key, fact in facts.items() if fact is not None}


def terminology_entry(organ: Organ) -> str:
    """The codes of an organ, or of a finding and its organ, as Slicer's terminologies write them."""
    codes = organ.snomed
    what = [_code(codes.category), _code(codes.type), _code(codes.modifier)]
    if not organ.within:
        return "~".join([_ORGANS_CONTEXT, *what, "", "^^", "^^"])
    place = organ_table().by_id(organ.within).snomed
    return "~".join([_FINDINGS_CONTEXT, *what, _REGIONS_CONTEXT, _code(place.type), _code(place.modifier)])


def _code(code: Sequence[str] | None) -> str:
    return "^".join(code) if code else "^^"


def _unused(wanted: str, taken: dict[str, Segment]) -> str:
    candidate, number = wanted, 2
    while candidate in taken:
        candidate, number = f"{wanted}_{number}", number + 1
    return candidate
