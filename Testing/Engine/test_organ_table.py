"""The organ table: fixed ids and labels, codes that exist, names that mean one thing."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations

import pytest
from progidiff.prompts import organ_table
from progidiff.prompts.organ_table import name_key, name_keys
from progidiff.resources import resources_folder

ORGANS_BY_LABEL = {
    1: "spleen",
    2: "right_kidney",
    3: "left_kidney",
    4: "gallbladder",
    5: "esophagus",
    6: "liver",
    7: "stomach",
    8: "aorta",
    9: "inferior_vena_cava",
    10: "portal_and_splenic_vein",
    11: "pancreas",
    12: "right_adrenal_gland",
    13: "left_adrenal_gland",
}
LABELS_OF_DATA_SETS = {
    "kidney_right": "right_kidney",
    "kidney_left": "left_kidney",
    "adrenal_gland_left": "left_adrenal_gland",
    "portal_vein_and_splenic_vein": "portal_and_splenic_vein",
    "inferior_vena_cava": "inferior_vena_cava",
    "postcava": "inferior_vena_cava",
    "arota": "aorta",
    "gall bladder": "gallbladder",
    "Right Kidney": "right_kidney",
    "right kidney": "right_kidney",
    "RightKidney": "right_kidney",
    "rkid": "right_kidney",
    "LKid": "left_kidney",
    "gall": "gallbladder",
    "eso": "esophagus",
    "sto": "stomach",
    "IVC": "inferior_vena_cava",
    "veins": "portal_and_splenic_vein",
    "portal vein and splenic vein": "portal_and_splenic_vein",
    "rad": "right_adrenal_gland",
    "LAG": "left_adrenal_gland",
    "left-adrenal-gland": "left_adrenal_gland",
    "Speiseroehre": "esophagus",
    "HÍGADO": "liver",
    "œsophage": "esophagus",
}
NOT_IN_TABLE = [
    "",
    "background",
    "kidney",
    "adrenal",
    "kidney_cyst_left",
    "urinary_bladder",
    "lung_upper_lobe_left",
    "superior_vena_cava",
    "pulmonary_vein",
    "liver tumor",
    "livre",
    "0",
]


def test_ids_and_labels_are_the_published_ones() -> None:
    table = organ_table()
    assert {organ.label: organ.id for organ in table} == ORGANS_BY_LABEL
    assert [organ.label for organ in table] == sorted(ORGANS_BY_LABEL)
    assert all(table.by_label(label) is table.by_id(organ) for label, organ in ORGANS_BY_LABEL.items())
    assert table.by_label(99) is None
    with pytest.raises(KeyError, match="lung"):
        table.by_id("lung")


def test_table_is_read_without_the_package() -> None:
    content = json.loads((resources_folder() / "organs.json").read_text(encoding="utf-8"))
    assert [organ["id"] for organ in content["organs"]] == list(ORGANS_BY_LABEL.values())


@pytest.mark.parametrize("organ", organ_table().organs, ids=lambda organ: organ.id)
def test_entry_is_complete(organ) -> None:
    assert set(organ.synonyms) == {"en", "la", "de", "fr", "es"}
    assert all(organ.synonyms.values())
    assert set(organ.with_article) == {"de", "fr", "es"}
    assert organ.name.replace(" ", "_") == organ.id
    assert organ.name == organ.synonyms["en"][0]
    assert len(organ.color) == 3
    assert all(0 <= channel <= 255 for channel in organ.color)
    assert all(10 <= extent <= 400 for extent in organ.typical_extent_mm)
    assert (organ.side in organ.name.split()) if organ.side else "left" not in organ.name


def test_colours_can_be_told_apart() -> None:
    for one, other in combinations(organ_table(), 2):
        difference = sum(abs(a - b) for a, b in zip(one.color, other.color, strict=True))
        assert difference >= 20, f"{one.id} and {other.id} look alike"


@pytest.mark.parametrize("organ", organ_table().organs, ids=lambda organ: organ.id)
def test_snomed_codes(organ) -> None:
    assert organ.snomed.category == ("SCT", "123037004", "Anatomical Structure")
    codes = [organ.snomed.category, organ.snomed.type]
    if organ.side:
        meaning, code = {"left": ("Left", "7771000"), "right": ("Right", "24028007")}[organ.side]
        assert organ.snomed.modifier == ("SCT", code, meaning)
        codes.append(organ.snomed.modifier)
    else:
        assert organ.snomed.modifier is None
    assert all(code.scheme == "SCT" and verhoeff_is_valid(code.code) for code in codes)


def test_only_the_two_of_a_pair_share_a_code() -> None:
    counts = Counter(organ.snomed.type.code for organ in organ_table())
    shared = {organ.id for organ in organ_table() if counts[organ.snomed.type.code] > 1}
    assert shared == {"right_kidney", "left_kidney", "right_adrenal_gland", "left_adrenal_gland"}


def test_every_name_means_one_organ_or_one_group() -> None:
    owners: dict[str, str] = {}
    table = organ_table()
    for item in table.groups:
        for key in {key for name in item.names for key in name_keys(name)}:
            assert owners.setdefault(key, item.id) == item.id
    for organ in table:
        for key in {key for name in organ.names_in_labels for key in name_keys(name)}:
            assert owners.setdefault(key, organ.id) == organ.id, f"{key} is ambiguous"
    assert "" not in owners


def test_groups_list_right_before_left() -> None:
    groups = {group.id: group.organs for group in organ_table().groups}
    assert groups["kidneys"] == ("right_kidney", "left_kidney")
    assert groups["adrenal_glands"] == ("right_adrenal_gland", "left_adrenal_gland")
    assert groups["all"] == tuple(ORGANS_BY_LABEL.values())


@pytest.mark.parametrize(("name", "organ"), LABELS_OF_DATA_SETS.items())
def test_labels_of_public_data_sets_are_found(name: str, organ: str) -> None:
    found = organ_table().by_name(name)
    assert found is not None
    assert found.id == organ


@pytest.mark.parametrize("name", NOT_IN_TABLE)
def test_other_labels_are_not_guessed(name: str) -> None:
    assert organ_table().by_name(name) is None


@pytest.mark.parametrize(
    ("file", "organs"),
    [("ct/btcv_labels.json", 13), ("ct/totalseg_labels.json", 13), ("labelmaps/flare22_labels.json", 12)],
)
def test_label_lists_of_the_real_cases(shared_data, file: str, organs: int) -> None:
    labels = json.loads((shared_data / file).read_text(encoding="utf-8"))
    found = [organ_table().by_name(name) for name in labels.values()]
    known = [organ.id for organ in found if organ]
    assert len(known) == len(set(known)) == organs


def test_key_ignores_case_accents_and_punctuation() -> None:
    assert name_key(" Riñón_Derecho! ") == name_key("RINON derecho") == "rinonderecho"
    assert name_key("🫀 ") == ""


def verhoeff_is_valid(code: str) -> bool:
    """The check digit of a SNOMED CT identifier, which catches mistyped digits (Verhoeff 1969)."""
    step = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]
    total, permutation = 0, list(range(10))
    for digit in reversed(code):
        total = _dihedral(total, permutation[int(digit)])
        permutation = [permutation[step[value]] for value in range(10)]
    return total == 0


def _dihedral(a: int, b: int) -> int:
    """Product in the symmetry group of the pentagon: 0-4 rotations, 5-9 reflections."""
    rotation = (a + b if a < 5 else a - b) % 5
    return rotation + 5 * ((a < 5) != (b < 5))


def test_check_digit_catches_an_error() -> None:
    assert verhoeff_is_valid("10200004")
    assert not verhoeff_is_valid("10200005")
    assert not verhoeff_is_valid("1020040")
