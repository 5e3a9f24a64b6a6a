"""The case library: corrected masks with their volumes, kept on disk until the user removes them.

One folder a patient image, named after the image's content::

    LIBRARY/case-0123456789ab/
        case.json            what was checked; the only file that is ever replaced
        image.nrrd           the volume, without any patient data of its source
        spleen-1.nrrd        a checked mask; a better one later becomes spleen-2.nrrd

Voxels are written first and `case.json` last, each under another name until complete. So whatever
happens in between, a case is either there or not, and the cases before it are untouched.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from progidiff.adaptation.slices import Ranges, runs
from progidiff.atomic_files import (
    locked,
    new_folder,
    remove_abandoned,
    remove_folder,
    sync_folder,
    write_json,
)
from progidiff.errors import CasesError, OutputError, ProGiDiffError
from progidiff.prompts.organ_table import organ_table
from progidiff.volumes import check_volume, decide_modality, read_label, read_volume, write_volume
from progidiff.volumes.volume import Volume

SCHEMA = "progidiff-case-1"
_PLACE_NOISE_MM = 1e-4  # by which file formats round the place of one and the same image differently


@dataclass(frozen=True)
class CheckedOrgan:
    """One organ that an expert has checked in one image.

    Attributes:
        organ: id of the organ table.
        version: 1, 2, …; the file of the mask is named after it.
        slices: ranges (first, end) of slices that were really checked, end exclusive, counted along the
            image's `slice_axis`; only these count as truth.
        date: ISO 8601, UTC.
        by: who checked it, "" if not given.
        mask_hash: SHA-256 of the mask.
    """

    organ: str
    version: int
    slices: Ranges
    date: str
    by: str
    mask_hash: str

    @property
    def mask_file(self) -> str:
        return f"{self.organ}-{self.version}.nrrd"


@dataclass(frozen=True)
class StoredCase:
    """One image of the library and what was checked in it.

    Attributes:
        folder: where it lies; its name is the case's id.
        modality: "CT" or "MR".
        slice_axis: voxel axis (0, 1, 2) nearest to the patient's long axis.
        shape: (I, J, K).
        source: what the user called the volume.
        date: when the image was first added.
        image_hash: SHA-256 of voxels and affine.
        organs: by organ id.
        earlier: versions that a newer mask has replaced; their files are kept.
    """

    folder: Path
    modality: Literal["CT", "MR"]
    slice_axis: int
    shape: tuple[int, int, int]
    source: str
    date: str
    image_hash: str
    organs: dict[str, CheckedOrgan]
    earlier: tuple[CheckedOrgan, ...] = ()

    @property
    def id(self) -> str:
        return self.folder.name

    def load_image(self) -> Volume:
        """The volume, with the modality that was recorded.

        Raises:
            VolumeError: the file is damaged.
        """
        image = read_volume(self.folder / "image.nrrd")
        return replace(image, modality=self.modality, name=self.id)

    def load_mask(self, organ: str) -> NDArray[np.bool_]:
        """(I, J, K) the checked mask of an organ.

        Raises:
            CasesError: the organ was not checked, or its mask does not fit the image.
        """
        if organ not in self.organs:
            raise CasesError(f"{self.id} has no checked {organ}.", "Choose one of its own organs.")
        mask = read_label(self.folder / self.organs[organ].mask_file).array > 0
        if mask.shape != self.shape:
            raise CasesError(
                f"The mask of {organ} in {self.id} does not fit its image.", "Remove it and add it again."
            )
        return mask

    def checked_slices(self, organ: str) -> NDArray[np.bool_]:
        """(slices,) which slices along `slice_axis` were checked for an organ."""
        flags = np.zeros(self.shape[self.slice_axis], bool)
        for first, end in self.organs[organ].slices:
            flags[first:end] = True
        return flags


@dataclass(frozen=True)
class Addition:
    """What `CaseLibrary.add` did.

    Attributes:
        case: as it is now.
        organ: the organ added.
        outcome: "added", "replaced" (an earlier mask of this organ, which is kept as a numbered version; also
            where another modality is all that is new), or "unchanged" (the same mask was there already).
    """

    case: StoredCase
    organ: str
    outcome: Literal["added", "replaced", "unchanged"]


class CaseLibrary:
    """The cases in a folder.

    Args:
        folder: created with the first case.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).expanduser()

    def cases(self) -> list[StoredCase]:
        """All readable cases, oldest first."""
        return sorted(
            (c for c in self._read_all().values() if isinstance(c, StoredCase)),
            key=lambda c: (c.date, c.id),
        )

    def problems(self) -> list[str]:
        """One sentence for each case that cannot be read; the others are not affected."""
        return list(self.damaged().values())

    def damaged(self) -> dict[str, str]:
        """Id → sentence of each case that cannot be read. It can be removed and then added again."""
        return {i: str(c) for i, c in self._read_all().items() if isinstance(c, ProGiDiffError)}

    def case(self, case_id: str) -> StoredCase:
        """Raises CasesError if there is no such case, or it is damaged."""
        return _read_case(self._folder_of(case_id))

    def _folder_of(self, case_id: str) -> Path:
        folder = self.folder / case_id
        if not case_id.startswith("case-") or Path(case_id).name != case_id or not folder.is_dir():
            raise CasesError(
                f"There is no case {case_id!r} in {self.folder}.", "List the cases to see their ids."
            )
        return folder

    def add(
        self,
        image: Volume,
        mask: NDArray,
        organ: str,
        *,
        slices: Sequence[Sequence[int]] = (),
        by: str = "",
        source: str = "",
    ) -> Addition:
        """Saves a checked mask with its image. Complete on disk when it returns.

        Args:
            image: native voxels; its modality is decided from them where it is "unknown", and holds for the
                whole case where it is not.
            mask: (I, J, K) on the image's grid, non-zero inside the organ.
            organ: id of the organ table.
            slices: ranges (first, end) that were really checked, end exclusive; none means all.
            by: who checked it.
            source: what the user calls the volume.

        Raises:
            CasesError: an empty mask, one that does not fit, an unknown organ, slices out of range.
            VolumeError: the image cannot be used.
            OutputError: the disk is full or the folder cannot be written to. Earlier cases stay.
        """
        check_volume(image)
        axis = slice_axis(image.affine)
        checked = _check_mask(mask, image, organ, _check_ranges(slices, image.shape[axis]), axis)
        new = CheckedOrgan(organ, 1, checked, _now(), by.strip(), _hash(mask != 0))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder):
                remove_abandoned(self.folder)
                return self._add(image, mask, new, source, axis)
        except OSError as error:
            raise OutputError(
                f"The case library {self.folder} cannot be used ({error.strerror or error}).",
                "Choose another folder; cases saved before are still there.",
            ) from error

    def _add(self, image: Volume, mask: NDArray, new: CheckedOrgan, source: str, axis: int) -> Addition:
        image_hash = self._hash_of(image)
        folder = self._folder_for(image_hash)
        if not folder.is_dir():
            modality = _said_modality(image) or decide_modality(image)
            case = StoredCase(
                folder,
                modality,
                axis,
                image.shape,
                source or image.name,
                new.date,
                image_hash,
                {new.organ: new},
            )
            with new_folder(folder) as unfinished:
                write_volume(replace(image, metadata={}, name="image"), unfinished / "image.nrrd")
                _write_mask(mask, image, unfinished / new.mask_file)
                write_json(unfinished / "case.json", _to_json(case))
            return Addition(case, new.organ, "added")
        case = _read_case(folder)
        old = case.organs.get(new.organ)
        modality = _said_modality(image) or case.modality
        is_known = old is not None and (old.mask_hash, old.slices) == (new.mask_hash, new.slices)
        if is_known and modality == case.modality:
            return Addition(case, new.organ, "unchanged")
        versions = [c.version for c in (*case.earlier, *case.organs.values()) if c.organ == new.organ]
        new = replace(new, version=max(versions, default=0) + 1)
        for abandoned in folder.glob(".*.nrrd"):  # half-written when a process was killed
            abandoned.unlink()
        _write_mask(mask, image, folder / new.mask_file)
        earlier = case.earlier if old is None else (*case.earlier, old)
        organs = {**case.organs, new.organ: new}
        case = replace(case, modality=modality, organs=organs, earlier=earlier)
        write_json(folder / "case.json", _to_json(case))
        sync_folder(folder)
        return Addition(case, new.organ, "added" if old is None else "replaced")

    def _hash_of(self, image: Volume) -> str:
        """The image's hash: that under which it is kept already, if it is."""
        hashes = list(_image_hashes(image))
        return next((h for h in hashes if self._folder_for(h).is_dir()), hashes[0])

    def _folder_for(self, image_hash: str) -> Path:
        return self.folder / f"case-{image_hash[:12]}"

    def remove(self, case_id: str, organ: str = "") -> None:
        """Removes a case, or one organ of it with all its versions; with the last organ goes the case.

        A damaged case can be removed too, but only as a whole.

        Raises:
            CasesError: there is no such case or organ.
            OutputError: the files cannot be removed.
        """
        folder = self._folder_of(case_id)
        try:
            with locked(self.folder):
                if organ:
                    self._remove_organ(case_id, organ)
                else:
                    remove_folder(folder)
        except OSError as error:
            raise OutputError(
                f"{case_id} cannot be removed from {self.folder} ({error.strerror or error}).",
                "Ask for the right to change this folder.",
            ) from error

    def _remove_organ(self, case_id: str, organ: str) -> None:
        case = self.case(case_id)
        if organ not in case.organs:
            raise CasesError(f"{case_id} has no checked {organ}.", "Choose one of its own organs.")
        rest = {o: c for o, c in case.organs.items() if o != organ}
        if not rest:
            remove_folder(case.folder)
            return
        gone = [c for c in (*case.earlier, case.organs[organ]) if c.organ == organ]
        earlier = tuple(c for c in case.earlier if c.organ != organ)
        write_json(case.folder / "case.json", _to_json(replace(case, organs=rest, earlier=earlier)))
        for version in gone:
            (case.folder / version.mask_file).unlink(missing_ok=True)

    def _read_all(self) -> dict[str, StoredCase | ProGiDiffError]:
        found: dict[str, StoredCase | ProGiDiffError] = {}
        for folder in sorted(self.folder.glob("case-*")):
            try:
                found[folder.name] = _read_case(folder)
            except ProGiDiffError as error:
                found[folder.name] = error
        return found


