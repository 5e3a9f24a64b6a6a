"""Vary and constrain: new proposals from a mask, from marks, or from both."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from progidiff.errors import UsageError
from progidiff.pipelines.steering import SteeredSampler
from progidiff.prompts import Target, organ_table
from progidiff.prompts.findings import finding_error
from progidiff.proposals import Proposal, ProposalSet, Provenance, summarise
from progidiff.proposals.ranking import require_grid
from progidiff.quality import CONSTRAIN_STRENGTH, VARY_STRENGTH, check_numbers, check_strength
from progidiff.segmenter import to_proposal
from progidiff.steering.options import SteerOptions
from progidiff.steering.promises import Promises
from progidiff.steering.voxels import Voxels
from progidiff.steering.window import guess_on, knowledge_on, window_for

if TYPE_CHECKING:
    from progidiff.segmenter import OrganCrop, PreparedVolume, Segmenter

_MOST_DOUBT = 3.0
"""Logits by which a mask that is varied at full strength may read the image differently."""


def vary(
    segmenter: Segmenter,
    prepared: PreparedVolume,
    parent: Proposal,
    strength: float = VARY_STRENGTH,
    region: Voxels | None = None,
    options: SteerOptions | None = None,
) -> ProposalSet:
    """New proposals near a given one: noised part of the way and denoised again.

    Args:
        segmenter: the model.
        prepared: the volume, from `Segmenter.prepare`.
        parent: a proposal, or any mask by `proposal_from_mask`.
        strength: 0 returns it almost unchanged, 1 forgets it.
        region: the only voxels that may change.
        options: how many, and so on.

    Raises:
        UsageError: numbers out of range, an empty parent, or one that belongs to another volume.
        Cancelled: proposals already given to `on_proposal` stay valid.
    """
    if parent.is_empty:
        raise UsageError(f"“{parent.name}” is empty.", "Choose a mask with something in it.")
    promises = Promises(region=region, parent=parent)
    # Who asks for something quite different doubts what the image says, who marks it does not.
    doubt = strength * _MOST_DOUBT
    steering = _Steering(segmenter, prepared, parent.target, promises, strength, "varied", options, doubt)
    return steering.run()


def constrain(
    segmenter: Segmenter,
    prepared: PreparedVolume,
    target: Target,
    promises: Promises,
    strength: float = CONSTRAIN_STRENGTH,
    options: SteerOptions | None = None,
) -> ProposalSet:
    """New proposals that keep to the marks of a user, exactly, and are filled in by the model around them.

    Args:
        segmenter: the model.
        prepared: the volume, from `Segmenter.prepare`.
        target: the organ.
        promises: the marks, and the mask to start from; without one, the model's own draft.
        strength: how far the rest may be from that start, 0 … 1.
        options: how many, and so on.

    Raises:
        UsageError: numbers out of range, no marks, or marks that contradict each other.
        Cancelled: proposals already given to `on_proposal` stay valid.
    """
    promises.require_some()
    return _Steering(segmenter, prepared, target, promises, strength, "constrained", options).run()


class _Steering:
    """One request, checked when it is made."""

    def __init__(
        self,
        segmenter: Segmenter,
        prepared: PreparedVolume,
        target: Target,
        promises: Promises,
        strength: float,
        method: str,
        options: SteerOptions | None,
        doubt: float = 0.0,
    ) -> None:
        self._segmenter, self._prepared, self._target = segmenter, prepared, target
        self._promises, self._strength, self._method = promises, strength, method
        self._options, self._doubt = options or SteerOptions(), doubt
        self._grid = prepared.volume.grid
        check_numbers(self._options.proposals, self._options.steps, self._options.seed)
        check_strength(strength)
        if target.organ in organ_table().finding_ids and target.organ not in segmenter.findings:
            raise finding_error(target.name, (target.organ,), segmenter.findings)
        if promises.parent is not None:
            require_grid(promises.parent, self._grid)
        promises.check(self._grid)
        self._steps = self._options.steps or segmenter.default_steps

    def run(self) -> ProposalSet:
        clock = self._segmenter.stopwatch
        with clock.stage("encode"):
            window = window_for(self._segmenter, self._prepared, self._target, self._promises)
        if window is None:
            reason = f"No {self._target.name} was found in the field of view; mark a point inside it."
            return ProposalSet(self._target, self._grid, found=False, reason=reason)
        made = self._draw_all(window)
        with clock.stage("summarise"):
            return summarise(self._target, self._grid, made)

    def _draw_all(self, window: OrganCrop) -> list[Proposal]:
        sampler = self._sampler(window)
        guess = guess_on(window.grid, self._promises)
        each = sampler.evaluations(with_draft=guess is None)
        made = []
        for number in range(self._options.proposals):

            def tick(done: int, before: int = number * each) -> None:
                if self._options.on_step is not None:
                    self._options.on_step(before + done, self._options.proposals * each)

            origin = self._origin(number)
            with self._segmenter.stopwatch.stage("denoise"):
                drawn = sampler.draw(guess, origin.seed, tick, self._options.cancelled).numpy()
            with self._segmenter.stopwatch.stage("resample"):
                name, volume = self._name(number), self._prepared.volume
                free = to_proposal(name, self._target, drawn, window.grid, volume, origin)
                made.append(self._promises.keep(free))
            if self._options.on_proposal is not None:
                self._options.on_proposal(made[-1])
        return made

    def _sampler(self, window: OrganCrop) -> SteeredSampler:
        organ = organ_table().by_id(self._target.organ)
        with torch.no_grad():
            text = self._segmenter.pipeline.encode_prompt(self._target.text)
        return SteeredSampler(
            self._segmenter.pipeline,
            window.features,
            text,
            window.slice_spacing,
            self._strength,
            self._steps,
            knowledge_on(window.grid, self._grid, self._promises, organ),
            self._doubt,
        )

    def _origin(self, number: int) -> Provenance:
        prompt, seed = self._options.prompt or self._target.text, self._options.seed + number
        parent = self._promises.parent
        return replace(
            self._segmenter.provenance(prompt, seed, self._steps),
            parent="" if parent is None else parent.name,
            method=self._method,
            strength=float(self._strength),
            constraints=str(self._promises),
        )

    def _name(self, number: int) -> str:
        """Children are numbered after their parent: "liver 2.1", "liver 2.2"."""
        parent = self._promises.parent
        return f"{self._target.name} {number + 1}" if parent is None else f"{parent.name}.{number + 1}"
