"""What was typed becomes targets: organ, side, and the wording for the text encoder."""

from progidiff.prompts.organ_table import Organ, OrganTable, organ_table
from progidiff.prompts.target import Target

__all__ = ["Organ", "OrganTable", "Target", "organ_table"]
