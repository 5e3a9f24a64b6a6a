"""All proposals for one volume: in memory with their probabilities, and in the scene."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk

from ProGiDiffSlicerLib import agreement, merging, proposals_scene
from ProGiDiffSlicerLib.errors import SegmentationError
from ProGiDiffSlicerLib.job import Job
from ProGiDiffSlicerLib.proposal import CONSENSUS, EDITED, SAMPLED, Proposal


@dataclass
class OrganGroup:
    """What is known about one organ of the prompt, beside its proposals."""

    organ: str
    name: str
    found: bool = True
    reason: str = ""
    distinct: int = 0
    runs: int = 0


class VolumeProposals:
    """The proposals for one volume, with the ids of its nodes rather than the nodes, which may go."""

    def __init__(self, volume: Any) -> None:
        self.volume_id = volume.GetID()
        self._volume = vtk.vtkWeakReference()  # a closed scene's ids are used again
        self._volume.Set(volume)
        self.groups: dict[str, OrganGroup] = {}
        self._by_id: dict[str, Proposal] = {}
        node = proposals_scene.find_node(volume)
        for proposal in proposals_scene.stored_proposals(node) if node is not None else []:
            self._remember(proposal)

    @property
    def volume(self) -> Any:
        """The volume node, or None when it has left the scene."""
        node = slicer.mrmlScene.GetNodeByID(self.volume_id)
        return node if node is not None and node is self._volume.Get() else None

    @property
    def node(self) -> Any:
        """The segmentation node with the proposals, or None before the first."""
        volume = self.volume
        return proposals_scene.find_node(volume) if volume is not None else None

    def ordered(self, organ: str) -> list[Proposal]:
        """Consensus first, then merged and edited ones, then by score."""
        order = {CONSENSUS: 0, "merged": 1, EDITED: 1}
        group = [p for p in self._by_id.values() if p.organ == organ]
        return sorted(group, key=lambda p: (order.get(p.kind, 2), -p.score))

    def everything(self) -> list[Proposal]:
        return [p for organ in self.groups for p in self.ordered(organ)]

    def get(self, proposal_id: str) -> Proposal | None:
        return self._by_id.get(proposal_id)

    def add(self, proposal: Proposal) -> None:
        """Keeps a proposal and writes it into the scene."""
        if self.volume is None:
            raise SegmentationError("The volume has left the scene.", "Load it again.", kind="VolumeGone")
        again = self._by_id.get(proposal.id)
        proposal.name = again.name if again else self._free_name(proposal.name)
        proposals_scene.add(proposals_scene.ensure_node(self.volume), proposal)
        self._remember(proposal)

    def take_in(self, drawn: Proposal, job: Job) -> str:
        """Keeps what the worker drew, unless the very same is in the list; the id of the one that is now."""
        worker_id, drawn.id = drawn.id, job.new_id(drawn.id)
        self.look_again()
        listed = None if drawn.id in self._by_id else self._listed(drawn)
        if listed is None:
            self.add(drawn)
        job.made[worker_id] = (listed or drawn).id
        return job.made[worker_id]

    def finish(self, result: dict[str, Any], job: Job, take: Callable[[str], np.ndarray]) -> None:
        """Takes in what is only known at the end: consensus, agreement, final scores, what was not found."""
        self.look_again()
        for found in result.get("sets", []):
            group = self._group(found["organ"], found["name"])
            group.found, group.reason = bool(found["found"]), str(found.get("reason") or "")
            if any(job.has_brought(p.id) for p in self._sampled(found, job)):
                group.distinct = int(found.get("distinct") or 0)
                group.runs += 1
            elif result.get("cancelled"):
                continue  # some of the list once more: nothing to be learnt about them
            self._apply_ranking(found, job)
            if not group.found:
                self._drop_empty(found, job)
            elif found.get("consensus"):
                self._add_consensus(found, job, take)

    def look_again(self) -> bool:
        """Takes in what others did to the node: segments may have come, or gone. True if something did."""
        node = self.node
        if node is not None:
            proposals_scene.follow_volume(node)
        stored = {p.id: p for p in proposals_scene.stored_proposals(node)} if node is not None else {}
        gone, new = self._by_id.keys() - stored.keys(), stored.keys() - self._by_id.keys()
        for proposal_id in gone:
            del self._by_id[proposal_id]
        for proposal in stored.values():
            if proposal.id in new:
                self._remember(proposal)
        if gone:
            self.groups = {o: g for o, g in self.groups.items() if not g.found or self.ordered(o)}
        return bool(gone or new)

    def merge(self, ids: list[str], way: str, threshold: float) -> Proposal:
        """A new proposal from several; see :func:`merging.merge`."""
        chosen = [self._as_in_scene(i) for i in ids]
        count = sum(1 for p in self._by_id.values() if p.kind == "merged")
        merged = merging.merge(chosen, way, threshold, proposals_scene.voxel_ml(self.volume), count + 1)
        consensus = self._consensus(merged.organ)
        if consensus is not None:
            merged.dice_to_consensus = merging.dice(merged, consensus)
        self.add(merged)
        return merged

    def edited_copy(self, proposal_id: str) -> Proposal:
        """A copy to work on in the Segment Editor, so that the original stays as it was."""
        source = self._as_in_scene(proposal_id)
        if source.kind == EDITED:
            return source
        solid = np.where(source.mask, 255, 0).astype(np.uint8)
        number = sum(1 for p in self._by_id.values() if p.id.startswith(f"edited-{source.id}")) + 1
        copy = Proposal(
            **{
                **vars(source),
                "id": f"edited-{source.id}-{number}",
                "name": f"{source.name} (edited)",
                "kind": EDITED,
                "probability": solid,
                "threshold": 0.5,
                "provenance": {**source.provenance, "parent": source.id, "method": "edited"},
            }
        )
        self.add(copy)
        return copy

    def measure_again(self, proposal_id: str) -> None:
        """After edits in the Segment Editor: mask, volume and overlap as they now are."""
        proposal = self._by_id[proposal_id]
        self._read_mask(proposal)
        proposal.volume_ml = float(proposal.mask.sum()) * proposals_scene.voxel_ml(self.volume)
        consensus = self._consensus(proposal.organ)
        if consensus is not None:
            proposal.dice_to_consensus = merging.dice(proposal, consensus)
        proposal.write_tags(self.node.GetSegmentation().GetSegment(proposal_id))

    def set_threshold(self, proposal_id: str, threshold: float) -> None:
        """Moves the border of a proposal whose probability is known."""
        proposal = self._by_id[proposal_id]
        if proposal.probability is None:
            return
        proposal.threshold = threshold
        proposal.volume_ml = float(proposal.mask.sum()) * proposals_scene.voxel_ml(self.volume)
        proposals_scene.update_mask(self.node, proposal)

    def remove(self, proposal_id: str) -> None:
        proposal = self._by_id.pop(proposal_id, None)
        if proposal is not None and self.node is not None:
            proposals_scene.remove(self.node, proposal_id)

    def remove_all(self) -> None:
        """Empties the list, and takes the proposals' nodes out of the scene."""
        volume, node = self.volume, self.node
        maps = [agreement.find_map(volume, organ) for organ in self.groups] if volume is not None else []
        self.forget()
        for each in [node, *maps]:
            if each is not None:
                slicer.mrmlScene.RemoveNode(each)

    def forget(self) -> None:
        """The proposals' node has gone."""
        self._by_id.clear()
        self.groups.clear()

    def with_probability(self, proposal_id: str) -> Proposal:
        """The proposal with voxels; after a scene was re-opened its mask stands for its probability."""
        proposal = self._by_id[proposal_id]
        if proposal.probability is None:
            self._read_mask(proposal)
        return proposal

    def _as_in_scene(self, proposal_id: str) -> Proposal:
        """With voxels; what was painted in it since, in whichever editor, counts."""
        proposal = self.with_probability(proposal_id)
        mask = proposals_scene.mask_in_volume(self.node, proposal_id)
        box = tuple(slice(start, stop) for start, stop in proposal.region)
        if mask.sum() != proposal.mask.sum() or (mask[box] != proposal.mask).any():
            self.measure_again(proposal_id)
        return proposal

    def _read_mask(self, proposal: Proposal) -> None:
        mask = proposals_scene.mask_in_volume(self.node, proposal.id)
        filled = np.nonzero(mask)
        proposal.region = [[int(a.min()), int(a.max()) + 1] if a.size else [0, 0] for a in filled]
        box = tuple(slice(start, stop) for start, stop in proposal.region)
        proposal.probability = np.where(mask[box], 255, 0).astype(np.uint8)
        proposal.threshold, proposal.from_mask = 0.5, True

    def _remember(self, proposal: Proposal) -> None:
        self._group(proposal.organ, proposal.organ_name)
        self._by_id[proposal.id] = proposal

    def _group(self, organ: str, name: str) -> OrganGroup:
        return self.groups.setdefault(organ, OrganGroup(organ, name))

    def _consensus(self, organ: str) -> Proposal | None:
        found = [p for p in self._by_id.values() if p.organ == organ and p.kind == CONSENSUS]
        return self.with_probability(found[-1].id) if found else None

    def _free_name(self, wanted: str) -> str:
        taken = {p.name for p in self._by_id.values()}
        if wanted not in taken:
            return wanted
        stem, _space, last = wanted.rpartition(" ")
        stem, first = (stem, int(last)) if last.isdigit() else (wanted, 1)
        return next(
            n for n in (f"{stem} {i}" for i in range(first + 1, first + len(taken) + 2)) if n not in taken
        )

    def _listed(self, drawn: Proposal) -> Proposal | None:
        """The very same in the list: drawn alike, and voxel by voxel as it now is in the scene."""
        alike = [p for p in self._by_id.values() if p.is_drawn_like(drawn)]
        return next((p for p in alike if merging.dice(self._as_in_scene(p.id), drawn) == 1), None)

    def _sampled(self, found: dict[str, Any], job: Job) -> list[Proposal]:
        """What the job drew for one organ, new or known before, without the consensus."""
        group = self.ordered(found["organ"])
        return [p for p in group if p.kind == SAMPLED and p.id in job.made.values()]

    def _apply_ranking(self, found: dict[str, Any], job: Job) -> None:
        """Final scores; a new proposal that only repeated another one is dropped."""
        for row in found.get("ranking") or []:
            proposal = self._by_id.get(job.made.get(str(row["proposal_id"]), ""))
            if proposal is not None:
                proposal.score = float(row["score"])
                proposal.dice_to_consensus = row.get("dice_to_consensus")
                proposal.write_tags(self.node.GetSegmentation().GetSegment(proposal.id))
        listed = {job.made.get(str(i)) for i in found.get("proposals") or []}
        for proposal in self._sampled(found, job) if listed else []:
            if proposal.id not in listed and job.has_brought(proposal.id):
                self.remove(proposal.id)

    def _drop_empty(self, found: dict[str, Any], job: Job) -> None:
        """An organ that was looked for and not seen leaves no masks without a voxel in the list."""
        for proposal in self._sampled(found, job):
            if job.has_brought(proposal.id) and not proposal.mask.any():
                self.remove(proposal.id)

    def _add_consensus(self, found: dict[str, Any], job: Job, take: Callable[[str], np.ndarray]) -> None:
        described = found["consensus"]
        consensus = Proposal.from_worker(described, take(described["probability"]), CONSENSUS)
        sampled = self._sampled(found, job)
        consensus.name = _consensus_name(consensus, sampled)
        consensus = self._by_id[self.take_in(consensus, job)]
        for proposal in sampled:
            proposal.dice_to_consensus = merging.dice(proposal, consensus)
            proposal.write_tags(self.node.GetSegmentation().GetSegment(proposal.id))
        if found.get("agreement"):
            values, region = take(found["agreement"]["array"]), found["agreement"]["region"]
            touched = _touched(sampled, region)
            agreement.write_map(self.volume, found["organ"], found["name"], region, values, touched)


def _consensus_name(consensus: Proposal, of: list[Proposal]) -> str:
    """ "liver consensus", or "liver consensus (liver 2 varied)" of proposals that were made near another."""
    name = f"{consensus.organ_name} consensus"
    if not (of and of[0].is_steered):
        return name
    made = of[0].provenance
    parent = f"{made['parent']} " if made.get("parent") else ""
    return f"{name} ({parent}{made['method']})"


def _touched(proposals: list[Proposal], region: list[list[int]]) -> np.ndarray:
    """(I, J, K) bool over `region`: inside at least one of the proposals."""
    touched = np.zeros([stop - start for start, stop in region], bool)
    for proposal in proposals:
        low = [max(p[0], r[0]) for p, r in zip(proposal.region, region, strict=True)]
        high = [min(p[1], r[1]) for p, r in zip(proposal.region, region, strict=True)]
        if all(b > a for a, b in zip(low, high, strict=True)):
            here = tuple(slice(a - r[0], b - r[0]) for a, b, r in zip(low, high, region, strict=True))
            there = tuple(
                slice(a - p[0], b - p[0]) for a, b, p in zip(low, high, proposal.region, strict=True)
            )
            touched[here] |= proposal.mask[there]
    return touched
