"""The methods that steer: `vary` a mask, `constrain` one by marks. They stream like `segment`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from progidiff.proposals import Proposal, ProposalSet
from progidiff.quality import check_numbers, check_strength, steps_for
from progidiff.steering import (
    CONSTRAIN_STRENGTH,
    VARY_STRENGTH,
    Promises,
    SteerOptions,
    proposal_from_voxels,
)
from progidiff.steering.target import steered_target
from progidiff.worker.registry import method
from progidiff.worker.segment_job import Listener, Order, ProposalJob
from progidiff.worker.session import Session
from progidiff.worker.voxels import VoxelReader

if TYPE_CHECKING:
    from progidiff.prompts import Target
    from progidiff.segmenter import PreparedVolume, Segmenter

Draw = Callable[["Segmenter", "PreparedVolume", SteerOptions], ProposalSet]


@method("vary")
def vary(
    session: Session,
    *,
    job_id: str,
    volume_id: str,
    organ: str,
    parent: dict,
    strength: float = VARY_STRENGTH,
    region: dict | None = None,
    prompt: str = "",
    proposals: int = 5,
    quality: str = "standard",
    steps: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Streams proposals near a mask."""
    order = Order(job_id, volume_id, prompt, proposals, quality, steps, seed)
    target, reader = _checked(session, order, organ, strength)
    mask = _parent(reader, parent, target)
    within = None if region is None else reader.read(region)

    def draw(segmenter: Segmenter, prepared: PreparedVolume, options: SteerOptions) -> ProposalSet:
        return segmenter.vary(prepared, mask, strength, within, options)

    return SteerJob(session, order, target, draw).run()


@method("constrain")
def constrain(
    session: Session,
    *,
    job_id: str,
    volume_id: str,
    organ: str,
    parent: dict | None = None,
    inside: list | None = None,
    outside: list | None = None,
    fixed: list | None = None,
    region: dict | None = None,
    strength: float = CONSTRAIN_STRENGTH,
    prompt: str = "",
    proposals: int = 5,
    quality: str = "standard",
    steps: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Streams proposals that keep to what was marked."""
    order = Order(job_id, volume_id, prompt, proposals, quality, steps, seed)
    target, reader = _checked(session, order, organ, strength)
    promises = Promises(
        inside=reader.read_all(inside or []),
        outside=reader.read_all(outside or []),
        fixed=reader.read_all(fixed or []),
        region=None if region is None else reader.read(region),
        parent=None if parent is None else _parent(reader, parent, target),
    )

    def draw(segmenter: Segmenter, prepared: PreparedVolume, options: SteerOptions) -> ProposalSet:
        return segmenter.constrain(prepared, target, promises, strength, options)

    return SteerJob(session, order, target, draw).run()


def _checked(session: Session, order: Order, organ: str, strength: float) -> tuple[Target, VoxelReader]:
    """The organ to draw, and a reader of the masks that came with the order."""
    target = steered_target(organ, order.prompt)
    check_strength(strength)
    return target, VoxelReader(session.store, session.prepared(order.volume_id).volume.grid)


def _parent(reader: VoxelReader, given: dict, target: Target) -> Proposal:
    """The mask to start from; besides what VOXELS has, it may have a `name` for its descendants."""
    voxels = reader.read({key: value for key, value in given.items() if key != "name"})
    return proposal_from_voxels(voxels, target, reader.grid, str(given.get("name") or target.name))


class SteerJob(ProposalJob):
    """Runs one order; `draw` is the segmenter's method with everything but the options given."""

    def __init__(self, session: Session, order: Order, target: Target, draw: Draw) -> None:
        check_numbers(order.proposals, order.steps, order.seed)
        super().__init__(session, order.job_id, [target], order.proposals)
        self._order, self._draw = order, draw

    def draw(self, target: Target, listener: Listener) -> ProposalSet:
        order = self._order
        prepared = self.session.prepared(order.volume_id)
        segmenter = self.session.segmenter()
        options = SteerOptions(
            order.proposals,
            order.steps or steps_for(order.quality, segmenter.default_steps),
            order.seed,
            order.prompt,
            listener.on_step,
            listener.on_proposal,
            listener.cancelled,
        )
        return self._draw(segmenter, prepared, options)
