"""Finds labelled cases in the layouts people have, and reads them with our organ numbers.

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
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from progidiff.errors import CasesError
from progidiff.prompts.organ_table import name_key, organ_table
from progidiff.training.finding_names import is_cyst, match_findings, pairs_without_side
from progidiff.volumes import decide_modality, read_label, read_volume
from progidiff.volumes.volume import Grid, Modality, Volume

Layout = Literal["nnunet", "totalsegmentator", "flat"]

NNUNET_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".gipl", ".tif", ".tiff", ".png")
FLAT_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")

# An organ of two parts counts as annotated only where both are: a data set that labels the splenic vein
# alone does not say where our "portal and splenic vein" ends.
_PARTS = {
    "portal_and_splenic_vein": (("portalvein", "hepaticportalvein"), ("splenicvein",)),
}
# How far the corners of label and image may lie apart, in voxels: headers are rounded.
_TOLERANCE_VOXELS = 0.1
_FAT_HU = -100.0  # every CT has voxels of fat or air


@dataclass(frozen=True)
class Case:
    """One patient's image, label, or both.

    Attributes:
        id: unique among the cases found together.
        layout: which convention it was found in.
        image_path: None where there is a label map alone.
        label_path: one label map, or a mask for each id of an organ or finding, or None.
        names: what the data set calls the values of its label map, {value: name}; empty for masks.
        modality: what the data set says, or "unknown".
        unclear: names of findings that are left out: their organ is not certain, or not labelled.
        data_set: name of the folder in which `labelled_cases` found it.
    """

    id: str
    layout: Layout
    image_path: Path | None
    label_path: Path | dict[str, Path] | None
    names: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    modality: Modality = "unknown"
    unclear: tuple[str, ...] = ()
    data_set: str = ""

    @property
    def known_as(self) -> set[str]:
        """The ids it has by itself and beside another data set with cases of the same ids."""
        return {self.id, file_name(f"{self.data_set}/{self.id}")}

    @property
    def organs(self) -> frozenset[str]:
        """Ids of the organs this data set annotates. The others are unknown here, not absent."""
        if isinstance(self.label_path, dict):
            return frozenset(self.label_path) - set(organ_table().finding_ids)
        return frozenset(_values_by_organ(self.names)) if self.label_path else frozenset()

    @property
    def findings(self) -> frozenset[str]:
        """Ids of the findings, such as "liver_tumor", that this data set annotates; they may be absent."""
        if isinstance(self.label_path, dict):
            return frozenset(self.label_path) & set(organ_table().finding_ids)
        return frozenset(_values_by_finding(self.names)) if self.label_path else frozenset()

    @property
    def has_label(self) -> bool:
        """Whether at least one of our organs is annotated."""
        return bool(self.organs)

    @property
    def has_image(self) -> bool:
        return self.image_path is not None

    def load_image(self) -> Volume:
        """The image, with the data set's modality where the file names none.

        A data set that says CT of all its cases may hold MR as well, as AMOS22 does: an image without a trace
        of air or fat, and none of the usual offset, is left to `decide_modality`.

        Raises:
            CasesError: the case has no image.
            VolumeError: the file cannot be used.
        """
        if self.image_path is None:
            raise CasesError(f"The case “{self.id}” has no image.", "Use it where labels alone are enough.")
        image = read_volume(self.image_path)
        modality = image.modality if image.modality != "unknown" else self.modality
        if image.modality == "unknown" and modality == "CT" and image.array.min() > _FAT_HU:
            modality = decide_modality(image)
        return replace(image, modality=modality, name=self.id)

    def load_label(self, grid: Grid | Volume | None = None, findings: bool = False) -> Volume:
        """The label map, uint8 with the organ table's numbers; other structures become 0.

        Args:
            grid: the image's, if it has been read already; otherwise the image is read for it. A case
                without image keeps the label's own grid.
            findings: voxels of a finding have its number; otherwise they have that of its organ.

        Raises:
            CasesError: no label, label and image on different grids, or values the data set's list of
                names does not have.
            VolumeError: a file cannot be used.
        """
        if grid is None and self.image_path is not None:
            grid = self.load_image()
        if isinstance(self.label_path, dict):
            label = self._merge_masks(self.label_path, findings)
        elif self.label_path is not None and self.organs:
            label = self._translate(read_label(self.label_path), findings)
        else:
            raise CasesError(
                f"The case “{self.id}” has no label of a known organ.",
                "Add the label map and its list of names, or give the names with `labels`.",
            )
        return label if grid is None else self._on_grid(label, grid)

    def load(self, findings: bool = False) -> tuple[Volume, Volume]:
        """Image and label map on one grid; `findings` and errors as of `load_image` and `load_label`."""
        image = self.load_image()
        return image, self.load_label(image, findings)

    def _translate(self, label: Volume, findings: bool) -> Volume:
        """The data set's values → our organ numbers."""
        unknown = sorted(set(np.unique(label.array).tolist()) - set(self.names) - {0})
        if unknown:
            raise CasesError(
                f"The label map of “{self.id}” has values without a name: {', '.join(map(str, unknown))}.",
                "Add them to the data set's list of label names.",
            )
        table = np.zeros(int(max([*self.names, 0])) + 1, np.uint8)
        for organ, values in _values_by_organ(self.names).items():
            table[list(values)] = organ_table().by_id(organ).label
        for finding, values in _values_by_finding(self.names).items():
            table[list(values)] = _number(finding, findings)
        return replace(label, array=table[label.array], name=self.id)

    def _merge_masks(self, paths: dict[str, Path], findings: bool) -> Volume:
        """One label map of many masks; where masks overlap, a finding or the table's later organ wins."""
        merged: Volume | None = None
        for organ in sorted(paths, key=lambda organ_id: organ_table().by_id(organ_id).label):
            mask = read_label(paths[organ])
            if merged is None:
                merged = replace(mask, array=np.zeros(mask.shape, np.uint8), name=self.id)
            mask = self._on_grid(mask, merged)
            merged.array[mask.array > 0] = _number(organ, findings)
        if merged is None:
            raise CasesError(f"The case “{self.id}” has no masks.", "Add them, or leave the case out.")
        return merged

    def _on_grid(self, label: Volume, grid: Grid | Volume) -> Volume:
        """The label with exactly the grid's affine, if it lies there already."""
        if label.shape != grid.shape:
            raise CasesError(
                f"Label and image of “{self.id}” differ in size: {label.shape} and {grid.shape} voxels.",
                "Resample the label map to the image's grid.",
            )
        ends = np.asarray(label.shape) - 1
        corners = np.array([[i, j, k, 1] for i in (0, ends[0]) for j in (0, ends[1]) for k in (0, ends[2])])
        apart = np.abs(corners @ (label.affine - grid.affine)[:3].T).max()
        if apart > _TOLERANCE_VOXELS * float(np.min(grid.spacing)):
            raise CasesError(
                f"Label and image of “{self.id}” lie {apart:.1f} mm apart.",
                "Export both with the same orientation and origin, or resample the label map to the image.",
            )
        return replace(label, affine=np.array(grid.affine, float))


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


