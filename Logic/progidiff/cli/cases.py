"""`progidiff cases`: the library of corrected cases that `progidiff adapt` learns from."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from progidiff.cli.arguments import label_value, some_path
from progidiff.errors import CasesError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from progidiff.volumes.volume import Volume

SUMMARY = "keep checked masks as cases to adapt to: add, list, remove"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = actions.add_parser("add", help="copy an image and its checked mask into a library")
    add.add_argument(
        "image", type=some_path, metavar="IMAGE", help="NIfTI, NRRD or MHA file, or a DICOM folder"
    )
    add.add_argument(
        "mask", type=some_path, metavar="MASK", help="label map or binary mask on the image's grid"
    )
    add.add_argument(
        "--organ", action="append", required=True, metavar="NAME", help="checked; may be repeated"
    )
    add.add_argument(
        "--label", type=label_value, metavar="N", help="value of the organ in MASK (default: see below)"
    )
    add.add_argument(
        "--slices", default="", metavar="RANGES", help='checked, as "12-40,44", counted from 0 (default all)'
    )
    add.add_argument("--modality", choices=("auto", "CT", "MR"), default="auto", help="what the image is")
    add.add_argument("--by", default="", metavar="WHO", help="who checked it")
    add.epilog = (
        "In MASK the organ table's numbers are meant (those of consensus.nii.gz; an organ includes its "
        "findings), unless --label says otherwise. For one organ, MASK may also be binary: one value that is "
        "no other organ's number, or 1."
    )
    listing = actions.add_parser("list", help="show what a library holds")
    remove = actions.add_parser("remove", help="delete a case, or one organ of it")
    remove.add_argument("case", metavar="CASE", help="id of the case, see `progidiff cases list`")
    remove.add_argument("--organ", default="", metavar="NAME", help="only this organ")
    for action in (add, listing, remove):
        action.add_argument(
            "--cases", required=True, type=some_path, metavar="DIR", help="folder of the library"
        )
        action.add_argument("--debug", action="store_true", default=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    return {"add": _add, "list": _list, "remove": _remove}[options.action](options)


def _add(options: argparse.Namespace) -> int:
    from progidiff.adaptation.case_library import CaseLibrary
    from progidiff.volumes import read_label, read_volume

    organs = list(dict.fromkeys(organ_id(name) for name in options.organ))
    if options.label is not None and len(organs) > 1:
        raise UsageError("--label says which value one organ has.", "Add the organs one after the other.")
    slices = slice_ranges(options.slices)
    image, mask = read_volume(options.image), read_label(options.mask)
    if options.modality != "auto":
        image = replace(image, modality=options.modality)
    _check_grid(image, mask)
    alone = len(organs) == 1
    insides = {organ: _inside(mask.array, organ, options.label, alone) for organ in organs}
    for organ, inside in insides.items():
        added = CaseLibrary(options.cases).add(image, inside, organ, slices=slices, by=options.by)
        print(f"{added.case.id}: {organ} {added.outcome}")
    return 0


def organ_id(name: str) -> str:
    """Raises UsageError for a name that is not in the organ table."""
    from progidiff.prompts import organ_table

    organ = organ_table().by_name(name)
    if organ is None:
        known = ", ".join(organ.name for organ in organ_table().organs)
        raise UsageError(f"“{name}” is not an organ of the table.", f"Choose from: {known}.")
    return organ.id


def slice_ranges(text: str) -> list[tuple[int, int]]:
    """ "12-40,44", both ends included → (first, end), end exclusive; all counted from 0, as Slicer does.

    Raises:
        UsageError: it is not that.
    """
    ranges = []
    for part in filter(None, text.replace(" ", "").split(",")):
        match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if first > last:
            raise UsageError(f"{part!r} is no range of slices.", 'Write "12-40,44", counted from 0.')
        ranges.append((first, last + 1))
    return ranges


def _check_grid(image: Volume, mask: Volume) -> None:
    import numpy as np

    if image.shape != mask.shape or not np.allclose(image.affine, mask.affine, atol=0.01):
        raise CasesError(
            "The mask does not lie on the grid of the image.", "Save it with the image's geometry."
        )


def _inside(array: NDArray, organ_id: str, label: int | None, alone: bool) -> NDArray:
    """The organ's voxels: those of value `label`, of the organ table's numbers, or of a binary mask.

    Args:
        array: (I, J, K) label map.
        alone: no other organ is read from it, so that a binary mask can only mean this one.

    Raises:
        CasesError: the organ is not there, or the one value may well be another organ.
    """
    import numpy as np

    from progidiff.prompts import organ_table

    if label is not None:
        return array == label
    table, organ = organ_table(), organ_table().by_id(organ_id)
    values = np.unique(array[array != 0]).tolist()
    if alone and len(values) == 1 and values[0] != organ.label:
        other = table.by_label(values[0])
        if values[0] != 1 and other is not None:
            raise CasesError(
                f"The only value of the mask, {values[0]}, is the number of {other.name}, not {organ.name}.",
                f"Add --label {values[0]} if it is the {organ.name} all the same.",
            )
        return array == values[0]
    if organ.label not in values:
        raise CasesError(
            f"The mask has no voxel of {organ.name}, whose number in the organ table is {organ.label}.",
            "Add the organ by itself, from a binary mask or with --label.",
        )
    findings = [finding.label for finding in table.findings if finding.within == organ.id]
    return np.isin(array, [organ.label, *findings])


def _list(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from progidiff.adaptation.case_library import CaseLibrary
    from progidiff.adaptation.slices import slices_text

    library = CaseLibrary(options.cases)
    table = Table("case", "modality", "organ", "checked slices", "date", "by", box=None, pad_edge=False)
    cases = library.cases()
    for case in cases:
        for c in case.organs.values():
            table.add_row(case.id, case.modality, c.organ, slices_text(c.slices), c.date[:10], c.by)
    console = Console(soft_wrap=True, markup=False, highlight=False)
    console.print(table if cases else f"There are no cases in {options.cases}.")
    for problem in library.problems():
        console.print(f"Not usable: {problem}")
    return 0


def _remove(options: argparse.Namespace) -> int:
    from progidiff.adaptation.case_library import CaseLibrary

    organ = organ_id(options.organ) if options.organ else ""
    CaseLibrary(options.cases).remove(options.case, organ)
    print(f"Removed {organ + ' of ' if organ else ''}{options.case}.")
    return 0
