"""A Segmenter without a network: balls where organs might be, at once and always the same.

Worker and command line use it when `PROGIDIFF_SEGMENTER=fake_segmenter:load` is set. The model name
chooses how it misbehaves, for instance "fake:slow,noisy":

- slow: every denoising step takes 0.05 s
- patient: after the first proposal it does nothing until it is cancelled
- noisy: prints to stdout, from Python and from below it
- oom: has no room on the "GPU", but on the CPU; small_batches: one `reduce_memory` suffices
- no_memory: MemoryError everywhere
- bug: an unforeseen exception; exit: calls sys.exit
- late: the set has one proposal that was not streamed
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from progidiff.errors import Cancelled, ModelError
from progidiff.prompts import Target
from progidiff.proposals import Proposal, ProposalSet, Provenance, SegmentationResult, summarise
from progidiff.volumes.volume import Volume

BEHAVIOURS = {"slow", "patient", "noisy", "oom", "small_batches", "no_memory", "bug", "exit", "late"}


class OutOfMemoryError(RuntimeError):
    """Stands for torch.OutOfMemoryError, which is recognised by this name."""


@dataclass
class FakePrepared:
    volume: Volume
    modality: str


class FakeSegmenter:
    """The interface of `progidiff.segmenter.Segmenter`."""

    model_id = "fake"
    model_hash = "0" * 64
    default_steps = 4
    findings: tuple[str, ...] = ()

    def __init__(self, behaviours: set[str], device: str) -> None:
        self.behaviours = behaviours
        self.device = device
        self.adapter = ""
        self.batch = 8

    def load_adapter(self, path: os.PathLike[str]) -> None:
        self.adapter = str(path)

    def unload_adapter(self) -> None:
        self.adapter = ""

    def reduce_memory(self) -> bool:
        self.batch //= 2
        return "small_batches" in self.behaviours and self.batch > 1

    def prepare(self, volume: Volume, modality: str = "auto") -> FakePrepared:
        if "noisy" in self.behaviours:
            print("a library prints")
            print("hub offline:", os.environ.get("HF_HUB_OFFLINE"))
            os.write(1, b"C code prints\n")
            child = "import sys; print('a child reads', repr(sys.stdin.read()))"
            subprocess.run([sys.executable, "-c", child], check=True)
        return FakePrepared(volume, "CT" if modality == "auto" else modality)

    def propose(
        self,
        prepared: FakePrepared,
        target: Target,
        *,
        proposals: int = 5,
        steps: int | None = None,
        seed: int = 0,
        prompt: str = "",
        on_step: Callable[[int, int], None] = lambda done, total: None,
        on_proposal: Callable[[Proposal], None] = lambda proposal: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> ProposalSet:
        steps = steps or self.default_steps
        made: list[Proposal] = []
        for number in range(proposals):
            while "patient" in self.behaviours and made and not cancelled():
                time.sleep(0.02)
            for step in range(steps):
                if cancelled():
                    raise Cancelled("The job was cancelled.")
                time.sleep(0.05 if "slow" in self.behaviours else 0.0)
                on_step(number * steps + step + 1, proposals * steps)
            if number == 1:
                self._misbehave()
            origin = Provenance(prompt, self.model_id, self.model_hash, seed + number, steps, self.device)
            made.append(ball(prepared.volume, target, f"{target.name} {number + 1}", origin))
            if "late" not in self.behaviours or number > 0:
                on_proposal(made[-1])
        return summarise(target, prepared.volume.grid, made)

    def _misbehave(self) -> None:
        if "bug" in self.behaviours:
            raise KeyError("a bug")
        if "exit" in self.behaviours:
            sys.exit("a library gives up")
        if "no_memory" in self.behaviours:
            raise MemoryError
        if "oom" in self.behaviours and self.device != "cpu" and self.batch > 4:
            raise OutOfMemoryError("CUDA out of memory")
        if "oom" in self.behaviours and self.device != "cpu" and "small_batches" not in self.behaviours:
            raise OutOfMemoryError("CUDA out of memory")

    def segment(
        self, volume: Volume, prompt: str, modality: str = "auto", **options: object
    ) -> SegmentationResult:
        from progidiff.prompts import parse_prompt

        prepared = self.prepare(volume, modality)
        sets = [self.propose(prepared, target, prompt=prompt, **options) for target in parse_prompt(prompt)]  # type: ignore[arg-type]
        times = {"propose": 0.1}
        return SegmentationResult(volume, prompt, sets, self.model_id, self.model_hash, self.device, times)


def ball(volume: Volume, target: Target, name: str, origin: Provenance) -> Proposal:
    """A soft ball in the middle of the volume whose radius depends on the seed."""
    places = np.indices(volume.shape) - (np.array(volume.shape).reshape(3, 1, 1, 1) - 1) / 2
    distance = np.sqrt((places**2).sum(axis=0))
    radius = min(volume.shape) / 4 * (1 + 0.1 * (origin.seed % 5))
    probability = (1 / (1 + np.exp(np.clip(distance - radius, -30, 30) * 2))).astype(np.float32)
    inside = tuple(slice(1, max(n - 1, 1)) for n in volume.shape)
    return Proposal(name, target, volume.grid, inside, probability[inside], origin)  # type: ignore[arg-type]


def load(model: str, device: str) -> FakeSegmenter:
    """The function that `PROGIDIFF_SEGMENTER` names."""
    behaviours = set(filter(None, model.removeprefix("embedded").removeprefix("fake:").split(",")))
    if not behaviours <= BEHAVIOURS:
        raise ModelError(f"There is no model {model!r}.", "Choose another one.")
    gpu = "oom" in behaviours and device == "auto"
    return FakeSegmenter(behaviours, "cuda:0" if gpu else "cpu")
