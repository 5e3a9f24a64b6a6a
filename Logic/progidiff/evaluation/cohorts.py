"""Which cases may be averaged together, and who drew their labels."""

from __future__ import annotations

from dataclasses import dataclass

SYNAPSE_ORGANS = (
    "aorta",
    "gallbladder",
    "left_kidney",
    "right_kidney",
    "liver",
    "pancreas",
    "spleen",
    "stomach",
)


@dataclass(frozen=True)
class Cohort:
    """Cases of one origin.

    Attributes:
        name: heading in the report.
        labels_by: who or what made the reference labels.
    """

    name: str
    labels_by: str


_BY_CONSTRUCTION = "exact by construction (procedural anatomy, no patient)"
_KNOWN = {
    "btcv_": Cohort("BTCV CT", "drawn by hand (BTCV challenge, portal-venous abdominal CT)"),
    "chaos_t2_": Cohort("CHAOS T2-SPIR MR", "drawn by hand (CHAOS challenge)"),
    "totalseg_example": Cohort(
        "TotalSegmentator example CT", "output of TotalSegmentator's model, not hand-drawn"
    ),
}


def cohort_of(case_id: str, kind: str, modality: str, labels_by: str = "") -> Cohort:
    """The cohort of a case by its name; cases of unknown origin are grouped by modality.

    Args:
        labels_by: what the user said of the labels; wins over what is known by name.
    """
    if kind == "phantom":
        return Cohort(f"{modality} phantoms", _BY_CONSTRUCTION)
    if case_id.startswith("amos_"):  # CT and MR
        return Cohort(f"AMOS {modality}", labels_by or "drawn by hand (AMOS22 challenge)")
    known = next((cohort for prefix, cohort in _KNOWN.items() if case_id.startswith(prefix)), None)
    if known is None:
        return Cohort(f"Own {modality}", labels_by or "not stated")
    return Cohort(known.name, labels_by or known.labels_by)
