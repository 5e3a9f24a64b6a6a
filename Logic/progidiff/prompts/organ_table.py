"""The table of known organs, `Resources/organs.json`: names, label values, colours and codes.

The file is plain JSON so that the Slicer module reads the very same one without this package.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from progidiff.prompts.target import Side
from progidiff.resources import resources_folder

FINDING_WORDS = """
    tumor tumour tumors tumours lesion lesions mass masses cancer carcinoma metastasis metastases neoplasm
"""
_LIGATURES = str.maketrans({"œ": "oe", "æ": "ae", "ø": "o"})


class Code(NamedTuple):
    """One coded concept, such as `("SCT", "10200004", "Liver")`."""

    scheme: str
    code: str
    meaning: str


@dataclass(frozen=True)
class Snomed:
    """SNOMED CT codes as DICOM and Slicer's terminologies want them; the modifier is the side."""

    category: Code
    type: Code
    modifier: Code | None


@dataclass(frozen=True)
class Organ:
    """One structure that can be segmented.

    Attributes:
        id: stable name for programs, such as `"right_kidney"`.
        name: what a clinician reads, such as `"right kidney"`.
        side: "left", "right" or None.
        label: its value in label maps, from 1.
        color: red, green and blue, 0 to 255.
        snomed: its codes.
        synonyms: names by language ("en", "la", "de", "fr", "es"), the commonest first.
        adjectives: words that stand for it in "splenic volume".
        abbreviations: such as `"IVC"`.
        with_article: the object of a German, French or Spanish sentence, such as `"den Magen"`.
        dataset_labels: names that only the label lists of public data sets use, such as `"postcava"`.
        typical_extent_mm: rough size in an adult, left-right, front-back and head-foot.
        several_pieces: whether its mask may well have gaps, as a long vessel's, or be many, as tumours'.
        within: of a finding, such as a tumour, the id of the organ it lies in; None for an organ.
    """

    id: str
    name: str
    side: Side | None
    label: int
    color: tuple[int, int, int]
    snomed: Snomed
    synonyms: Mapping[str, tuple[str, ...]]
    adjectives: tuple[str, ...]
    abbreviations: tuple[str, ...]
    with_article: Mapping[str, str]
    dataset_labels: tuple[str, ...]
    typical_extent_mm: tuple[float, float, float]
    several_pieces: bool
    within: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All that a prompt may call it, without repetition."""
        by_language = [name for names in self.synonyms.values() for name in names]
        return tuple(dict.fromkeys([self.name, *by_language, *self.adjectives, *self.abbreviations]))

    @property
    def names_in_labels(self) -> tuple[str, ...]:
        """All that the label list of a data set may call it."""
        return (*self.names, self.id, *self.dataset_labels)


@dataclass(frozen=True)
class Group:
    """Several organs that share a name, such as the kidneys; `organs` are ids, right before left."""

    id: str
    name: str
    organs: tuple[str, ...]
    synonyms: Mapping[str, tuple[str, ...]]
    adjectives: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All that a prompt may call it, without repetition."""
        by_language = [name for names in self.synonyms.values() for name in names]
        return tuple(dict.fromkeys([*by_language, *self.adjectives]))


@dataclass(frozen=True)
class OrganTable:
    """The organs in the order of their labels, the names they share, and what may be found in them.

    Going through the table gives the organs. Findings are asked for by id; only some models know them.
    """

    organs: tuple[Organ, ...]
    groups: tuple[Group, ...]
    findings: tuple[Organ, ...] = ()
    _organ_by_key: Mapping[str, Organ] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        index = {
            key: organ for organ in self.organs for name in organ.names_in_labels for key in name_keys(name)
        }
        object.__setattr__(self, "_organ_by_key", index)

    def __iter__(self) -> Iterator[Organ]:
        return iter(self.organs)

    def __len__(self) -> int:
        return len(self.organs)

    @property
    def finding_ids(self) -> tuple[str, ...]:
        """The ids of all findings."""
        return tuple(finding.id for finding in self.findings)

    def by_id(self, organ_id: str) -> Organ:
        """The organ, or finding, with this id.

        Raises:
            KeyError: there is none.
        """
        for organ in (*self.organs, *self.findings):
            if organ.id == organ_id:
                return organ
        raise KeyError(f"no organ has the id {organ_id!r}")

    def by_label(self, label: int) -> Organ | None:
        """The organ, or finding, with this value in label maps, or None."""
        return next((organ for organ in (*self.organs, *self.findings) if organ.label == label), None)

    def by_name(self, name: str) -> Organ | None:
        """The organ with this name in any language or data set, or None.

        Case, accents, spaces, underscores and punctuation do not matter; anything else does: "kidney"
        without a side and "kidney cyst left" are no organ of the table.
        """
        return self._organ_by_key.get(name_key(name))


