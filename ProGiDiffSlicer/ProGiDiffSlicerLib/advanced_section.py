"""Choices of the computer, and the model."""

from __future__ import annotations

from typing import Any

import qt

from ProGiDiffSlicerLib import settings
from ProGiDiffSlicerLib.models import Model
from ProGiDiffSlicerLib.parameters import Parameters

_NOT_STARTED = "The list is complete once the engine has started."
_NOT_THERE = "This model is not on this computer. Choose another one."


class AdvancedSection:
    """Stores each choice at once; the next prompt uses it, on a restarted engine if need be.

    The model is also saved with the scene, so that the same prompt gives the same proposals again.

    Args:
        ui: the panel's widgets.
        logic: ProGiDiffSlicerLogic.
    """

    def __init__(self, ui: Any, logic: Any) -> None:
        self._ui, self._logic, self._models = ui, logic, logic.models
        self._parameters: Parameters | None = None
        self._choices: list[str] = []
        for shown in settings.DEVICES:
            ui.deviceBox.addItem(shown)
        self.show()
        ui.deviceBox.connect("currentIndexChanged(int)", self._choose_device)
        ui.modelBox.connect("activated(int)", lambda index: self._choose_model(self._choices[index]))
        ui.modelFolderButton.connect("clicked()", self._choose_folder)
        ui.interpreterEdit.connect("currentPathChanged(QString)", settings.set_interpreter)
        ui.advancedSection.connect("contentsCollapsed(bool)", self._unfolded)
        self._models.on_changed.append(self.show_models)

    def set_parameters(self, parameters: Parameters) -> None:
        """A scene came: its model is taken; one that names none gets the one in use."""
        self._parameters = parameters
        if parameters.model:
            self._models.choose(parameters.model)
        else:
            parameters.model = settings.model()

    def forget(self) -> None:
        """The scene is going."""
        self._parameters = None

    def show(self) -> None:
        """Shows what is stored."""
        ui = self._ui
        known = list(settings.DEVICES.values())
        ui.deviceBox.setCurrentIndex(known.index(settings.device()) if settings.device() in known else 0)
        ui.interpreterEdit.setCurrentPath(settings.interpreter())
        self.show_models()

    def show_models(self) -> None:
        """The list of models, and what the chosen one is."""
        ui, chosen, known = self._ui, self._models.chosen, self._models.known
        self._choices = [model.choice for model in known]
        ui.modelBox.clear()
        for model in known:
            ui.modelBox.addItem(model.name if model.there else f"{model.name} (missing)")
        ui.modelBox.setCurrentIndex(self._choices.index(chosen.choice))
        ui.modelBox.setToolTip(chosen.choice)
        ui.modelDescription.setText(self._description(chosen))

    def _description(self, model: Model) -> str:
        if not model.there:
            return _NOT_THERE
        return model.description or ("" if self._models.heard_of_all else _NOT_STARTED)

    def _unfolded(self, collapsed: bool) -> None:
        if not collapsed:  # the engine knows which models there are
            self._logic.engine.warm_up()

    def _choose_device(self, index: int) -> None:
        settings.set_device(list(settings.DEVICES.values())[index])

    def _choose_folder(self) -> None:
        folder = qt.QFileDialog.getExistingDirectory(
            self._ui.advancedSection, "Choose the folder of a model", ""
        )
        if folder:
            self._choose_model(folder)

    def _choose_model(self, choice: str) -> None:
        self._models.choose(choice)
        if self._parameters is not None:
            self._parameters.model = choice
