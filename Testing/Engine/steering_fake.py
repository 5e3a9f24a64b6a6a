"""The fake segmenter, taught to steer: its balls keep to the promises. For PROGIDIFF_SEGMENTER."""

from __future__ import annotations

from dataclasses import replace

import fake_segmenter
from progidiff.prompts import Target
from progidiff.proposals import Proposal, ProposalSet, summarise
from progidiff.steering import Promises, SteerOptions, Voxels


class SteeredFake(fake_segmenter.FakeSegmenter):
    """As `Segmenter.vary` and `Segmenter.constrain`, without a network."""

    def vary(
        self,
        prepared: fake_segmenter.FakePrepared,
        parent: Proposal,
        strength: float,
        region: Voxels | None,
        options: SteerOptions,
    ) -> ProposalSet:
        promises = Promises(region=region, parent=parent)
        return self._steer(prepared, parent.target, promises, strength, options, "varied")

    def constrain(
        self,
        prepared: fake_segmenter.FakePrepared,
        target: Target,
        promises: Promises,
        strength: float,
        options: SteerOptions,
    ) -> ProposalSet:
        return self._steer(prepared, target, promises, strength, options, "constrained")

    def _steer(
        self,
        prepared: fake_segmenter.FakePrepared,
        target: Target,
        promises: Promises,
        strength: float,
        options: SteerOptions,
        method: str,
    ) -> ProposalSet:
        promises.check(prepared.volume.grid)
        made: list[Proposal] = []

        def keep(drawn: Proposal) -> None:
            parent = promises.parent.name if promises.parent else ""
            origin = replace(
                drawn.provenance, parent=parent, method=method, strength=strength, constraints=str(promises)
            )
            made.append(replace(promises.keep(drawn), provenance=origin))
            if options.on_proposal is not None:
                options.on_proposal(made[-1])

        self.propose(
            prepared,
            target,
            proposals=options.proposals,
            steps=options.steps,
            seed=options.seed,
            prompt=options.prompt,
            on_step=options.on_step or (lambda done, total: None),
            on_proposal=keep,
            cancelled=options.cancelled or (lambda: False),
        )
        return summarise(target, prepared.volume.grid, made)


def load(model: str, device: str) -> SteeredFake:
    plain = fake_segmenter.load(model, device)
    return SteeredFake(plain.behaviours, plain.device)
