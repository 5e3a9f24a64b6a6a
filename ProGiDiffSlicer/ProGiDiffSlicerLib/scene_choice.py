"""A button that opens a list of what the scene offers: segments, point lists, boxes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import qt
import slicer

from ProGiDiffSlicerLib import proposals_scene
from ProGiDiffSlicerLib.errors import SegmentationError

_ARROW = "\u2003"  # a wide space, where Qt draws the arrow of the menu over a text that fills the button


@dataclass(frozen=True)
class Offer:
    """Something to choose: a node, or one segment of it."""

    node_id: str
    segment_id: str
    label: str

    @property
    def node(self) -> Any:
        return slicer.mrmlScene.GetNodeByID(self.node_id)

    @property
    def key(self) -> tuple[str, str]:
        return (self.node_id, self.segment_id)


class SceneChoice:
    """The list is made when it is opened, so it is never out of date.

    Args:
        button: QToolButton.
        offers: what there is to choose now.
        nothing: what the button says when nothing is chosen; also the entry that chooses nothing.
        several: whether more than one may be ticked.
        on_changed: called when the choice changed.
    """

    def __init__(
        self,
        button: Any,
        offers: Callable[[], list[Offer]],
        nothing: str,
        several: bool = False,
        on_changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._button, self._offers, self.nothing = button, offers, nothing
        self._several, self._on_changed = several, on_changed
        self._hint = button.toolTip
        self._keys: list[tuple[str, str]] = []
        self._menu = qt.QMenu(button)
        self._menu.connect("aboutToShow()", self._fill)
        button.setMenu(self._menu)
        self.refresh()

    def chosen(self) -> list[Offer]:
        """What is chosen and still there."""
        return [offer for offer in self._offers() if offer.key in self._keys]

    def taken(self) -> list[Offer]:
        """What is chosen, to be worked with.

        Raises:
            SegmentationError: some of it is no longer in the scene, so something else would be done.
        """
        chosen = self.chosen()
        if len(chosen) < len(self._keys):
            self._keys = [offer.key for offer in chosen]
            raise SegmentationError(
                f"What was chosen as “{self._button.text.strip()}” is no longer there.",
                "Look at the choice, then press again.",
            )
        return chosen

    def choose(self, key: tuple[str, str] | None) -> None:
        """Ticks or unticks one entry; None chooses nothing."""
        if key is None:
            self._keys = []
        elif not self._several:
            self._keys = [key]
        elif key in self._keys:
            self._keys.remove(key)
        else:
            self._keys.append(key)
        self.refresh()
        self._on_changed()

    def forget(self) -> None:
        """A closed scene's ids are used again."""
        self._keys = []
        self.refresh()

    def refresh(self) -> None:
        """Shows the names as they now are, and lets go of what is no longer there."""
        self._keys = [offer.key for offer in self.chosen()]
        text = ", ".join(offer.label for offer in self.chosen()) or self.nothing
        self._button.setText(text + _ARROW)  # the button shortens what it has no room for
        self._button.setToolTip(f"{text}\n{self._hint}")

    def _fill(self) -> None:
        self._menu.clear()
        offers = self._offers()
        self._add(self.nothing, None, not self.chosen())
        for offer in offers:
            self._add(offer.label, offer.key, offer.key in self._keys)

    def _add(self, label: str, key: tuple[str, str] | None, ticked: bool) -> None:
        action = self._menu.addAction(label)
        action.setCheckable(True)
        action.setChecked(ticked)
        action.connect("triggered()", lambda: self.choose(key))


def segments() -> list[Offer]:
    """All segments of the scene but the proposals."""
    found = []
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if node.GetAttribute(proposals_scene.ROLE_ATTRIBUTE) or node.GetHideFromEditors():
            continue
        segmentation = node.GetSegmentation()
        for segment_id in segmentation.GetSegmentIDs():
            name = segmentation.GetSegment(segment_id).GetName()
            found.append(Offer(node.GetID(), segment_id, f"{name} ({node.GetName()})"))
    return found


def point_lists() -> list[Offer]:
    nodes = slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")
    return [Offer(n.GetID(), "", f"{n.GetName()}, {_points(n)}") for n in nodes if not n.GetHideFromEditors()]


def boxes() -> list[Offer]:
    nodes = slicer.util.getNodesByClass("vtkMRMLMarkupsROINode")
    return [Offer(n.GetID(), "", n.GetName()) for n in nodes if not n.GetHideFromEditors()]


def marks() -> list[Offer]:
    return point_lists() + segments()


def _points(node: Any) -> str:
    count = node.GetNumberOfDefinedControlPoints()
    return f"{count} point{'' if count == 1 else 's'}"
