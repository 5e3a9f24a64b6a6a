"""Several suggestions for one organ: ranked, compared, merged, and written to files."""

from progidiff.proposals.cleaning import keep_largest_components, tidy
from progidiff.proposals.consensus import agreement, best_threshold, consensus_of, expected_dice
from progidiff.proposals.contact_sheet import contact_sheet
from progidiff.proposals.distinct import SAME_DICE, count_distinct, dice, pairwise_dice, same_as
from progidiff.proposals.export import RESULT_FILES, write_results
from progidiff.proposals.merging import MERGE_METHODS, MergeMethod, merge
from progidiff.proposals.proposal import Proposal, ProposalSet, Provenance, Region
from progidiff.proposals.ranking import rank, summarise
from progidiff.proposals.regions import NOWHERE, bounding_region, union_region
from progidiff.proposals.result import SegmentationResult

__all__ = [
    "MERGE_METHODS",
    "NOWHERE",
    "RESULT_FILES",
    "SAME_DICE",
    "MergeMethod",
    "Proposal",
    "ProposalSet",
    "Provenance",
    "Region",
    "SegmentationResult",
    "agreement",
    "best_threshold",
    "bounding_region",
    "consensus_of",
    "contact_sheet",
    "count_distinct",
    "dice",
    "expected_dice",
    "keep_largest_components",
    "merge",
    "pairwise_dice",
    "rank",
    "same_as",
    "summarise",
    "tidy",
    "union_region",
    "write_results",
]
