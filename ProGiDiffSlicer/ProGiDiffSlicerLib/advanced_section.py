"""Choices of the computer: device, model, interpreter."""

from __future__ import annotations

from typing import Any

from ProGiDiffSlicerLib import settings


class AdvancedSection:
    """Stores each choice at once; the next prompt uses it, on a restarted engine if need be.

    Args:
        ui: the panel's widgets.
    """

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        for shown in settings.DEVICES:
            ui.deviceBox.addItem(shown)
        self.show()
        ui.deviceBox.connect("currentIndexChanged(int)", self._choose_device)
        ui.modelEdit.connect("editingFinished()", lambda: settings.set_model(ui.modelEdit.text))
        ui.interpreterEdit.connect("currentPathChanged(QString)", settings.set_interpreter)

    def show(self) -> None:
        """Shows what is stored."""
        ui = self._ui
        known = list(settings.DEVICES.values())
        ui.deviceBox.setCurrentIndex(known.index(settings.device()) if settings.device() in known else 0)
        ui.modelEdit.setText("" if settings.model() == "embedded" else settings.model())
        ui.interpreterEdit.setCurrentPath(settings.interpreter())

    def _choose_device(self, index: int) -> None:
        settings.set_device(list(settings.DEVICES.values())[index])
