"""Which organ a steered mask is to show, from its id and the user's own words."""

from __future__ import annotations

from dataclasses import replace

from progidiff.errors import UsageError
from progidiff.prompts import Target, organ_table, parse_prompt


def steered_target(organ_id: str, prompt: str = "") -> Target:
    """The target of one organ.

    Args:
        organ_id: id of the organ table, such as "right_kidney".
        prompt: words that name it, so that the model hears what it heard before; "" uses its name.

    Raises:
        UsageError: an id that is not in the table.
        PromptError: the prompt names no organ.
    """
    try:
        organ = organ_table().by_id(organ_id)
    except KeyError as error:
        raise UsageError(f"There is no organ {organ_id!r}.", "Use an id of the organ table.") from error
    findings = organ_table().finding_ids
    plain = parse_prompt(f"segment the {organ.name}", findings)[0]
    named = [t for t in parse_prompt(prompt, findings) if t.organ == organ_id] if prompt else []
    return named[0] if named else replace(plain, phrase=organ.name)
