"""Finds labelled cases in the layouts people have.

Three layouts are recognised, each also somewhere below the folder that is named:

- **nnU-Net raw**: `dataset.json`, `imagesTr/CASE_0000.ext`, `labelsTr/CASE.ext`; label names in the new
  (`{"liver": 1}`, also regions `{"kidney": [1, 2]}`) or the old direction (`{"1": "liver"}`); old sets
  without the `_0000`. Of several channels the first is read.
- **TotalSegmentator**: a folder a case with `ct.nii.gz` or `mri.nii.gz` and `segmentations/NAME.nii.gz`.
- **flat**: `NAME_image.ext` beside `NAME_label.ext` (either may be missing), label names in
  `PREFIX_labels.json` (`{"1": "liver"}`) or `PREFIX_labels.ctbl` (a Slicer colour table), where PREFIX
  begins NAME.

Label names are matched to organs through the organ table, in any of its languages, and to findings in them
as `finding_names` says. A finding is read only where its organ is labelled too; its voxels are the organ's.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from progidiff.errors import CasesError
from progidiff.prompts.organ_table import name_key, organ_table
from progidiff.training.case import Case, file_name
from progidiff.training.finding_names import match_findings
from progidiff.training.label_names import Names, checked_names, is_part, listing, unclear_findings
from progidiff.volumes.volume import Modality

NNUNET_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".gipl", ".tif", ".tiff", ".png")
FLAT_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")


def find_cases(folder: str | Path, labels: Mapping[int, str] | None = None) -> list[Case]:
    """All cases in a folder and below, sorted by id.

    Args:
        folder: a data set, or a folder of data sets; hidden files and folders are skipped.
        labels: {value: name} for label maps that have no list of names; without it such cases are
            returned with no known organ.

    Raises:
        CasesError: the folder is missing, holds no case, or a data set is incomplete or names none of
            our organs.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise CasesError(f"There is no folder “{folder}”.", "Check the path to the training cases.")
    found = [(place, case) for place, case in _walk(folder, labels or {})]
    if not found:
        raise CasesError(
            f"No cases were found in “{folder}”.",
            "Expected is nnU-Net's raw layout, TotalSegmentator's, or NAME_image / NAME_label pairs.",
        )
    count = Counter(case.id for _, case in found)
    unique = []
    for place, case in found:
        prefix = "/".join(place.relative_to(folder).parts)
        unique.append(replace(case, id=f"{prefix}/{case.id}") if count[case.id] > 1 and prefix else case)
    return sorted(unique, key=lambda case: case.id)


def labelled_cases(folders: Sequence[Path]) -> list[Case]:
    """The cases of several data sets that label an organ, by id, each with an id of its own.

    Ids are made fit for file names ("/" becomes "-"), so that training, predictions and evaluation agree on
    them; where data sets share an id, it is preceded by the name of the data set's folder.

    Raises:
        CasesError: as of `find_cases`, or a data set is named twice.
    """
    found = [(folder, case) for folder in folders for case in find_cases(folder) if case.has_label]
    count = Counter(case.id for _, case in found)
    cases = [
        replace(
            case,
            id=file_name(f"{folder.name}/{case.id}" if count[case.id] > 1 else case.id),
            data_set=folder.name,
        )
        for folder, case in found
    ]
    names = Counter(case.id for case in cases)
    if twice := sorted(name for name, times in names.items() if times > 1):
        raise CasesError(
            f"Several cases are called “{twice[0]}”.",
            "Name each data folder once; of two folders with the same name and the same ids, rename one.",
        )
    return sorted(cases, key=lambda case: case.id)


