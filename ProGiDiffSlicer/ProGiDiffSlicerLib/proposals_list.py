"""The list of proposals: a group per organ, a row per proposal with its thumbnail and numbers."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt

from ProGiDiffSlicerLib import columns, thumbnails
from ProGiDiffSlicerLib.organs import organs
from ProGiDiffSlicerLib.proposal import CONSENSUS, Proposal
from ProGiDiffSlicerLib.volume_proposals import OrganGroup, VolumeProposals

_ID_ROLE = qt.Qt.UserRole
_NAME, _SCORE, _VOLUME, _OVERLAP = range(4)
_TITLE_HEIGHT = 24


class ProposalsList:
    """Shows a :class:`VolumeProposals` in a QTreeWidget.

    Args:
        tree: the QTreeWidget of the .ui.
        on_selected: called with the id of the row that became current, "" for none.
        on_ticked: called when a tick box changed.
    """

    def __init__(self, tree: Any, on_selected: Callable[[str], None], on_ticked: Callable[[], None]) -> None:
        self._tree = tree
        self._on_selected, self._on_ticked = on_selected, on_ticked
        self._rows: dict[str, Any] = {}
        self._icons: dict[tuple[str, float, float], Any] = {}
        self._filling = False
        tree.setIconSize(qt.QSize(thumbnails.SIZE, thumbnails.SIZE))
        columns.fit(tree, minor=_OVERLAP)
        self._explain_columns()
        tree.connect("currentItemChanged(QTreeWidgetItem*,QTreeWidgetItem*)", self._selection_changed)
        tree.connect("itemChanged(QTreeWidgetItem*,int)", self._item_changed)

    def _explain_columns(self) -> None:
        head = self._tree.headerItem()
        head.setToolTip(_SCORE, "How much of a careful manual outline this proposal is expected to match")
        head.setToolTip(_VOLUME, "Volume in millilitres")
        head.setToolTip(
            _OVERLAP, "Overlap with the consensus of all proposals: the lower, the more it differs"
        )
        for column in (_SCORE, _VOLUME, _OVERLAP):
            head.setTextAlignment(column, qt.Qt.AlignRight | qt.Qt.AlignVCenter)

    def show(self, proposals: VolumeProposals | None) -> None:
        """Fills the list anew, keeping selection and ticks."""
        selected, ticked = self.selected(), set(self.ticked())
        self._filling = True
        try:
            self._rows = {}
            self._tree.clear()
            for group in proposals.groups.values() if proposals else []:
                self._add_group(proposals, group, ticked)
        finally:
            self._filling = False
        self._icons = {key: icon for key, icon in self._icons.items() if key[0] in self._rows}
        if selected in self._rows:
            self.select(selected)
        elif selected:
            self._on_selected("")

    def selected(self) -> str:
        item = self._tree.currentItem()
        return str(item.data(_NAME, _ID_ROLE) or "") if item is not None else ""

    def ticked(self) -> list[str]:
        return [i for i, row in self._rows.items() if row.checkState(_NAME) == qt.Qt.Checked]

    def select(self, proposal_id: str) -> None:
        if proposal_id in self._rows:
            self._tree.setCurrentItem(self._rows[proposal_id])

    def step(self, by: int) -> None:
        """Selects the next or previous proposal, around the ends."""
        ids = list(self._rows)
        if not ids:
            return
        here = ids.index(self.selected()) if self.selected() in ids else (-1 if by > 0 else 0)
        self.select(ids[(here + by) % len(ids)])

    def update_row(self, proposals: VolumeProposals, proposal: Proposal) -> None:
        """Shows new numbers of a proposal."""
        row = self._rows.get(proposal.id)
        if row is not None:
            self._filling = True
            try:
                self._fill_row(row, proposals, proposal)
            finally:
                self._filling = False

    def _add_group(self, proposals: VolumeProposals, group: OrganGroup, ticked: set[str]) -> None:
        members = proposals.ordered(group.organ)
        head = qt.QTreeWidgetItem()
        title = _group_title(group, members)
        head.setText(_NAME, title)
        head.setToolTip(_NAME, title)
        head.setFlags(qt.Qt.ItemIsEnabled)
        head.setSizeHint(_NAME, qt.QSize(0, _TITLE_HEIGHT))
        font = qt.QFont(self._tree.font)
        font.setBold(True)
        head.setFont(_NAME, font)
        self._tree.addTopLevelItem(head)
        head.setFirstColumnSpanned(True)
        if not group.found:
            self._add_reason(head, group.reason)
        for proposal in members:
            row = qt.QTreeWidgetItem()
            head.addChild(row)
            row.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable | qt.Qt.ItemIsUserCheckable)
            row.setCheckState(_NAME, qt.Qt.Checked if proposal.id in ticked else qt.Qt.Unchecked)
            self._fill_row(row, proposals, proposal)
            self._rows[proposal.id] = row
        head.setExpanded(True)

    def _add_reason(self, head: Any, reason: str) -> None:
        row = qt.QTreeWidgetItem()
        head.addChild(row)
        row.setFlags(qt.Qt.ItemIsEnabled)
        row.setText(_NAME, reason or "Nothing was found.")
        row.setToolTip(_NAME, reason)
        row.setFirstColumnSpanned(True)

    def _fill_row(self, row: Any, proposals: VolumeProposals, proposal: Proposal) -> None:
        row.setText(_NAME, _short_name(proposal))
        row.setData(_NAME, _ID_ROLE, proposal.id)
        row.setIcon(_NAME, self._icon(proposals, proposal))
        # Streamed proposals are scored when all have arrived: until then there is none, which is not 0 %.
        row.setText(_SCORE, f"{100 * proposal.score:.0f} %" if proposal.score > 0 else "")
        row.setText(_VOLUME, milliliters(proposal.volume_ml))
        row.setText(_OVERLAP, _overlap(proposal))
        row.setToolTip(_NAME, _history(proposal))
        for column in (_SCORE, _VOLUME, _OVERLAP):
            row.setTextAlignment(column, qt.Qt.AlignRight | qt.Qt.AlignVCenter)

    def _icon(self, proposals: VolumeProposals, proposal: Proposal) -> Any:
        key = (proposal.id, proposal.threshold, proposal.volume_ml)
        if key not in self._icons:
            known = proposals.with_probability(proposal.id)
            organ = organs().get(proposal.organ)
            color = organ.color if organ else (0.95, 0.6, 0.2)
            pixels = thumbnails.picture(proposals.volume, known.mask, known.region, color)
            self._icons[key] = _icon_of(thumbnails.png(pixels))
        return self._icons[key]

    def _selection_changed(self, _current: Any, _previous: Any) -> None:
        if not self._filling:
            self._on_selected(self.selected())

    def _item_changed(self, _item: Any, column: int) -> None:
        if not self._filling and column == _NAME:
            self._on_ticked()


def milliliters(volume: float) -> str:
    return f"{volume:.0f} ml" if volume >= 100 else f"{volume:.1f} ml"


def _icon_of(file_content: bytes) -> Any:
    """Through a file, which every Qt binding reads alike."""
    with tempfile.TemporaryDirectory(prefix="ProGiDiffSlicer-") as folder:
        path = Path(folder) / "thumbnail.png"
        try:
            path.write_bytes(file_content)
        except OSError as problem:
            logging.getLogger("ProGiDiffSlicer").warning("No thumbnail: %s", problem)
            return qt.QIcon()
        pixmap = qt.QPixmap(str(path))
        icon = qt.QIcon(pixmap)
        icon.addPixmap(pixmap, qt.QIcon.Selected)  # or Qt would tint it in the selected row
        return icon


def _short_name(proposal: Proposal) -> str:
    """Below its group's title the organ's name says nothing new."""
    rest = proposal.name.removeprefix(proposal.organ_name).lstrip(": ")
    text = rest or proposal.name
    return f"Proposal {text}" if text[0].isdigit() else text[0].upper() + text[1:]


def _group_title(group: OrganGroup, members: list[Proposal]) -> str:
    title = group.name[:1].upper() + group.name[1:]
    if not group.found:
        return f"{title}: not found"
    sampled = sum(1 for p in members if p.kind == "sampled")
    if group.runs > 1:  # how many of all differ is only known within one run
        return f"{title}: {sampled} proposals"
    if group.distinct and sampled > 1:
        return f"{title}: {sampled} proposals, {group.distinct} really different"
    return title


def _overlap(proposal: Proposal) -> str:
    """With the consensus; "" where there is none beside it."""
    overlap = proposal.dice_to_consensus
    return "" if proposal.kind == CONSENSUS or overlap is None else f"{100 * overlap:.0f} %"


def _history(proposal: Proposal) -> str:
    made, overlap = proposal.provenance, _overlap(proposal)
    lines = [proposal.name]
    if overlap:
        lines.append(f"Overlap with the consensus: {overlap}")
    if made.get("prompt"):
        lines.append(f"Asked for: {made['prompt']}")
    if proposal.is_steered:
        lines += _steering(made)
    elif made.get("method") and made["method"] != "sampled":
        lines.append(f"Made by: {made['method']}")
    if made.get("adapter"):
        lines.append(f"Adapted by: {made['adapter']}")
    lines.append(
        f"Model: {made.get('model', '')}, seed {made.get('seed', '')}, {made.get('steps', '')} steps"
    )
    return "\n".join(lines)


def _steering(made: dict[str, Any]) -> list[str]:
    """Where a varied or constrained proposal comes from."""
    lines = [f"{made['method'].capitalize()} from: {made.get('parent') or 'a fresh draft'}"]
    if made.get("strength") not in (None, ""):
        lines.append(f"Change: {100 * float(made['strength']):.0f} % (0 is almost the same, 100 forgets it)")
    if made.get("constraints"):
        lines.append(f"Kept to: {made['constraints']}")
    return lines
