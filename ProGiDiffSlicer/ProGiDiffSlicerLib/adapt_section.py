"""The one button that teaches the model, and how far it is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ProGiDiffSlicerLib import settings
from ProGiDiffSlicerLib.cases_section import CasesSection
from ProGiDiffSlicerLib.errors import SegmentationError
from ProGiDiffSlicerLib.job import Job
from ProGiDiffSlicerLib.job_view import JobView, time_left
from ProGiDiffSlicerLib.teaching import adapt_job

_LOG = logging.getLogger("ProGiDiffSlicer")
_STAGES = {"starting": "Starting the engine…", "loading": "Loading the model…", "working": "Beginning…"}


class AdaptSection:
    """Args:
    ui: the panel's widgets.
    logic: ProGiDiffSlicerLogic.
    cases: what there is to learn from.
    on_learnt: called with the adapter, as the worker describes it, when an adaptation has ended.
    """

    def __init__(
        self,
        ui: Any,
        logic: Any,
        cases: CasesSection,
        on_learnt: Callable[[dict[str, Any]], None],
    ) -> None:
        self._ui, self._logic, self._cases, self._on_learnt = ui, logic, cases, on_learnt
        self._job: Job | None = None
        self._messages: list[str] = []
        self._view = JobView(ui.adaptBar, ui.adaptStatus)
        ui.adaptButton.connect("clicked()", self.start_or_cancel)
        self.refresh()

    @property
    def is_running(self) -> bool:
        return self._job is not None and not self._job.finished

    def refresh(self) -> None:
        """Enables the button and says what is missing."""
        button, running = self._ui.adaptButton, self.is_running
        unfinished = bool(settings.unfinished_training()) and (
            settings.unfinished_training() == settings.case_library()
        )
        has_cases = bool(settings.case_library()) and self._cases.count != 0
        title = "Continue to adapt" if unfinished else "Adapt to my cases"
        button.setText("Cancel" if running else title)
        button.setEnabled(running or (has_cases and not self._logic.engine.is_busy()))
        if running:
            hint = "Stop; it can go on from there later"
        elif not has_cases:
            hint = "Add cases first."
        elif unfinished:
            hint = "Goes on where it stopped, unless the cases have changed since"
        else:
            hint = "Let the model learn from these cases, in the background"
        button.setToolTip(hint)
        if not running:
            self._view.end()

    def start_or_cancel(self) -> None:
        if self.is_running:
            self._view.say("Stopping; this can take a moment…")
            self._logic.engine.cancel()
        elif not self._logic.engine.is_busy():
            self.start()

    def start(self) -> None:
        job = self._job = adapt_job(settings.case_library())
        job.on_progress, job.on_message = self._progress, self._message
        job.on_done, job.on_failed = self._done, self._failed
        self._messages = []
        self._view.say("")
        settings.set_unfinished_training(settings.case_library())  # holds if Slicer ends meanwhile, too
        self._logic.learn(job)
        self.refresh()

    def _progress(self, stage: str, params: dict[str, Any]) -> None:
        if not params:
            self._view.progress(0, _STAGES[stage])
            return
        self._view.progress(params["fraction"], f"{params['text']}{time_left(params['seconds_left'])}")
        if not self._job.cancelled:
            self._view.say(" ".join([_losses(params), *self._messages]).strip())

    def _message(self, text: str) -> None:
        if text not in self._messages:
            self._messages.append(text)

    def _done(self, result: dict[str, Any]) -> None:
        adapter = result.get("adapter")
        if adapter is None:
            self._view.say("Cancelled. It can go on from there; all cases are kept.")
            return
        settings.set_unfinished_training("")
        better = f"It got better: “{adapter['name']}” is in use now. See below what it has learnt."
        text = better if result["activated"] else adapter["verdict"]
        self._view.say(" ".join([text, *self._messages]))
        self._on_learnt(adapter)

    def _failed(self, error: SegmentationError) -> None:
        if error.details:
            _LOG.error("%s\n%s", error, error.details)
        if error.kind == "CasesError":
            settings.set_unfinished_training("")
            self._view.say(str(error), problem=True)
        elif error.kind == "WorkerDied":
            self._view.say(
                f"{error.message} All cases are kept; press Continue to adapt to go on from there.",
                problem=True,
            )
        else:
            self._view.say(f"{error} All cases are kept.", problem=True)


def _losses(params: dict[str, Any]) -> str:
    """The errors being made, while there are any to tell."""
    told = []
    if params.get("loss") is not None:
        told.append(f"step {params['step']} of {params['steps']}, loss {params['loss']:.3f}")
    if params.get("held_out_loss") is not None:
        told.append(f"loss on held-out slices {params['held_out_loss']:.3f}")
    text = ", ".join(told)
    return f"{text[:1].upper()}{text[1:]}." if text else ""