def measurable_cases(folders: Sequence[Path], ids: Sequence[str] = ()) -> list[Case]:
    """The labelled cases that have an image, or those of them that `ids` names.

    Args:
        folders: see `labelled_cases`.
        ids: what cases are `known_as`; none means all.

    Raises:
        CasesError: as of `labelled_cases`, or an id is that of no such case.
    """
    found, wanted = [case for case in labelled_cases(folders) if case.has_image], set(ids)
    if unknown := sorted(wanted.difference(*(case.known_as for case in found))):
        raise CasesError(
            f"There is no labelled case {', '.join(unknown)} in the data.", "Check the ids of the cases."
        )
    return [case for case in found if not wanted or case.known_as & wanted]


def _walk(folder: Path, labels: Mapping[int, str]) -> Iterable[tuple[Path, Case]]:
    """Cases with the folder each was found in."""
    if (folder / "dataset.json").is_file():
        yield from ((folder, case) for case in _nnunet_cases(folder))
        return
    if (folder / "imagesTr").is_dir():
        raise CasesError(
            f"“{folder}” has imagesTr but no dataset.json.", "Add it: it says which value is which organ."
        )
    if (folder / "segmentations").is_dir():
        yield folder.parent, _totalsegmentator_case(folder)
        return
    yield from ((folder, case) for case in _flat_cases(folder, labels))
    for below in sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."):
        yield from _walk(below, labels)


# --- nnU-Net ---------------------------------------------------------------------------------------


def _nnunet_cases(folder: Path) -> list[Case]:
    description = _read_json(folder / "dataset.json")
    names = _nnunet_names(folder, description.get("labels", {}))
    modality = _nnunet_modality(description)
    endings = (str(description["file_ending"]),) if "file_ending" in description else NNUNET_ENDINGS
    images = _files(folder / "imagesTr", endings)
    label_files = _files(folder / "labelsTr", endings)
    if not images:
        raise CasesError(
            f"“{folder}” has a dataset.json but no images in imagesTr.", "Complete the data set."
        )
    cases = {}
    for stem, path in images.items():
        case_id, channel = (
            (stem[:-5], stem[-4:]) if stem[-5:-4] == "_" and stem[-4:].isdigit() else (stem, "")
        )
        if stem in label_files:  # old sets without channel number, whose ids may end in four digits
            case_id, channel = stem, ""
        if channel in ("", "0000"):
            label = label_files.get(case_id)
            cases[case_id] = Case(case_id, "nnunet", path, label, names, modality, unclear_findings(names))
    orphans = sorted(set(label_files) - set(cases))
    if orphans:
        raise CasesError(
            f"Labels without image in “{folder}”: {listing(orphans)}.",
            "Add the images or remove the labels.",
        )
    return list(cases.values())


def _nnunet_names(folder: Path, labels: dict[str, Any]) -> Names:
    """Names by value, from either direction of the dictionary; a value may belong to several regions."""
    names: dict[int, list[str]] = {}
    for key, entry in labels.items():
        old_direction = isinstance(entry, str) and key.isdigit()
        values = [key] if old_direction else entry if isinstance(entry, list) else [entry]
        name = entry if old_direction else key
        if name_key(name) in ("background", "ignore"):
            continue  # an ignore value that occurs in a label map is reported as having no name
        try:
            for value in values:
                names.setdefault(int(value), []).append(name)
        except (TypeError, ValueError):
            raise CasesError(
                f"The label “{name}” in “{folder / 'dataset.json'}” has no whole number.", "Correct the file."
            ) from None
    return checked_names({value: tuple(several) for value, several in names.items()}, folder / "dataset.json")


def _nnunet_modality(description: dict[str, Any]) -> Modality:
    channels = description.get("channel_names") or description.get("modality") or {}
    return _modality(str(next(iter(channels.values()), "")))


def _modality(word: str) -> Modality:
    word = word.lower()
    if word == "ct":
        return "CT"
    return "MR" if word in ("mr", "mri", "t1", "t2", "t1w", "t2w") else "unknown"


# --- TotalSegmentator ------------------------------------------------------------------------------