@lru_cache(maxsize=4096)
def name_key(name: str) -> str:
    """Only the letters and digits of a name, in lower case and without accents."""
    folded = unicodedata.normalize("NFKD", name).casefold().translate(_LIGATURES)
    return "".join(character for character in folded if character.isalnum())


def name_keys(name: str) -> tuple[str, ...]:
    """The keys of a name: with umlauts as plain vowels, and as they are typed on other keyboards ("oe")."""
    spelled_out = name.casefold().replace("ä", "ae").replace("ö", "oe").replace("ü", "ue")
    return tuple(dict.fromkeys([name_key(name), name_key(spelled_out)]))


@lru_cache(maxsize=1)
def organ_table() -> OrganTable:
    """The organ table of this installation.

    Raises:
        ModelError: the Resources folder is missing.
    """
    return read_organ_table(resources_folder() / "organs.json")


def read_organ_table(path: Path) -> OrganTable:
    """Reads an organ table from its JSON file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    organs = sorted((_organ(entry) for entry in content["organs"]), key=lambda organ: organ.label)
    groups = tuple(_group(entry) for entry in content["groups"])
    by_id = {organ.id: organ for organ in organs}
    findings = (_finding(entry, by_id[entry["within"]], groups) for entry in content.get("findings", ()))
    return OrganTable(tuple(organs), groups, tuple(findings))


def _organ(entry: dict[str, Any]) -> Organ:
    codes = entry["snomed"]
    modifier = Code(*codes["modifier"]) if codes["modifier"] else None
    return Organ(
        id=entry["id"],
        name=entry["name"],
        side=entry["side"],
        label=entry["label"],
        color=tuple(entry["color"]),
        snomed=Snomed(Code(*codes["category"]), Code(*codes["type"]), modifier),
        synonyms=_names_by_language(entry["synonyms"]),
        adjectives=tuple(entry["adjectives"]),
        abbreviations=tuple(entry["abbreviations"]),
        with_article=entry["with_article"],
        dataset_labels=tuple(entry["dataset_labels"]),
        typical_extent_mm=tuple(entry["typical_extent_mm"]),
        several_pieces=entry["several_pieces"],
    )


def _finding(entry: dict[str, Any], organ: Organ, groups: tuple[Group, ...]) -> Organ:
    """A finding has the side and the size of its organ; its English names are made from the organ's."""
    codes = entry["snomed"]
    owners: list[Organ | Group] = [organ]
    owners.extend(g for g in groups if organ.id in g.organs and len(g.organs) == 2)
    english = [name for owner in owners for name in finding_names(owner.synonyms["en"], owner.adjectives)]
    return Organ(
        id=entry["id"],
        name=entry["name"],
        side=organ.side,
        label=entry["label"],
        color=tuple(entry["color"]),
        snomed=Snomed(
            Code(*codes["category"]),
            Code(*codes["type"]),
            Code(*codes["modifier"]) if codes["modifier"] else None,
        ),
        synonyms={"en": tuple(english), **_names_by_language(entry["synonyms"])},
        adjectives=(),
        abbreviations=(),
        with_article={},
        dataset_labels=(),
        typical_extent_mm=organ.typical_extent_mm,
        several_pieces=True,
        within=organ.id,
    )


def finding_names(organ_names: Iterable[str], adjectives: Iterable[str]) -> list[str]:
    """ "liver tumor", "hepatic lesion", "mass in the liver" and so on, for all English names of an organ."""
    patterns = ("{o} {f}", "{f} of the {o}", "{f} in the {o}", "{f} in {o}", "{f} of {o}")
    words = FINDING_WORDS.split()
    spoken = [name for name in organ_names if "," not in name]
    described = [f"{adjective} {f}" for adjective in adjectives for f in words]
    return [*described, *(pattern.format(o=o, f=f) for o in spoken for f in words for pattern in patterns)]


def _group(entry: dict[str, Any]) -> Group:
    return Group(
        id=entry["id"],
        name=entry["name"],
        organs=tuple(entry["organs"]),
        synonyms=_names_by_language(entry["synonyms"]),
        adjectives=tuple(entry["adjectives"]),
    )


def _names_by_language(synonyms: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {language: tuple(names) for language, names in synonyms.items()}
