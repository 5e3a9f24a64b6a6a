"""Proposals near a mask or around marks."""

from __future__ import annotations

import os
import time

import numpy as np

from fake_worker.channel import BEHAVIOUR, notify
from fake_worker.proposals import Proposals


class Steering(Proposals):
    def vary(
        self, job_id: str, volume_id: str, organ: str, parent: dict, strength: float, prompt: str,
        proposals: int, quality: str, seed: int, region: dict | None = None,
    ) -> dict:  # fmt: skip
        """Grows or shrinks with the number and the strength, along the first axis."""
        mask, within = self.voxels(volume_id, parent), self.voxels(volume_id, region, True)
        told = {"parent": parent["name"], "method": "varied", "strength": strength, "constraints": ""}
        drawn = [
            np.where(within, mask & np.roll(mask, 1 + round(2 * strength * n), 0), mask)
            for n in range(proposals)
        ]
        return self.steered(job_id, volume_id, organ, prompt, drawn, told, seed)

    def constrain(
        self, job_id: str, volume_id: str, organ: str, inside: list, outside: list, fixed: list,
        strength: float, prompt: str, proposals: int, quality: str, seed: int, region: dict | None = None,
        parent: dict | None = None,
    ) -> dict:  # fmt: skip
        """Keeps the promises of the protocol, and nothing more."""
        mask = self.voxels(volume_id, parent)
        within, kept = self.voxels(volume_id, region, True), self.joined(volume_id, fixed)
        put, out = self.joined(volume_id, inside), self.joined(volume_id, outside)
        told = {"parent": parent["name"] if parent else "", "method": "constrained", "strength": strength}
        told["constraints"] = f"{put.sum()} voxels inside, {out.sum()} voxels outside"
        drawn = [
            np.where(within & ~kept, (mask & np.roll(mask, n + 1, 0) | put) & ~out, mask)
            for n in range(proposals)
        ]
        return self.steered(job_id, volume_id, organ, prompt, drawn, told, seed)

    def steered(
        self, job_id: str, volume_id: str, organ: str, prompt: str, drawn: list[np.ndarray], told: dict,
        seed: int,
    ) -> dict:  # fmt: skip
        made: list[dict] = []
        base = {"organ": organ, "name": organ, "found": True, "reason": "", "pairwise_dice": []}
        base |= {"distinct": 0, "consensus": None, "agreement": None, "proposals": [], "ranking": []}
        for number, mask in enumerate(drawn):
            for step in range(4):
                time.sleep(0.25 if "slow" in BEHAVIOUR else 0.002)
                if job_id in self.cancelled:
                    break
                done = number * 4 + step + 1
                notify("progress", job_id=job_id, organ=organ, step=done, steps=4 * len(drawn),
                       proposal=number, proposals=len(drawn), fraction=done / (4 * len(drawn)),
                       seconds_left=1.0)  # fmt: skip
            if job_id in self.cancelled:
                break
            region = [[int(a.min()), int(a.max()) + 1] for a in np.nonzero(mask)] or [[0, 0]] * 3
            array = np.where(mask[tuple(slice(*r) for r in region)], 255, 0).astype(np.uint8)
            made.append(self.described(volume_id, organ, number, prompt, region, array, seed))
            made[-1]["name"] = f"{told['parent'] or organ}.{number + 1}"
            made[-1]["provenance"] |= told
            notify("proposal", job_id=job_id, proposal=made[-1])
            if "die-after-first" in BEHAVIOUR:
                os._exit(9)
        found = self.summary(base, made, organ, self.voxel_ml[volume_id])
        seconds, cancelled = {"first_proposal": 0.1, "total": 1.2}, job_id in self.cancelled
        return {"job_id": job_id, "sets": [found], "seconds": seconds, "cancelled": cancelled}
