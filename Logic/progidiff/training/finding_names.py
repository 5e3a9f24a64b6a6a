"""Which labels of a data set are findings: "liver tumor", "kidney_tumor_left", or a bare "cancer".

Public tumor sets name the organ once and then say "tumor" or "cancer". Such a bare name is taken for the
finding of the one organ that the same list names. Nothing else is guessed: what may be in several places
is left out, and the caller can say so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from progidiff.prompts.organ_table import FINDING_WORDS, name_key, name_keys, organ_table

_TUMORS = frozenset({*FINDING_WORDS.split(), "cancers", "carcinomas", "neoplasms"})
_CYSTS = frozenset({"cyst", "cysts"})
_NOTHING = frozenset({"", "background", "ignore", "none"})


@dataclass(frozen=True)
class FindingNames:
    """What a list of label names says about findings.

    Attributes:
        ids: label name → id of the finding.
        unclear: names of findings that are left out: their organ is not certain, or not labelled.
    """

    ids: Mapping[str, str]
    unclear: tuple[str, ...]


@lru_cache(maxsize=256)
def match_findings(names: tuple[str, ...]) -> FindingNames:
    """The findings among the label names of one data set."""
    table = organ_table()
    labelled = {organ.id for name in names if (organ := table.by_name(name))}
    structures = {name for name in names if not (_is_bare(name) or is_cyst(name) or _named(name))}
    structures -= {name for name in names if name_key(name) in _NOTHING or table.by_name(name)}
    sole = labelled if not structures and len(labelled) == 1 else set()
    ids, unclear = {}, []
    for name in dict.fromkeys(names):
        if not (_is_bare(name) or _named(name)):
            continue
        found = [f.id for f in table.findings if f.within in sole] if _is_bare(name) else _named(name)
        if len(found) == 1 and table.by_id(found[0]).within in labelled:
            ids[name] = found[0]
        else:
            unclear.append(name)
    return FindingNames(ids, tuple(unclear))


def is_cyst(name: str) -> bool:
    """Whether a label is a cyst: no tumor, even where a region of "masses" holds both."""
    return bool(_CYSTS & set(_words(name)))


def pairs_without_side(names: Iterable[str]) -> list[str]:
    """The label names that stand for one of two organs, such as a "kidney" without a side."""
    pairs = {key for g in organ_table().groups if len(g.organs) == 2 for n in g.names for key in name_keys(n)}
    return [name for name in names if name_key(name) in pairs]


def _is_bare(name: str) -> bool:
    words = _words(name)
    return bool(words) and all(word in _TUMORS for word in words)


def _named(name: str) -> list[str]:
    """Ids of the findings that a name with an organ in it may mean; both sides' where it says none."""
    direct = _by_key().get(name_key(name))
    if direct:
        return list(direct)
    words = _words(name)
    rest = [word for word in words if word not in _TUMORS]
    organ = organ_table().by_name(" ".join(rest)) if len(rest) < len(words) else None
    return [f.id for f in organ_table().findings if organ and f.within == organ.id]


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W_]+", name.casefold())


@lru_cache(maxsize=1)
def _by_key() -> dict[str, list[str]]:
    ids: dict[str, list[str]] = {}
    for finding in organ_table().findings:
        for key in {key for name in finding.names_in_labels for key in name_keys(name)}:
            ids.setdefault(key, []).append(finding.id)
    return ids
