"""The box beside the prompt that says, at all times, what the model has been adapted to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ProGiDiffSlicerLib import settings
from ProGiDiffSlicerLib.adapters import Adapters
from ProGiDiffSlicerLib.errors import SegmentationError

_NONE = "nothing (the model as it comes)"


class AdapterBox:
    """Args:
    box: QComboBox.
    adapters: what there is to choose.
    on_failed: called with the error when one cannot be used.
    """

    def __init__(self, box: Any, adapters: Adapters, on_failed: Callable[[SegmentationError], None]) -> None:
        self._box, self._adapters, self._on_failed = box, adapters, on_failed
        self._hint = box.toolTip
        self._paths: list[str] = []
        box.connect("activated(int)", self._chosen)
        adapters.on_changed.append(self.show)
        self.show()

    def show(self) -> None:
        """The known ones, and the active one even before the engine has been asked."""
        usable = {a["path"]: a["name"] for a in self._adapters.known if a["fits"] is not False}
        active = self._adapters.active
        if active and active not in usable:
            usable[active] = settings.adapter_name() or active
        self._paths = ["", *usable]
        self._box.clear()
        for name in (_NONE, *usable.values()):
            self._box.addItem(name)
        self._box.setCurrentIndex(self._paths.index(active))
        self._box.setToolTip(f"{self._box.currentText}\n{self._hint}")

    def _chosen(self, index: int) -> None:
        if self._paths[index] != self._adapters.active:
            self._adapters.use(self._paths[index], self._on_failed)
