"""Jobs that stream proposals as each is ready; the main one is `segment`: a prompt in, proposals out."""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from progidiff.errors import Cancelled
from progidiff.prompts import Target, organ_table, parse_prompt
from progidiff.proposals import Proposal, ProposalSet, summarise
from progidiff.quality import check_numbers, steps_for
from progidiff.worker import wire
from progidiff.worker.session import Session


@dataclass(frozen=True)
class Order:
    """The parameters that every request for proposals has."""

    job_id: str
    volume_id: str
    prompt: str
    proposals: int
    quality: str
    steps: int | None
    seed: int


@dataclass(frozen=True)
class Listener:
    """What a job wants to be told while proposals are drawn; see `Segmenter.propose`."""

    on_step: Callable[[int, int], None]
    on_proposal: Callable[[Proposal], None]
    cancelled: Callable[[], bool]


class ProposalJob(ABC):
    """Draws the proposals of a few organs, one organ after the other.

    Args:
        session: the worker's state.
        job_id: given by the application.
        targets: the organs.
        proposals: how many for each.
    """

    def __init__(self, session: Session, job_id: str, targets: Sequence[Target], proposals: int) -> None:
        self.session = session
        self.job_id = job_id
        self.targets = targets
        self.proposals = proposals
        self.seconds: dict[str, float] = {}
        self._start = time.monotonic()

    @abstractmethod
    def draw(self, target: Target, listener: Listener) -> ProposalSet:
        """Draws the proposals of one organ; called again, with less memory, if memory ran out."""

    def run(self) -> dict[str, Any]:
        """Returns the result of the request; `cancelled` is True if the user stopped it half-way."""
        sets: list[dict[str, Any]] = []
        for index, target in enumerate(self.targets):
            organ = _OrganRun(self, target, organs_before=index)
            found = organ.run()
            if found is not None:
                sets.append(organ.describe(found))
            if organ.was_cancelled:
                break
        self.seconds["total"] = self.elapsed()
        return {
            "job_id": self.job_id,
            "sets": sets,
            "seconds": self.seconds,
            "cancelled": organ.was_cancelled,
        }

    def elapsed(self) -> float:
        return time.monotonic() - self._start

    def is_cancelled(self) -> bool:
        return self.session.jobs.is_cancelled(self.job_id)

    def tell_progress(self, target: Target, organs_done: float, **step: int) -> None:
        """Sends `progress`; `organs_done` counts organs, with the present one's fraction."""
        fraction = organs_done / len(self.targets)
        left = self.elapsed() * (1 - fraction) / fraction if fraction > 0 else None
        params = {"job_id": self.job_id, "organ": target.organ, **step, "fraction": fraction}
        self.session.notify("progress", {**params, "seconds_left": left})

    def send(self, proposal: Proposal, proposal_id: str) -> None:
        """Streams one proposal to the application."""
        message = wire.proposal_json(proposal, proposal_id, self.session.store)
        self.session.notify("proposal", {"job_id": self.job_id, "proposal": message})
        self.seconds.setdefault("first_proposal", self.elapsed())


class SegmentJob(ProposalJob):
    """Runs one order of `segment`.

    Raises:
        PromptError, UsageError: the order cannot be understood.
    """

    def __init__(self, session: Session, order: Order) -> None:
        check_numbers(order.proposals, order.steps, order.seed)
        super().__init__(session, order.job_id, _targets(session, order.prompt), order.proposals)
        self._order = order

    def draw(self, target: Target, listener: Listener) -> ProposalSet:
        order = self._order
        prepared = self.session.prepared(order.volume_id)
        segmenter = self.session.segmenter()
        return segmenter.propose(
            prepared,
            target,
            proposals=order.proposals,
            steps=order.steps or steps_for(order.quality, segmenter.default_steps),
            seed=order.seed,
            prompt=order.prompt,
            on_step=listener.on_step,
            on_proposal=listener.on_proposal,
            cancelled=listener.cancelled,
        )


class _OrganRun:
    """The proposals for one organ, kept as they come in case the job is cancelled."""

    def __init__(self, job: ProposalJob, target: Target, organs_before: int) -> None:
        self._job = job
        self._target = target
        self._organs_before = organs_before
        self._ready: list[Proposal] = []
        self._ids: list[str] = []
        self.was_cancelled = False

    def run(self) -> ProposalSet | None:
        """What was found; None if it was cancelled before the first proposal."""
        try:
            if self._job.is_cancelled():
                raise Cancelled("The job was cancelled.")
            return self._job.session.sparing_memory(self._draw, self._job.job_id)
        except Cancelled:
            self.was_cancelled = True
        return summarise(self._target, self._ready[0].grid, self._ready) if self._ready else None

    def _draw(self) -> ProposalSet:
        self._ready.clear()  # a second try, after memory ran out, makes the same proposals again
        listener = Listener(self._on_step, self._on_proposal, self._job.is_cancelled)
        return self._job.draw(self._target, listener)

    def _on_step(self, done: int, total: int) -> None:
        self._job.tell_progress(
            self._target,
            organs_done=self._organs_before + done / max(total, 1),
            step=done,
            steps=total,
            proposal=len(self._ready),
            proposals=self._job.proposals,
        )

    def _on_proposal(self, proposal: Proposal) -> None:
        self._ready.append(proposal)
        if len(self._ids) < len(self._ready):
            self._ids.append(_new_id(self._target))
        self._job.send(proposal, self._ids[len(self._ready) - 1])

    def describe(self, found: ProposalSet) -> dict[str, Any]:
        """The set as it travels; a proposal that has not been streamed is sent first."""
        ids = [self._id_of(proposal) for proposal in found.proposals]
        return wire.set_json(found, ids, _new_id(self._target), self._job.session.store)

    def _id_of(self, proposal: Proposal) -> str:
        """The id under which a proposal was streamed: ranking gives it a new score, not new voxels."""
        for streamed, proposal_id in zip(self._ready, self._ids, strict=False):
            if streamed.probability_in_region is proposal.probability_in_region:
                return proposal_id
        proposal_id = _new_id(self._target)
        self._job.send(proposal, proposal_id)
        return proposal_id


def _new_id(target: Target) -> str:
    return f"{target.organ}-{uuid.uuid4().hex[:12]}"


def _targets(session: Session, prompt: str) -> list[Target]:
    """What is asked for. Only where a finding is, the model is needed to say whether it knows it."""
    table = organ_table()
    targets = parse_prompt(prompt, table.finding_ids)
    if any(table.by_id(target.organ).within for target in targets):
        return parse_prompt(prompt, session.segmenter().findings)
    return targets