def slice_axis(affine: NDArray[np.float64]) -> int:
    """The voxel axis (0, 1, 2) nearest to the patient's long axis."""
    return int(np.argmax(np.abs(affine[2, :3]) / np.linalg.norm(affine[:3, :3], axis=0)))


def _check_mask(mask: NDArray, image: Volume, organ: str, checked: Ranges, axis: int) -> Ranges:
    known = [o.id for o in organ_table().organs]
    if organ in organ_table().finding_ids:
        name = organ_table().by_id(organ).name
        raise CasesError(
            f"Findings such as {name} cannot be taught yet, only organs.",
            "Save it outside the case library, and never as the organ that it lies in.",
        )
    if organ not in known:
        raise CasesError(f"{organ!r} is not an organ of the table.", f"Choose from: {', '.join(known)}.")
    if mask.shape != image.shape:
        raise CasesError(
            f"The mask has {mask.shape} voxels, the image {image.shape}.",
            "Save the mask on the image's own grid.",
        )
    occupied = (mask != 0).any(tuple(a for a in range(3) if a != axis))
    if not any(occupied[first:end].any() for first, end in checked):
        raise CasesError(
            f"The mask of {organ} is empty in the slices that were checked.",
            "Choose the mask that shows the organ.",
        )
    return checked


