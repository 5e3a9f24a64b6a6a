"""From a prompt to proposals and their consensus."""

from __future__ import annotations

import os
import sys
import time
import uuid
from pathlib import Path

import numpy as np

from fake_worker.channel import BEHAVIOUR, notify, refusal
from fake_worker.shapes import ORGANS, ellipsoid, from_labels
from fake_worker.volumes import Volumes


class Proposals(Volumes):
    def segment(
        self, job_id: str, volume_id: str, prompt: str, proposals: int, quality: str, seed: int
    ) -> dict:
        if "error" in BEHAVIOUR:
            raise ValueError("PromptError")
        named = self.asked(prompt.lower())
        sets = []
        for at, organ in enumerate(named):
            sets.append(self.one_organ(job_id, volume_id, organ, prompt, proposals, seed, at, len(named)))
            if job_id in self.cancelled:
                break
        return {
            "job_id": job_id,
            "sets": sets,
            "seconds": {"first_proposal": 0.1, "total": 1.2},
            "cancelled": job_id in self.cancelled,
        }

    def asked(self, prompt: str) -> list[str]:
        if "tumor" not in prompt and "lesion" not in prompt:
            return [organ for organ in ORGANS if organ in prompt]
        if self.model != "textdiffseg-abdomen-small":
            raise refusal("FindingError", "This model draws organs only.", "Choose another model.")
        return ["liver_tumor"]

    def one_organ(
        self,
        job_id: str,
        volume_id: str,
        organ: str,
        prompt: str,
        wanted: int,
        seed: int,
        at: int,
        organs: int,
    ) -> dict:
        base = {
            "organ": organ,
            "name": organ.replace("_", " "),
            "distinct": 0,
            "pairwise_dice": [],
            "consensus": None,
            "agreement": None,
            "proposals": [],
            "ranking": [],
        }
        if "not-found" in BEHAVIOUR or organ == "gallbladder":
            return {**base, "found": False, "reason": f"The {organ} is not in the image."}
        made, steps = [], 4
        for number in range(wanted):
            for step in range(steps):
                time.sleep(0.08 if "slow" in BEHAVIOUR else 0.002)
                if job_id in self.cancelled and "deaf" not in BEHAVIOUR:
                    return self.summary(base, made, organ, self.voxel_ml[volume_id])
                done = number * steps + step + 1
                fraction = (at + done / (steps * wanted)) / organs
                notify(
                    "progress",
                    job_id=job_id,
                    organ=organ,
                    step=done,
                    steps=steps * wanted,
                    proposal=number,
                    proposals=wanted,
                    fraction=fraction,
                    seconds_left=3 * (1 - fraction),
                )
            made.append(self.proposal(volume_id, organ, number, prompt, seed))
            if "die-while-writing" in BEHAVIOUR and number == 1:
                sys.stdout.write('{"jsonrpc": "2.0", "method": "proposal", "par')
                sys.stdout.flush()
                os._exit(9)
            notify("proposal", job_id=job_id, proposal=made[-1])
            if "die-after-first" in BEHAVIOUR:
                os._exit(9)
            if "broken-json" in BEHAVIOUR and number == 1:
                time.sleep(0.3)
                sys.stdout.write("this is no JSON\n")
                sys.stdout.flush()
                time.sleep(3600)
        found = self.summary(base, made, organ, self.voxel_ml[volume_id])
        if "drawn-empty" in BEHAVIOUR:
            found |= {"found": False, "reason": f"No {organ} was found in the field of view."}
        return found

    def proposal(self, volume_id: str, organ: str, number: int, prompt: str, seed: int) -> dict:
        if "FAKE_LABELS" in os.environ:
            low, probability = from_labels(np.load(os.environ["FAKE_LABELS"]) == ORGANS[organ], number)
        else:
            low, probability = ellipsoid(self.volumes[volume_id].shape, organ, number)
        if "drawn-empty" in BEHAVIOUR:
            probability = np.zeros_like(probability)
        high = low + probability.shape
        region = [[int(a), int(b)] for a, b in zip(low, high, strict=True)]
        return self.described(volume_id, organ, number, prompt, region, probability, seed)

    def described(
        self,
        volume_id: str,
        organ: str,
        number: int,
        prompt: str,
        region: list,
        probability: np.ndarray,
        seed: int,
    ) -> dict:
        size = float((probability > 127.5).sum()) * self.voxel_ml[volume_id]
        return {
            "proposal_id": f"p{number}-{uuid.uuid4().hex[:6]}",
            "name": f"{organ.replace('_', ' ')} {number + 1}",
            "organ": organ,
            "organ_name": organ.replace("_", " "),
            "label": ORGANS[organ],
            "region": region,
            "probability": self.give(probability),
            "threshold": 0.5,
            "score": 0.0,  # as the real worker: known only when all have arrived
            "volume_ml": size,
            "provenance": {
                "prompt": prompt,
                "model": self.model,
                "model_hash": "f" * 64,
                "seed": seed + number,
                "steps": 4,
                "device": "cpu",
                "adapter": Path(self.adapter).name,
                "parent": "",
                "method": "sampled",
            },
            "_array": probability,
        }

    def summary(self, base: dict, made: list[dict], organ: str, voxel_ml: float) -> dict:
        if not made:
            return {**base, "found": True}
        boxes = np.array([p["region"] for p in made])
        region = [[int(boxes[:, a, 0].min()), int(boxes[:, a, 1].max())] for a in range(3)]
        stack = np.zeros([len(made), *[b - a for a, b in region]], np.float32)
        for layer, p in zip(stack, made, strict=True):
            layer[tuple(slice(a - r[0], b - r[0]) for (a, b), r in zip(p["region"], region, strict=True))] = (
                p["_array"] / 255
            )
        mean = stack.mean(axis=0)
        consensus = {
            **made[0],
            "proposal_id": f"consensus-{uuid.uuid4().hex[:6]}",
            "name": organ.replace("_", " "),
            "provenance": made[0]["provenance"]
            | {"parent": " + ".join(p["name"] for p in made), "method": "consensus"},
            "region": region,
            "probability": self.give(np.round(mean * 255).astype(np.uint8)),
            "score": 0.93,
            "volume_ml": float((mean > 0.5).sum()) * voxel_ml,
            "threshold": 0.5,
        }
        agreement = np.round(255 * (1 - 2 * (stack > 0.5).std(axis=0))).astype(np.uint8)
        ids = [p["proposal_id"] for p in made]
        return {
            **base,
            "found": True,
            "reason": "",
            "distinct": len(made),
            "proposals": ids,
            "consensus": consensus,
            "agreement": {"region": region, "array": self.give(agreement)},
            "ranking": [
                {
                    "proposal_id": p["proposal_id"],
                    "name": p["name"],
                    "score": 0.9 - 0.03 * number,
                    "dice_to_consensus": 0.9,
                }
                for number, p in enumerate(made)
            ],
        }
