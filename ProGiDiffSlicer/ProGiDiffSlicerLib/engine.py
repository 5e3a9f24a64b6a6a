"""The engine as the panel and scripts use it: warm, restarted when needed, one job at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import qt
import slicer

from ProGiDiffSlicerLib import settings
from ProGiDiffSlicerLib.array_files import give_array, take_array
from ProGiDiffSlicerLib.errors import SegmentationError
from ProGiDiffSlicerLib.job import Job
from ProGiDiffSlicerLib.launching import default_launch
from ProGiDiffSlicerLib.volume_image import VolumeImage
from ProGiDiffSlicerLib.worker import Launch, Worker

_LOG = logging.getLogger("ProGiDiffSlicer")
_START_SECONDS = 180
_CANCEL_SECONDS = 10
Conversation = Generator[tuple[str, dict[str, Any]], dict[str, Any], None]


class Engine:
    """Keeps one worker alive between jobs.

    Args:
        launch: says how to start the worker; asked again at each start, so that settings take effect.

    Attributes:
        on_busy_changed: called when a job starts or ends.
        on_ready: called when a worker has said hello, and when it has loaded a model.
    """

    def __init__(self, launch: Callable[[], Launch] = default_launch) -> None:
        self._launch = launch
        self._worker: Worker | None = None
        self._buried: list[Worker] = []  # a process object must outlive the signal that announced its end
        self.job: Job | None = None
        self.greeting: dict[str, Any] = {}
        self.model: dict[str, Any] = {}
        self._model_choice: tuple[str, str, str] | None = None
        self._open_volumes: dict[str, str] = {}
        self.on_busy_changed: list[Callable[[], None]] = []
        self.on_ready: list[Callable[[], None]] = []
        self._last_error = SegmentationError(
            "The segmentation engine is not running.", "Press Propose again."
        )
        self._patience = self._timer(self._lost_patience)

    @staticmethod
    def _timer(function: Callable[[], None]) -> Any:
        timer = qt.QTimer()
        timer.setSingleShot(True)
        timer.connect("timeout()", function)
        return timer

    @property
    def device(self) -> str:
        """What the model really runs on; empty before it is loaded."""
        return str(self.model.get("device", ""))

    def is_busy(self) -> bool:
        return self.job is not None

    def submit(self, job: Job) -> None:
        """Starts a job.

        Raises:
            SegmentationError: another job is running.
        """
        if self.job is not None:
            raise SegmentationError("The engine is still busy.", "Wait for it, or press Cancel.", kind="Busy")
        self.job = job
        self._tell_busy()
        self._converse(self._work(job), job)

    def ask(
        self,
        method: str,
        done: Callable[[dict[str, Any]], None],
        failed: Callable[[SegmentationError], None],
        params: dict[str, Any] | None = None,
        with_model: bool = False,
    ) -> None:
        """A single question such as "doctor", starting the worker if needed.

        Args:
            with_model: the answer depends on the model, so it is loaded first.
        """

        def conversation() -> Conversation:
            yield from self._greet()
            if with_model:
                self._check_torch()
                yield from self._load(lambda: None)
            done((yield method, params or {}))

        self._converse(conversation(), None, failed)

    def use_adapter(
        self, path: str, done: Callable[[], None], failed: Callable[[SegmentationError], None]
    ) -> None:
        """Switches the warm model; a model that is not loaded yet takes the adapter of the settings."""
        if self._model_choice is None or self._worker is None:
            done()
            return

        def switched(_answer: dict[str, Any]) -> None:
            self.adapter_is(path)
            done()

        self.ask("adapter_activate", switched, failed, {"path": path})

    def adapter_is(self, path: str) -> None:
        """The worker has another adapter on its model now; opened volumes stay open."""
        if self._model_choice is not None:
            self._model_choice = (*self._model_choice[:2], path)

    def warm_up(self) -> None:
        """Starts the worker in advance, since importing torch takes seconds: a prompt is being typed."""
        if self._worker is None:
            self.ask("ping", lambda _result: None, lambda error: _LOG.info("Not warmed up: %s", error))

    def cancel(self) -> None:
        """Stops the running job between two denoising steps; what had arrived stays."""
        job = self.job
        if job is None or job.cancelled:
            return
        job.cancelled = True
        if job.stage == "working" and job.has_id and self._worker is not None:
            self._worker.request("cancel", {"job_id": job.id}, lambda _result: None, lambda _error: None)
            self._patience.start(round((job.cancel_seconds or _CANCEL_SECONDS) * 1000))
        else:
            self._finish(job, lambda: job.on_done({"sets": [], "cancelled": True}))

    def stop(self) -> None:
        """Ends the worker, for quitting, reloading, or starting it with other settings."""
        self._patience.stop()
        job, self.job = self.job, None
        self._end_worker()
        if job is not None:
            job.finished = True
            self._tell_busy()

    def _end_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()
            self._buried.append(worker)
        self._forget()

    def close_volume(self, volume_id: str) -> None:
        """A volume has left the scene: ends the job on it and lets the worker free what it remembers."""
        job = self.job
        if job is not None and job.volume_id == volume_id:
            self.cancel()
            error = SegmentationError(
                "The volume was removed while proposals were being made.",
                "Choose another volume.",
                kind="VolumeGone",
            )
            self._finish(job, lambda: job.on_failed(error))
        if self._open_volumes.pop(volume_id, None) and self._worker is not None and self._worker.is_running():
            self._worker.request(
                "close_volume", {"volume_id": volume_id}, lambda _result: None, lambda _error: None
            )

    def wait(self, milliseconds: int = 50) -> None:
        """Lets answers come in, with or without an event loop."""
        slicer.app.processEvents()
        if self._worker is not None:
            self._worker.wait(milliseconds)

    def take(self, name: str) -> np.ndarray:
        """Reads an array that the worker announced."""
        return take_array(self.greeting["directory"], name)

    def _work(self, job: Job) -> Conversation:
        """What is said to the worker for one job; each `yield` is a request and its answer."""
        yield from self._greet(job)
        self._check_torch()
        yield from self._load(lambda: self._stage(job, "loading"))
        params = dict(job.params)
        if job.image is not None:
            yield from self._open(job, job.image)
            params["volume_id"] = job.image.id
        if job.has_id:
            params["job_id"] = job.id
        self._stage(job, "working")
        result = yield job.method, self._handed_over(params)
        job.keep_result(result)
        self._finish(job, lambda: job.on_done(result))

    def _load(self, tell: Callable[[], None]) -> Conversation:
        choice = (settings.model(), settings.device(), settings.adapter())
        if choice == self._model_choice:
            return
        tell()
        model, device, adapter = choice
        self._model_choice = None
        self.model = yield "load_model", {"model": model, "device": device, "adapter": adapter}
        self._model_choice, self._open_volumes = choice, {}
        self._tell_ready()

    def _open(self, job: Job, image: VolumeImage) -> Conversation:
        if self._open_volumes.get(image.id) == image.fingerprint:
            return
        self._stage(job, "reading")
        described = {"volume_id": image.id, "name": image.name, "modality": "auto"}
        place = {"array": image.array, "affine": image.affine.tolist()}
        yield "open_volume", self._handed_over({**described, **place})
        self._open_volumes[image.id] = image.fingerprint

    def _handed_over(self, value: Any) -> Any:
        """The same parameters, with the names of files in place of arrays."""
        if isinstance(value, np.ndarray):
            return give_array(self.greeting["directory"], value)
        if isinstance(value, dict):
            return {key: self._handed_over(v) for key, v in value.items()}
        return [self._handed_over(v) for v in value] if isinstance(value, list) else value

    def _greet(self, job: Job | None = None) -> Conversation:
        launch = self._launch()
        if self._worker is not None and self._worker.launch != launch and self.job is job:
            self._end_worker()  # another interpreter was chosen; a question does not end the job that runs
        if self._worker is not None and self._worker.is_running() and self.greeting:
            return
        if self._worker is None or not self._worker.is_running():
            self._start(launch)
        self.greeting = yield "hello", {}
        self._worker.pid = int(self.greeting.get("pid") or 0)
        self._patience.stop()
        self._tell_ready()

    def _check_torch(self) -> None:
        if not self.greeting.get("torch"):
            reason = self.greeting.get("torch_problem") or "it is not installed"
            raise SegmentationError(
                f"The Python interpreter {self._worker.launch.program} cannot use PyTorch: {reason}.",
                "Open Setup and press Install, or choose another interpreter.",
                kind="MissingPackage",
            )

    def _start(self, launch: Launch) -> None:
        self._forget()
        self._buried = self._buried[-1:]
        self._worker = Worker(launch, self._on_notice, self._on_gone)
        self._patience.start(_START_SECONDS * 1000)
        self._worker.start()

    def _forget(self) -> None:
        self.greeting, self.model, self._model_choice, self._open_volumes = {}, {}, None, {}

    def _stage(self, job: Job, stage: str) -> None:
        job.stage = stage
        job.on_progress(stage, {})

    def _converse(
        self, talk: Conversation, job: Job | None, failed: Callable[[SegmentationError], None] | None = None
    ) -> None:
        """Runs a conversation: sends what it yields, gives it back the answers."""

        def fail(error: SegmentationError) -> None:
            talk.close()
            if job is not None:
                self._finish(job, lambda: job.on_failed(error))
            elif failed is not None:
                failed(error)

        def step(answer: dict[str, Any] | None) -> None:
            if job is not None and job.finished:
                talk.close()
                return
            try:
                method, params = talk.send(answer)
            except StopIteration:
                return
            except SegmentationError as error:
                fail(error)
                return
            except Exception as problem:
                _LOG.exception("The conversation with the engine broke off")
                fail(_unforeseen(problem))
                return
            if self._worker is None:
                fail(self._last_error)
            else:
                self._worker.request(method, params, step, fail)

        step(None)

    def _finish(self, job: Job, tell: Callable[[], None]) -> None:
        if job.finished:
            return
        job.finished = True
        if self.greeting:  # otherwise a worker is still waited for
            self._patience.stop()
        if self.job is job:
            self.job = None
        tell()
        self._tell_busy()

    def _tell_busy(self) -> None:
        for tell in self.on_busy_changed:
            tell()

    def _tell_ready(self) -> None:
        for tell in self.on_ready:
            tell()

    def _on_notice(self, method: str, params: dict[str, Any]) -> None:
        job = self.job
        if method == "message" and job is not None:
            job.on_message(str(params.get("text", "")))
        if job is None or params.get("job_id") != job.id:
            if method == "proposal":  # of a job that was ended: nobody will read its file
                self._discard(params["proposal"])
            return
        if method in ("progress", "adapt_progress"):
            job.on_progress("working", params)
        elif method == "proposal":
            self._pass_on(job, params["proposal"])

    def _pass_on(self, job: Job, description: dict[str, Any]) -> None:
        try:
            proposal_id = job.keep(description, self.take(description["probability"]))
        except SegmentationError as error:
            job.on_message(str(error))
            return
        job.on_proposal(proposal_id)

    def _discard(self, description: dict[str, Any]) -> None:
        try:
            self.take(description["probability"])
        except SegmentationError as error:
            _LOG.info("%s", error)

    def _on_gone(self, error: SegmentationError) -> None:
        """The worker has ended by itself. Whoever waited for an answer has been told."""
        self._patience.stop()
        self._last_error = error
        if self._worker is not None:
            self._buried.append(self._worker)
        self._worker = None
        self._forget()
        job = self.job
        if job is not None:
            self._finish(job, lambda: job.on_failed(error))

    def _lost_patience(self) -> None:
        """The worker did not say hello, or did not stop when asked: it is ended, and said so."""
        job = self.job
        if job is not None and job.cancelled:
            self.job = None
            self.stop()
            self._finish(job, lambda: job.on_done({"sets": [], "cancelled": True}))
        elif self._worker is not None:
            self._worker.give_up(
                SegmentationError(
                    "The segmentation engine did not start in time.",
                    "Run the self-check in Setup.",
                    kind="StartTimeout",
                )
            )


def _unforeseen(problem: Exception) -> SegmentationError:
    return SegmentationError(
        f"Something unforeseen happened: {type(problem).__name__}: {problem}.",
        "Please report it with the text of the Python console.",
        kind="InternalError",
    )