def _check_ranges(slices: Sequence[Sequence[int]], count: int) -> Ranges:
    """Sorted, joined ranges within 0…count; all slices if none are given."""
    flags = np.zeros(count + 1, bool)
    for entry in slices or [(0, count)]:
        is_pair = isinstance(entry, Sequence) and len(entry) == 2
        if not is_pair or not all(isinstance(n, int | np.integer) for n in entry):
            raise CasesError(
                f"{entry} is no range of slices.", "Give the first slice and the one after the last."
            )
        first, end = int(entry[0]), int(entry[1])
        if not 0 <= first < end <= count:
            raise CasesError(
                f"Slices {first} to {end - 1} are not within the image's 0 to {count - 1}.",
                "Give slices of the image, counted from 0.",
            )
        flags[first:end] = True
    return runs(flags)


def _write_mask(mask: NDArray, image: Volume, path: Path) -> None:
    write_volume(Volume((mask != 0).astype(np.uint8), image.affine, image.modality, path.stem), path)


def _hash(array: NDArray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _image_hashes(image: Volume) -> Iterator[str]:
    """Of voxels and place, whatever the number type they came in.

    Several where the place lies so near to where rounding changes that the same image, read from another
    file, may have been rounded the other way.
    """
    voxels = hashlib.sha256(np.ascontiguousarray(image.array, "<f4").tobytes())
    voxels.update(np.asarray(image.shape, "<i8").tobytes())
    rounded = [np.round(image.affine + noise, 3) + 0.0 for noise in (0.0, -_PLACE_NOISE_MM, _PLACE_NOISE_MM)]
    numbers = [dict.fromkeys(each) for each in zip(*(place.ravel() for place in rounded), strict=True)]
    for place in itertools.product(*numbers):
        digest = voxels.copy()
        digest.update(np.array(place, "<f8").tobytes())
        yield digest.hexdigest()


def _said_modality(image: Volume) -> Literal["CT", "MR"] | None:
    """The modality that the user or the file gave; None where it has to be guessed."""
    return image.modality if image.modality in ("CT", "MR") else None


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _to_json(case: StoredCase) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "modality": case.modality,
        "slice_axis": case.slice_axis,
        "shape": list(case.shape),
        "source": case.source,
        "date": case.date,
        "image_hash": case.image_hash,
        "organs": [asdict(c) for c in case.organs.values()],
        "earlier": [asdict(c) for c in case.earlier],
    }


