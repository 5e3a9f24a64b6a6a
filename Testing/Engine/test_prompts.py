"""Prompts as a clinician types them, and what must be refused."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from progidiff.errors import PromptError
from progidiff.prompts import complete, known_structures, organ_table, parse_prompt

KIDNEYS = ["right_kidney", "left_kidney"]
ADRENALS = ["right_adrenal_gland", "left_adrenal_gland"]
EVERYTHING = [organ.id for organ in organ_table()]

UNDERSTOOD = {
    "please segment both kidneys and the pancreas": [*KIDNEYS, "pancreas"],
    "segment the liver": ["liver"],
    "Could you outline the liver, the spleen & the stomach?": ["liver", "spleen", "stomach"],
    "aorta / esophagus; gall bladder": ["aorta", "esophagus", "gallbladder"],
    "Nieren, Milz und Nebennieren": [*KIDNEYS, "spleen", *ADRENALS],
    "foie et rate, l'aorte": ["liver", "spleen", "aorta"],
    "hígado y bazo, vesícula": ["liver", "spleen", "gallbladder"],
    "IVC and GB": ["inferior_vena_cava", "gallbladder"],
    "portal vein and splenic vein": ["portal_and_splenic_vein"],
    "portal and splenic vein and the aorta": ["portal_and_splenic_vein", "aorta"],
    "aorta, aorta and the aorta": ["aorta"],
    "left kidney and kidneys": ["left_kidney", "right_kidney"],
    "Lebersegmentierung": ["liver"],
    "Speiseroehre": ["esophagus"],
    "hepatic volume": ["liver"],
    "all of the liver": ["liver"],
    "CT ohne Kontrast: Leber": ["liver"],
    "portal venous phase CT, segment the pancreas": ["pancreas"],
    "segment the enlarged spleen of this 54 year old man": ["spleen"],
    "liver 🙂": ["liver"],
    "𝐋𝐢𝐯𝐞𝐫": ["liver"],
    "liver\nspleen": ["liver", "spleen"],
    "segment the liver and nothing else": ["liver"],
}
SIDES = {
    "kidney": KIDNEYS,
    "kidneys": KIDNEYS,
    "adrenals": ADRENALS,
    "left kidney": ["left_kidney"],
    "kidney, left": ["left_kidney"],
    "kidney (left)": ["left_kidney"],
    "L kidney": ["left_kidney"],
    "lt. kidney": ["left_kidney"],
    "renal left": ["left_kidney"],
    "left-sided kidney": ["left_kidney"],
    "the kidney on the left side": ["left_kidney"],
    "linke Niere": ["left_kidney"],
    "Niere links": ["left_kidney"],
    "rein gauche": ["left_kidney"],
    "riñón izquierdo": ["left_kidney"],
    "ren sinister": ["left_kidney"],
    "kidney_left": ["left_kidney"],
    "RightKidney": ["right_kidney"],
    "RK": ["right_kidney"],
    "rigth kidney": ["right_kidney"],
    "kidney on the lfet": ["left_kidney"],
    "left and right kidney": KIDNEYS,
    "kidneys: left and right": KIDNEYS,
    "rechte und linke Niere": KIDNEYS,
    "kidney left and right adrenal": ["left_kidney", "right_adrenal_gland"],
    "kidney left, adrenal right": ["left_kidney", "right_adrenal_gland"],
    "left kidney, right kidney": ["left_kidney", "right_kidney"],
    "rein gauche et rein droit": ["left_kidney", "right_kidney"],
    "right adrenal and liver": ["right_adrenal_gland", "liver"],
    "segment the left suprarenal gland right now": ["left_adrenal_gland"],
}
EXCEPTIONS = {
    "everything": EVERYTHING,
    "all organs": EVERYTHING,
    "alles": EVERYTHING,
    "everything except the liver": [organ for organ in EVERYTHING if organ != "liver"],
    "tout sauf le foie": [organ for organ in EVERYTHING if organ != "liver"],
    "alles außer Leber und Milz": [organ for organ in EVERYTHING if organ not in ("liver", "spleen")],
    "all but the kidneys": [organ for organ in EVERYTHING if organ not in KIDNEYS],
    "both kidneys but not the left one": ["right_kidney"],
    "everything without the left kidney": [organ for organ in EVERYTHING if organ != "left_kidney"],
    "the pancreas, not the liver": ["pancreas"],
    "not the liver but the spleen": ["spleen"],
    "don't segment the liver, segment the spleen": ["spleen"],
    "no, segment the liver": ["liver"],
}
TYPING_ERRORS = {
    "lvier": ["liver"],
    "livver": ["liver"],
    "spleeen": ["spleen"],
    "pancraes": ["pancreas"],
    "pancrease": ["pancreas"],
    "stomache": ["stomach"],
    "gallblader": ["gallbladder"],
    "esophogus": ["esophagus"],
    "kidnys": KIDNEYS,
    "inferior vena cavva": ["inferior_vena_cava"],
    "portel and splenic vein": ["portal_and_splenic_vein"],
    "segmnet: aotra": ["aorta"],
}
# prompt -> what the error must mention
REFUSED = {
    "segment the lung": "“lung”",
    "heart": "“heart”",
    "brain": "“brain”",
    "bone": "“bone”",
    "right lung": "“right lung”",
    "river": "“river”",
    "liver and lung": "“lung” is not",
    "liver lung": "“lung”",
    "liver, flurbinator and spleen": "“flurbinator”",
    "liver tumor": "draws organs only, not findings in them such as “liver tumor”",
    "liver and tumor": "in which organ to look for “tumor”",
    "hepatic vein": "“hepatic vein”",
    "gastric xyzzy": "“gastric xyzzy”",
    "superior vena cava": "inferior vena cava",
    "urinary bladder": "gallbladder",
    "spinal canal": "“spinal canal”",
    "incur": "“incur”",
    "andreas": "“andreas”",
    "livr": "Did you mean “liver”",
    "liver spleeeeeen": "Did you mean “spleen”",
    "head of the pancreas": "“head”",
    "hello world": "“world”",
    "all lungs": "“lungs”",
    "the left liver": "“left”",
    "please segment": "names no structure",
    "123": "names no structure",
    "🙂🙂": "names no structure",
    "not the liver": "leave out",
    "liver except the liver": "leaves out",
    "": "empty",
    " \t\n": "empty",
    "liver " * 500: "characters",
    "肝臓": "Known are: spleen, kidneys",
}


def organs_of(prompt: str) -> list[str]:
    return [target.organ for target in parse_prompt(prompt)]


@pytest.mark.parametrize(
    ("prompt", "organs"),
    [*UNDERSTOOD.items(), *SIDES.items(), *EXCEPTIONS.items(), *TYPING_ERRORS.items()],
)
def test_understood(prompt: str, organs: list[str]) -> None:
    assert organs_of(prompt) == organs


@pytest.mark.parametrize(("prompt", "mention"), REFUSED.items())
def test_refused_with_a_reason_and_a_remedy(prompt: str, mention: str) -> None:
    with pytest.raises(PromptError) as caught:
        parse_prompt(prompt)
    assert mention in str(caught.value)
    assert caught.value.remedy
    assert len(str(caught.value)) < 400


def test_a_prompt_that_is_no_text_is_refused() -> None:
    with pytest.raises(PromptError, match="not text"):
        parse_prompt(None)  # type: ignore[arg-type]


def test_unknown_beside_known_advises_to_leave_it_out() -> None:
    with pytest.raises(PromptError, match=r"“lung” is not.*Leave it out.*Known are"):
        parse_prompt("liver and lung")
    with pytest.raises(PromptError, match=r"“lung” and “heart” are not.*Leave them out"):
        parse_prompt("liver, lung and heart")


@pytest.mark.parametrize("organ", organ_table().organs, ids=lambda organ: organ.id)
def test_every_name_parses_to_its_organ(organ) -> None:
    for name in organ.names:
        assert organs_of(name) == [organ.id], name


@pytest.mark.parametrize("group", organ_table().groups, ids=lambda group: group.id)
def test_every_shared_name_parses_to_its_organs(group) -> None:
    for name in group.names:
        assert organs_of(name) == list(group.organs), name


def test_one_target_keeps_the_users_wording() -> None:
    (target,) = parse_prompt("  Please outline\tthe pancraes!  ")
    assert target.text == "Please outline the pancraes!"
    assert (target.phrase, target.name, target.side) == ("pancraes", "pancreas", None)


def test_several_targets_get_a_wording_each() -> None:
    texts = {target.organ: target.text for target in parse_prompt("linke Niere, IVC and both adrenals")}
    assert texts == {
        "left_kidney": "segment the linke Niere",
        "inferior_vena_cava": "segment the IVC",
        "right_adrenal_gland": "segment the right adrenal gland",
        "left_adrenal_gland": "segment the left adrenal gland",
    }


def test_phrases_are_the_words_of_the_prompt() -> None:
    targets = parse_prompt("show me the kidney (left) and adrenal glands")
    assert [target.phrase for target in targets] == ["kidney (left)", "adrenal glands", "adrenal glands"]
    assert [target.side for target in targets] == ["left", "right", "left"]


def test_what_is_left_out_does_not_reach_the_text_encoder() -> None:
    (target,) = parse_prompt("pancreas without the liver")
    assert target.text == "segment the pancreas"
    long_prompt = "pancreas, please, " + "very " * 60 + "much"
    assert parse_prompt(long_prompt)[0].text == "segment the pancreas"


def test_completion() -> None:
    assert complete("segment the panc")[0] == "segment the pancreas"
    assert complete("left k")[0] == "left kidney"
    assert complete("liver and Spl")[0] == "liver and spleen"
    assert complete("both ki")[0] == "both kidneys"
    assert "segment the liver" in complete("")
    assert "show the gallbladder" in complete("show the ")
    assert len(complete("s", limit=3)) == 3
    assert complete("xyz") == complete("🙂") == []


@pytest.mark.parametrize("prefix", ["s", "segment the l", "left a", "ri", "Ve", "rein "])
def test_completions_begin_with_what_was_typed_and_are_understood(prefix: str) -> None:
    completions = complete(prefix)
    assert completions
    for completion in completions:
        assert len(completion) > len(prefix)
        assert parse_prompt(completion)


def test_known_structures_name_pairs_once() -> None:
    assert known_structures()[:3] == ["spleen", "kidneys", "gallbladder"]
    assert len(known_structures()) == 11
    for name in known_structures():
        assert parse_prompt(name)


def test_parsing_loads_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from progidiff.prompts import parse_prompt; parse_prompt('liver'); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'SimpleITK')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


MIXED_WORDS = [
    *[
        "left",
        "right",
        "kidney",
        "kidneys",
        "adrenal",
        "liver",
        "hepatic",
        "vein",
        "portal",
        "splenic",
        "rein",
        "gauche",
    ],
    *[
        "and",
        ",",
        "(",
        ")",
        "-",
        "not",
        "except",
        "but",
        "all",
        "everything",
        "segment",
        "the",
        "Niere",
        "links",
    ],
    *["lung", "xyzzy", "7", "ö", "🙂"],
]
SINGLE_ORGANS = [(organ.id, name) for organ in organ_table() for name in organ.names]
LONG_WORDS = [
    (organ.id, name)
    for organ in organ_table()
    if organ.side is None
    for names in organ.synonyms.values()
    for name in names
    if name.isalpha() and name.isascii() and len(name) >= 5
]


@settings(max_examples=150, deadline=None)
@given(
    organ_and_name=st.sampled_from(SINGLE_ORGANS),
    case=st.sampled_from([str.lower, str.upper, str.title, str.swapcase]),
    before=st.sampled_from(["", " ", "segment the ", "please, ", "«", "1. ", "…", "\t\n"]),
    after=st.sampled_from(["", " ", "!", "?!", " please", ".\n", "»", " 🙂", "…"]),
    space=st.sampled_from([" ", "  ", "\t", "-", "_"]),
)
def test_case_punctuation_and_spaces_do_not_matter(organ_and_name, case, before, after, space) -> None:
    organ, name = organ_and_name
    assert organs_of(before + case(name).replace(" ", space) + after) == [organ]


@settings(max_examples=150, deadline=None)
@given(
    organ_and_name=st.sampled_from(LONG_WORDS),
    kind=st.sampled_from(["double", "drop", "swap", "replace"]),
    place=st.integers(0, 100),
    letter=st.sampled_from("abcdefghijklmnopqrstuvwxyz"),
)
def test_one_typing_error_never_gives_another_organ(organ_and_name, kind, place, letter) -> None:
    organ, name = organ_and_name
    at = 1 + place % (len(name) - 2)
    changed = {
        "double": name[:at] + name[at] + name[at:],
        "drop": name[:at] + name[at + 1 :],
        "swap": name[:at] + name[at + 1] + name[at] + name[at + 2 :],
        "replace": name[:at] + letter + name[at + 1 :],
    }[kind]
    try:
        found = organs_of(changed)
    except PromptError as error:
        common = name == organ_table().by_id(organ).name
        assert not common or len(changed) < 5 or kind == "replace", error
    else:
        assert found == [organ]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300))
def test_any_text_gives_targets_or_a_prompt_error(text: str) -> None:
    try:
        targets = parse_prompt(text)
    except PromptError as error:
        assert error.message
        assert error.remedy
    else:
        assert targets
        assert all(target.text for target in targets)
    assert isinstance(complete(text), list)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(MIXED_WORDS),
        max_size=25,
    ).map(" ".join)
)
def test_any_mixture_of_known_words_gives_targets_or_a_prompt_error(text: str) -> None:
    try:
        targets = parse_prompt(text)
    except PromptError as error:
        assert error.message
        assert error.remedy
    else:
        organs = [target.organ for target in targets]
        assert len(set(organs)) == len(organs) > 0
        assert all(target.phrase in text or target.phrase.strip() for target in targets)
