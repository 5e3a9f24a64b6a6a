"""What was typed becomes targets: organ, side, and the wording for the text encoder."""

from progidiff.prompts.completion import complete
from progidiff.prompts.organ_table import Group, Organ, OrganTable, organ_table
from progidiff.prompts.parse import known_structures, parse_prompt
from progidiff.prompts.target import Side, Target

__all__ = [
    "Group",
    "Organ",
    "OrganTable",
    "Side",
    "Target",
    "complete",
    "known_structures",
    "organ_table",
    "parse_prompt",
]