def _totalsegmentator_case(folder: Path) -> Case:
    image = next((p for name in ("ct", "mri") for p in _files(folder, FLAT_ENDINGS, name).values()), None)
    if image is None:
        raise CasesError(f"“{folder}” has segmentations but neither ct nor mri.", "Add the image.")
    files = _files(folder / "segmentations", FLAT_ENDINGS)
    found = match_findings(tuple(files))
    masks = {finding: files[name] for name, finding in found.ids.items()}
    for name, path in files.items():
        organ = organ_table().by_name(name)
        if organ is not None and not is_part(organ.id, name):
            masks[organ.id] = path
    modality = _modality(image.name.split(".")[0])
    return Case(folder.name, "totalsegmentator", image, masks or None, {}, modality, found.unclear)


# --- images and labels side by side ----------------------------------------------------------------


def _flat_cases(folder: Path, labels: Mapping[int, str]) -> list[Case]:
    files = _files(folder, FLAT_ENDINGS)
    images = {stem.removesuffix("_image"): path for stem, path in files.items() if stem.endswith("_image")}
    label_files = {
        stem.removesuffix("_label"): path for stem, path in files.items() if stem.endswith("_label")
    }
    lists = _lists_of_names(folder) if label_files else {}
    given = {int(value): (name,) for value, name in labels.items()}
    cases = []
    for case_id in sorted({*images, *label_files}):
        prefixes = [prefix for prefix in lists if f"{case_id}_".startswith(f"{prefix}_")]
        # "totalseg_labels.json" also serves "totalseg_example": the longest prefix counts
        names = lists[max(prefixes, key=len)] if prefixes else given
        image, label = images.get(case_id), label_files.get(case_id)
        names = names if label else {}
        modality = _modality(folder.name)
        cases.append(Case(case_id, "flat", image, label, names, modality, unclear_findings(names)))
    return cases


def _lists_of_names(folder: Path) -> dict[str, Names]:
    """Lists of label names by the prefix they serve."""
    lists: dict[str, Names] = {}
    for path in sorted(folder.glob("*_labels.json")):
        content = _read_json(path)
        if not all(key.isdigit() and isinstance(name, str) for key, name in content.items()):
            raise CasesError(f"“{path}” is not a list of label names.", 'Write it as {"1": "liver", …}.')
        names = {int(key): (name,) for key, name in content.items()}
        lists[path.name.removesuffix("_labels.json")] = checked_names(names, path)
    for path in sorted(folder.glob("*_labels.ctbl")):
        lists[path.name.removesuffix("_labels.ctbl")] = checked_names(_read_colour_table(path), path)
    return lists


def _read_colour_table(path: Path) -> dict[int, tuple[str, ...]]:
    """A Slicer colour table: lines of value, name, red, green, blue, opacity.

    A table has entries from 0 to the number its head announces ("# 701 values"), and may leave out those
    it does not name: such values are no error but structures we do not know.
    """
    named: dict[int, tuple[str, ...]] = {}
    announced = 0
    for line in path.read_text(encoding="utf-8").splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "#" and words[1].isdigit() and words[2] == "values":
            announced = int(words[1])
        elif len(words) >= 2 and words[0].isdigit():
            named[int(words[0])] = (words[1],)
    unnamed: dict[int, tuple[str, ...]] = dict.fromkeys(range(announced), ("(none)",))
    return unnamed | named


# --- files -------------------------------------------------------------------------------


def _files(folder: Path, endings: tuple[str, ...], stem: str = "") -> dict[str, Path]:
    """Visible files with one of the endings by their name without it."""
    found = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        ending = next((e for e in sorted(endings, key=len, reverse=True) if path.name.endswith(e)), "")
        name = path.name.removesuffix(ending)
        if ending and path.name[0] != "." and (not stem or name == stem):
            found[name] = path
    return found


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CasesError(f"“{path}” cannot be read: {error}.", "Repair the file.") from error
    if not isinstance(content, dict):
        raise CasesError(f"“{path}” is not a JSON object.", "Repair the file.")
    return content
