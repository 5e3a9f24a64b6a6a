"""Prompts with "all", "not" and "except": what is taken out, and what would surprise."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from progidiff.errors import PromptError
from progidiff.prompts import organ_table, parse_prompt

KIDNEYS = ["right_kidney", "left_kidney"]
ADRENALS = ["right_adrenal_gland", "left_adrenal_gland"]
EVERYTHING = [organ.id for organ in organ_table()]


def all_but(*left_out: str) -> list[str]:
    return [organ for organ in EVERYTHING if organ not in left_out]


ALL = {
    "all": EVERYTHING,
    "all organs": EVERYTHING,
    "everything": EVERYTHING,
    "segment all kidneys": KIDNEYS,
    "all of the kidneys": KIDNEYS,
    "all right kidney": ["right_kidney"],
    "all right-sided kidneys": ["right_kidney"],
    "all of the left kidney": ["left_kidney"],
    "whole right kidney": ["right_kidney"],
    "all right and left kidneys": KIDNEYS,
    "all right adrenal and left kidney": ["right_adrenal_gland", "left_kidney"],
    "all of the right kidney and all of the liver": ["right_kidney", "liver"],
    "all right, segment the kidneys": KIDNEYS,
    "all right segment the kidneys": KIDNEYS,
    "first of all, the liver": ["liver"],
    "alles klar, die Leber": ["liver"],
    "tout de suite le foie": ["liver"],
    "tout d'abord le foie, rien d'autre": ["liver"],
}
LEFT_OUT = {
    "all except left kidney and right adrenal": all_but("left_kidney", "right_adrenal_gland"),
    "except the liver, everything": all_but("liver"),
    "everything except: liver, spleen": all_but("liver", "spleen"),
    "everything (except lt. kidney and spleen)": all_but("left_kidney", "spleen"),
    "alles bis auf die Leber": all_but("liver"),
    "tout à l'exception du foie": all_but("liver"),
    "todo menos el hígado": all_but("liver"),
    "liver instead of spleen": ["liver"],
    "neither the liver nor the spleen but the pancreas": ["pancreas"],
    "neither the liver nor the spleen, only the pancreas": ["pancreas"],
    "nicht die Leber, nur die Milz": ["spleen"],
    "pas le foie, seulement la rate": ["spleen"],
    "no el hígado, solo el bazo": ["spleen"],
    "only the liver, not the spleen": ["liver"],
    "not the right but the left kidney": ["left_kidney"],
    "not the left kidney but the right one": ["right_kidney"],
    "the kidney that isn't the left one": ["right_kidney"],
    "segment the liver. No spleen. Pancreas too.": ["liver", "pancreas"],
    "nothing except the liver": ["liver"],
    "the liver, no spleen, and the pancreas": ["liver", "pancreas"],
    "the liver, but not the left kidney, and the pancreas": ["liver", "pancreas"],
    "kidneys, no liver, no left kidney, and the spleen": ["right_kidney", "spleen"],
    "both kidneys, not the left, and the liver": ["right_kidney", "liver"],
    "foie, pas de rate, et le pancréas": ["liver", "pancreas"],
    "everything, no liver, and spleen": all_but("liver", "spleen"),
    "all, except the liver, spleen, and pancreas": all_but("liver", "spleen", "pancreas"),
    "kidneys, without liver, spleen, and pancreas": KIDNEYS,
    "Leber, keine Milz": ["liver"],
    "foie, aucune rate": ["liver"],
}
NOT_LEFT_OUT = {
    "not only the liver but also the spleen": ["liver", "spleen"],
    "nicht nur die Nieren, sondern auch die Milz": [*KIDNEYS, "spleen"],
    "pas seulement le foie, mais aussi la rate": ["liver", "spleen"],
    "no solo el hígado, sino también el bazo": ["liver", "spleen"],
    "besides the liver, the spleen": ["liver", "spleen"],
    "kidneys, without iv contrast": KIDNEYS,
    "all kidneys, no rush": KIDNEYS,
}
# prompt -> what the error must mention
REFUSED = {
    "no organ at all": "names no structure",
    "none of the organs": "names no structure",
    "nothing": "names no structure",
    "at all": "names no structure",
    "not at all": "names no structure",
    "pas du tout": "names no structure",
    "keine Organe": "names no structure",
    "all right": "names no structure",
    "not all organs": "only says what to leave out",
    "not all kidneys": "only says what to leave out",
    "neither liver nor spleen": "only says what to leave out",
    "ni le foie ni la rate": "only says what to leave out",
    "weder Leber noch Milz": "only says what to leave out",
    "keine Leber": "only says what to leave out",
    "never the liver": "only says what to leave out",
    "everything except everything": "leaves out everything",
    "all except": "after “except”",
    "everything but not": "after “but”",
    "everything except the flurb": "after “except”",
    "left kidney yes, right kidney no": "after “no”",
    "liver: no, spleen": "after “no”",
    "everything, liver excluded": "after “excluded”",
    "the other kidney": "“other”",
}


def organs_of(prompt: str) -> list[str]:
    return [target.organ for target in parse_prompt(prompt)]


@pytest.mark.parametrize(("prompt", "organs"), [*ALL.items(), *LEFT_OUT.items(), *NOT_LEFT_OUT.items()])
def test_understood(prompt: str, organs: list[str]) -> None:
    assert organs_of(prompt) == organs


@pytest.mark.parametrize(("prompt", "mention"), REFUSED.items())
def test_refused_with_a_reason_and_a_remedy(prompt: str, mention: str) -> None:
    with pytest.raises(PromptError) as caught:
        parse_prompt(prompt)
    assert mention in caught.value.message
    assert caught.value.remedy


NAMES = {
    "liver": ["liver"],
    "die Leber": ["liver"],
    "the spleen": ["spleen"],
    "la rate": ["spleen"],
    "pancreas": ["pancreas"],
    "IVC": ["inferior_vena_cava"],
    "portal and splenic vein": ["portal_and_splenic_vein"],
    "both kidneys": KIDNEYS,
    "the left kidney": ["left_kidney"],
    "right adrenal gland": ["right_adrenal_gland"],
    "Nebennieren": ADRENALS,
    "estómago": ["stomach"],
}
NEGATIONS = (
    "except not without excluding minus neither never none|of apart|from with|the|exception|of instead|of "
    "ohne außer kein weder statt bis|auf sauf sans hormis à|part au|lieu|de excepto sin menos praeter"
)
names = st.lists(st.sampled_from(list(NAMES)), min_size=1, max_size=4, unique=True)
negations = st.sampled_from([words.replace("|", " ") for words in NEGATIONS.split()])
joined = st.sampled_from([", ", " and ", " & ", " / "])
everything = st.sampled_from(["everything", "all organs", "all", "every structure", "alles", "tout", "omnia"])


def meant(chosen: list[str]) -> set[str]:
    return {organ for name in chosen for organ in NAMES[name]}


@settings(max_examples=150, deadline=None)
@given(wanted=everything, negation=negations, unwanted=names, join=joined, comma=st.sampled_from([" ", ", "]))
def test_everything_except_some(
    wanted: str, negation: str, unwanted: list[str], join: str, comma: str
) -> None:
    assert organs_of(f"segment {wanted}{comma}{negation} {join.join(unwanted)}") == all_but(*meant(unwanted))


@settings(max_examples=150, deadline=None)
@given(
    wanted=names, negation=negations, unwanted=names, join=joined, but=st.sampled_from([" ", ", ", " but "])
)
def test_some_but_not_others(
    wanted: list[str], negation: str, unwanted: list[str], join: str, but: str
) -> None:
    prompt = f"{join.join(wanted)}{but}{negation} {join.join(unwanted)}"
    left = meant(wanted) - meant(unwanted)
    if left:
        assert set(organs_of(prompt)) == left
    else:
        with pytest.raises(PromptError, match="leaves out everything"):
            parse_prompt(prompt)


@settings(max_examples=100, deadline=None)
@given(negation=negations, unwanted=names, join=joined, before=st.sampled_from(["", "please ", "segment "]))
def test_only_negated_is_refused(negation: str, unwanted: list[str], join: str, before: str) -> None:
    with pytest.raises(PromptError, match="only says what to leave out"):
        parse_prompt(f"{before}{negation} {join.join(unwanted)}")


@settings(max_examples=100, deadline=None)
@given(
    quantity=st.sampled_from(
        ["all", "all of the", "the whole", "entire", "every", "each", "only the", "todo el"]
    ),
    side=st.sampled_from(["right", "left", "left-sided", "rt.", "linke"]),
    pair=st.sampled_from(
        [("kidney", "kidney"), ("kidneys", "kidney"), ("Niere", "kidney"), ("adrenals", "adrenal")]
    ),
    after=st.sampled_from(["", " please", " and the liver", ", but not the spleen"]),
)
def test_a_side_is_never_lost(quantity: str, side: str, pair: tuple[str, str], after: str) -> None:
    word, organ = pair
    first = organs_of(f"{quantity} {side} {word}{after}")[0]
    assert first.startswith(f"{'right' if side[0] == 'r' else 'left'}_{organ}")
    assert len(organs_of(f"{quantity} {side} {word}{after}")) == 1 + (after == " and the liver")


@settings(max_examples=100, deadline=None)
@given(
    idiom=st.sampled_from(["all right", "first of all", "alles klar", "after all", "no rush", "no problem"]),
    wanted=names,
    join=joined,
)
def test_idioms_change_nothing(idiom: str, wanted: list[str], join: str) -> None:
    assert organs_of(f"{idiom}, {join.join(wanted)}") == organs_of(join.join(wanted))
