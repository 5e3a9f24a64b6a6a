"""One patient's image and label map, read with our organ numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from progidiff.errors import CasesError
from progidiff.prompts.organ_table import organ_table
from progidiff.training.label_names import Names, label_number, values_by_finding, values_by_organ
from progidiff.volumes import decide_modality, read_label, read_volume
from progidiff.volumes.volume import Grid, Modality, Volume

Layout = Literal["nnunet", "totalsegmentator", "flat"]

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
    names: Names = field(default_factory=dict)
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
        return frozenset(values_by_organ(self.names)) if self.label_path else frozenset()

    @property
    def findings(self) -> frozenset[str]:
        """Ids of the findings, such as "liver_tumor", that this data set annotates; they may be absent."""
        if isinstance(self.label_path, dict):
            return frozenset(self.label_path) & set(organ_table().finding_ids)
        return frozenset(values_by_finding(self.names)) if self.label_path else frozenset()

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
        for organ, values in values_by_organ(self.names).items():
            table[list(values)] = organ_table().by_id(organ).label
        for finding, values in values_by_finding(self.names).items():
            table[list(values)] = label_number(finding, findings)
        return replace(label, array=table[label.array], name=self.id)

    def _merge_masks(self, paths: dict[str, Path], findings: bool) -> Volume:
        """One label map of many masks; where masks overlap, a finding or the table's later organ wins."""
        merged: Volume | None = None
        for organ in sorted(paths, key=lambda organ_id: organ_table().by_id(organ_id).label):
            mask = read_label(paths[organ])
            if merged is None:
                merged = replace(mask, array=np.zeros(mask.shape, np.uint8), name=self.id)
            mask = self._on_grid(mask, merged)
            merged.array[mask.array > 0] = label_number(organ, findings)
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


def file_name(case_id: str) -> str:
    """The id without what a file name cannot hold."""
    return re.sub(r"[^\w.-]+", "-", case_id)