def file_name(case_id: str) -> str:
    """The id without what a file name cannot hold."""
    return re.sub(r"[^\w.-]+", "-", case_id)


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
            cases[case_id] = Case(case_id, "nnunet", path, label, names, modality, _unclear(names))
    orphans = sorted(set(label_files) - set(cases))
    if orphans:
        raise CasesError(
            f"Labels without image in “{folder}”: {_listing(orphans)}.",
            "Add the images or remove the labels.",
        )
    return list(cases.values())


def _nnunet_names(folder: Path, labels: dict[str, Any]) -> Mapping[int, tuple[str, ...]]:
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
    return _checked({value: tuple(several) for value, several in names.items()}, folder / "dataset.json")


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
        if organ is not None and not _is_part(organ.id, name):
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
        cases.append(Case(case_id, "flat", image, label, names, modality, _unclear(names)))
    return cases


def _lists_of_names(folder: Path) -> dict[str, Mapping[int, tuple[str, ...]]]:
    """Lists of label names by the prefix they serve."""
    lists: dict[str, Mapping[int, tuple[str, ...]]] = {}
    for path in sorted(folder.glob("*_labels.json")):
        content = _read_json(path)
        if not all(key.isdigit() and isinstance(name, str) for key, name in content.items()):
            raise CasesError(f"“{path}” is not a list of label names.", 'Write it as {"1": "liver", …}.')
        names = {int(key): (name,) for key, name in content.items()}
        lists[path.name.removesuffix("_labels.json")] = _checked(names, path)
    for path in sorted(folder.glob("*_labels.ctbl")):
        lists[path.name.removesuffix("_labels.ctbl")] = _checked(_read_colour_table(path), path)
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


