"""Which mask to go on from: the selected proposal or any segment, and which organ it shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ProGiDiffSlicerLib import scene_choice
from ProGiDiffSlicerLib.errors import SegmentationError
from ProGiDiffSlicerLib.organs import organs
from ProGiDiffSlicerLib.proposals_section import ProposalsSection
from ProGiDiffSlicerLib.scene_choice import Offer, SceneChoice
from ProGiDiffSlicerLib.source_mask import SourceMask, organ_of, source_mask

_DRAFT = ("", "draft")
_UNKNOWN = "choose…"
_SELECTED = "The selected proposal"


class SourceChoice:
    """Args:
    button: QToolButton that lists the segments.
    organ_box: QComboBox for the organ; follows the mask, and can be set where the mask does not say.
    proposals: whose selected proposal is taken unless something else is chosen.
    with_draft: also offer to start from nothing.
    on_changed: called when mask or organ changed.
    """

    def __init__(
        self,
        button: Any,
        organ_box: Any,
        proposals: ProposalsSection,
        on_changed: Callable[[], None],
        with_draft: bool = False,
    ) -> None:
        self._organ_box, self._proposals, self._on_changed = organ_box, proposals, on_changed
        self._with_draft = with_draft
        self._organ_ids = ["", *organs()]
        organ_box.addItem(_UNKNOWN)
        for organ in organs().values():
            organ_box.addItem(organ.name)
        self._choice = SceneChoice(button, self._offers, _SELECTED, on_changed=self._changed)
        organ_box.connect("currentIndexChanged(int)", on_changed)
        self._followed: tuple[str, str] | None = None

    @property
    def is_draft(self) -> bool:
        """Nothing is to be started from."""
        return bool(self._choice.chosen()) and self._choice.chosen()[0].key == _DRAFT

    @property
    def organ(self) -> str:
        """Id in the organ table, "" if none is chosen."""
        return self._organ_ids[self._organ_box.currentIndex]

    @property
    def name(self) -> str:
        """What it is called, "" if there is none."""
        place = self._place()
        return place[0].GetSegmentation().GetSegment(place[1]).GetName() if place else ""

    def mask(self, volume: Any) -> SourceMask | None:
        """The chosen mask as it now is; None for a fresh draft.

        Raises:
            SegmentationError: there is none, it is empty, has gone, or its organ is not known.
        """
        self._choice.taken()
        if self.is_draft:
            return None
        place = self._place()
        if place is None:
            raise SegmentationError(
                "No mask is chosen.", "Select a proposal in the list, or choose a segment."
            )
        return source_mask(*place, volume, self.organ)

    def refresh(self) -> None:
        """Another proposal may be selected: the organ follows."""
        current = self._proposals.current
        self._choice.nothing = f"Selected: {current.name}" if current else _SELECTED
        self._choice.refresh()
        place = self._place()
        key = (place[0].GetID(), place[1]) if place else None
        if key == self._followed or self.is_draft:
            return
        self._followed = key
        organ = organ_of(place[0].GetSegmentation().GetSegment(place[1])) if place else ""
        self._organ_box.setCurrentIndex(self._organ_ids.index(organ) if organ in self._organ_ids else 0)

    def forget(self) -> None:
        self._followed = None
        self._choice.forget()

    def _changed(self) -> None:
        self.refresh()
        self._on_changed()

    def _offers(self) -> list[Offer]:
        draft = [Offer(*_DRAFT, "A fresh draft of the model")] if self._with_draft else []
        return draft + scene_choice.segments()

    def _place(self) -> tuple[Any, str] | None:
        """Segmentation node and segment id."""
        chosen = self._choice.chosen()
        if chosen and chosen[0].key != _DRAFT:
            return chosen[0].node, chosen[0].segment_id
        proposals, current = self._proposals.proposals, self._proposals.current
        if chosen or current is None or proposals.node is None:
            return None
        if proposals.node.GetSegmentation().GetSegment(current.id) is None:
            return None  # just removed by hand
        return proposals.node, current.id