def _read_case(folder: Path) -> StoredCase:
    """Raises CasesError for anything that is not a complete case."""
    try:
        content = json.loads((folder / "case.json").read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise ValueError(f"its schema is {content['schema']!r}")
        organs = {c["organ"]: _checked_from_json(c) for c in content["organs"]}
        i, j, k = (int(n) for n in content["shape"])
        if content["modality"] not in ("CT", "MR") or content["slice_axis"] not in (0, 1, 2) or not organs:
            raise ValueError("its facts are incomplete")
        case = StoredCase(
            folder,
            content["modality"],
            int(content["slice_axis"]),
            (i, j, k),
            str(content["source"]),
            str(content["date"]),
            str(content["image_hash"]),
            organs,
            tuple(_checked_from_json(c) for c in content["earlier"]),
        )
        missing = [
            n for n in ("image.nrrd", *(c.mask_file for c in organs.values())) if not (folder / n).is_file()
        ]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CasesError(
            f"The case {folder.name} cannot be read ({error}).", "Remove the whole case and add it again."
        ) from error
    return case


def _checked_from_json(content: dict[str, Any]) -> CheckedOrgan:
    organ = organ_table().by_id(str(content["organ"])).id
    slices = tuple((int(first), int(end)) for first, end in content["slices"])
    version = int(content["version"])
    return CheckedOrgan(
        organ, version, slices, str(content["date"]), str(content["by"]), str(content["mask_hash"])
    )