# --- names and files -------------------------------------------------------------------------------


def _values_by_organ(names: Mapping[int, tuple[str, ...]]) -> dict[str, tuple[int, ...]]:
    """Organ id → the values of the label map that make it up."""
    values: dict[str, list[int]] = {}
    seen: dict[str, set[str]] = {}
    for value, several in names.items():
        for name in several:
            organ = organ_table().by_name(name)
            if organ is not None:
                values.setdefault(organ.id, []).append(value)
                seen.setdefault(organ.id, set()).add(name)
    whole = {organ: found for organ, found in values.items() if _is_whole(organ, seen[organ])}
    return {organ: tuple(found) for organ, found in whole.items()}


def _values_by_finding(names: Mapping[int, tuple[str, ...]]) -> dict[str, tuple[int, ...]]:
    """Finding id → the values of the label map that make it up."""
    ids = match_findings(_all(names)).ids
    values: dict[str, list[int]] = {}
    for value, several in names.items():
        for finding in {ids[name] for name in several if name in ids}:
            if not any(is_cyst(name) for name in several):
                values.setdefault(finding, []).append(value)
    return {finding: tuple(found) for finding, found in values.items()}


def _unclear(names: Mapping[int, tuple[str, ...]]) -> tuple[str, ...]:
    return match_findings(_all(names)).unclear


def _all(names: Mapping[int, tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(name for several in names.values() for name in several)


def _number(structure: str, findings: bool) -> int:
    """The value of an organ or finding in label maps; without `findings`, that of the finding's organ."""
    entry = organ_table().by_id(structure)
    return entry.label if findings or entry.within is None else organ_table().by_id(entry.within).label


def _is_part(organ: str, name: str) -> bool:
    return any(name_key(name) in part for part in _PARTS.get(organ, ()))


def _is_whole(organ: str, names: set[str]) -> bool:
    """Whether the names cover the whole organ: one name that is no mere part of it, or all parts."""
    if any(not _is_part(organ, name) for name in names):
        return True
    keys = {name_key(name) for name in names}
    return all(keys & set(part) for part in _PARTS[organ])


def _checked(names: Mapping[int, tuple[str, ...]], source: Path) -> Mapping[int, tuple[str, ...]]:
    if not _values_by_organ(names):
        remedy = "Use the organs' usual names; `progidiff` knows those of its organ table."
        if pairs := pairs_without_side(_all(names)):
            remedy = f"Label the right and the left one apart: {_listing(pairs)}."
        listed = _listing(list(_all(names)))
        raise CasesError(f"“{source}” names no organ that is known: {listed}.", remedy)
    return names


def _listing(words: list[str], most: int = 12) -> str:
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


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


def label_counts(label: NDArray[np.uint8]) -> dict[str, int]:
    """Voxels of each organ that occurs in a label map with our numbers."""
    counts = np.bincount(label.ravel(), minlength=1)
    return {o.id: int(counts[o.label]) for o in organ_table() if o.label < len(counts) and counts[o.label]}
