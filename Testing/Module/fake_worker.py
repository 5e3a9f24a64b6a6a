"""A worker of a few lines for the module tests: speaks the protocol, needs only numpy, can misbehave.

The environment variable FAKE_WORKER chooses how, as words joined by "+": die-before-hello, no-torch,
die-after-first, die-while-writing, broken-json, slow, deaf (does not react to cancel), silent (never says
hello), disk-full (its directory cannot be written), not-found, error, no-better (adapting does not help),
training-disk-full, die-training, die-saving. FAKE_LABELS names a `.npy` with true labels; proposals are then
variations of them, for pictures. Adapters lie in the folder PROGIDIFF_ADAPTERS; FAKE_PICTURE names their
picture.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import sys
import tempfile
import threading
import time
import uuid
import zlib
from pathlib import Path

import numpy as np

BEHAVIOUR = set(os.environ.get("FAKE_WORKER", "").split("+"))
ORGANS = {"liver": 6, "spleen": 1, "pancreas": 11, "gallbladder": 4}
_lock = threading.Lock()


def send(**message: object) -> None:
    with _lock:
        sys.stdout.write(json.dumps(_public({"jsonrpc": "2.0", **message})) + "\n")
        sys.stdout.flush()


def _public(value: object) -> object:
    """Without the arrays that only this process uses."""
    if isinstance(value, dict):
        return {k: _public(v) for k, v in value.items() if not k.startswith("_")}
    return [_public(v) for v in value] if isinstance(value, list) else value


def notify(method: str, **params: object) -> None:
    send(method=method, params=params)


class FakeWorker:
    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fake-worker-"))
        self.volumes: dict[str, np.ndarray] = {}
        self.voxel_ml: dict[str, float] = {}
        self.affines: dict[str, np.ndarray] = {}
        self.names: dict[str, str] = {}
        self.cancelled: set[str] = set()
        self.adapter = ""

    def hello(self) -> dict:
        if "die-before-hello" in BEHAVIOUR:
            os._exit(3)
        if "silent" in BEHAVIOUR:
            time.sleep(3600)
        if "disk-full" in BEHAVIOUR:
            shutil.rmtree(self.folder, ignore_errors=True)
        torch = "" if "no-torch" in BEHAVIOUR else "2.9.0"
        return {
            "version": "0",
            "protocol": 1,
            "pid": os.getpid(),
            "directory": str(self.folder),
            "python": sys.version.split()[0],
            "torch": torch,
            "torch_problem": "No module named 'torch'",
            "device": "cpu",
            "cuda": False,
            "cuda_name": "",
            "vram_gb": None,
            "models": [],
        }

    def ping(self) -> dict:
        return {}

    def doctor(self) -> dict:
        good = "no-torch" not in BEHAVIOUR
        return {
            "lines": [["PyTorch", "2.9.0 (CPU)" if good else "missing", good], ["Model", "embedded", True]]
        }

    def load_model(self, model: str, device: str, adapter: str) -> dict:
        self.adapter_activate(adapter)
        return {
            "model_id": model,
            "model_hash": "f" * 64,
            "device": "cpu",
            "seconds": 0.0,
            "default_steps": 4,
        }

    def open_volume(self, volume_id: str, array: str, affine: list, modality: str, name: str) -> dict:
        path = self.folder / array
        self.volumes[volume_id] = np.load(path, allow_pickle=False)
        path.unlink()
        self.affines[volume_id], self.names[volume_id] = np.array(affine), name
        self.voxel_ml[volume_id] = abs(float(np.linalg.det(np.array(affine)[:3, :3]))) / 1000
        return {"volume_id": volume_id, "modality": "CT", "seconds": 0.0}

    # -- cases and adapters: one JSON file each, which is all that the panel can see of them -------------

    def cases_add(
        self, library: str, volume_id: str, organ: str, mask: dict, slices: list | None, by: str, source: str
    ) -> dict:
        inside = self.voxels(volume_id, mask)
        if "die-saving" in BEHAVIOUR:
            os._exit(9)
        shape = list(inside.shape)
        path = Path(library) / f"case-{zlib.crc32(self.volumes[volume_id].tobytes()):012x}"
        case = read(path) if path.is_file() else {
            "case_id": path.name, "path": str(path), "modality": "CT", "shape": shape, "slice_axis": 2,
            "source": source, "date": DATE, "organs": [], "earlier_versions": 0,
        }  # fmt: skip
        old = [o for o in case["organs"] if o["organ"] == organ]
        checked = {"organ": organ, "name": organ, "version": 1, "slices": slices or [[0, shape[2]]]}
        checked |= {"date": DATE, "by": by, "voxels": int(inside.sum())}
        same = bool(old) and {**old[0], "by": by} == checked
        case["organs"] = [o for o in case["organs"] if o["organ"] != organ] + [checked]
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, case)
        outcome = "unchanged" if same else "replaced" if old else "added"
        return {"case": case, "organ": organ, "outcome": outcome}

    def cases_list(self, library: str) -> dict:
        cases = [read(path) for path in sorted(Path(library).glob("case-*"))]
        organs = [o["organ"] for case in cases for o in case["organs"]]
        return {"cases": cases, "organs": {o: organs.count(o) for o in sorted(set(organs))}, "problems": []}

    def cases_remove(self, library: str, case_id: str, organ: str) -> dict:
        case = read(Path(library) / case_id)
        case["organs"] = [o for o in case["organs"] if o["organ"] != organ]
        if case["organs"]:
            write(Path(library) / case_id, case)
        else:
            (Path(library) / case_id).unlink()
        return {}

    def adapt(self, job_id: str, library: str, name: str, minutes: float | None) -> dict:
        cases = self.cases_list(library)
        if not cases["cases"]:
            raise refusal("CasesError", "There are no cases to learn from.", "Add one first.")
        work = adapters_folder() / ".training"
        done = read(work)["step"] if work.is_file() else 0
        for step in range(done + 1, 21):
            time.sleep(0.1 if "slow" in BEHAVIOUR else 0.003)
            if job_id in self.cancelled:
                return {"job_id": job_id, "adapter": None, "activated": False, "cancelled": True}
            write(work, {"step": step})
            notify("adapt_progress", job_id=job_id, stage="draw", text="Learning to draw them",
                   fraction=step / 20, seconds_left=200.0 - 10 * step, step=step, steps=20, loss=1 / step,
                   held_out_loss=1.2 / step)  # fmt: skip
            if "die-training" in BEHAVIOUR and step == 10:
                os._exit(9)
            if "training-disk-full" in BEHAVIOUR and step == 10:
                message = f"The training cannot be saved in {work} (No space left on device)."
                raise refusal("OutputError", message, "Free some space and start it again.")
        work.unlink()
        adapter = self.new_adapter(name, list(cases["organs"]), done)
        if adapter["improved"]:
            self.adapter = adapter["path"]
        return {
            "job_id": job_id,
            "adapter": self.shown(adapter),
            "activated": adapter["improved"],
            "cancelled": False,
        }

    def new_adapter(self, name: str, organs: list[str], resumed: int) -> dict:
        better = "no-better" not in BEHAVIOUR
        after = 0.84 if better else 0.6
        identity = f"adapter-{uuid.uuid4().hex[:12]}"
        verdict = (
            "It got better on what it had not seen: mean Dice 0.610 before, 0.840 after."
            if better
            else "It did not get better by 0.01 on what it had not seen. It is not activated by itself."
        )
        adapter = {
            "adapter_id": identity, "name": name or "Adapted 2026-11-20", "created": DATE,
            "path": str(adapters_folder() / identity), "base_model": "fake", "base_hash": "f" * 64,
            "organs": organs, "cases": [], "improved": better, "verdict": verdict, "resumed": resumed,
            "measured": {"how": "Leave one case out.",
                         "organs": {o: {"before": 0.61, "after": after} for o in organs}},
            "forgetting": {"how": "A synthetic patient: mean Dice 0.900 before, 0.890 after.",
                           "organs": {"spleen": {"before": 0.9, "after": 0.89}}},
            "minutes": 1.0, "fits": True, "picture": os.environ.get("FAKE_PICTURE", ""),
        }  # fmt: skip
        write(Path(adapter["path"]), adapter)
        return adapter

    def shown(self, adapter: dict) -> dict:
        return {**adapter, "active": adapter["path"] == self.adapter}

    def adapters_list(self) -> dict:
        paths = sorted(adapters_folder().glob("adapter-*"), key=lambda path: -path.stat().st_mtime_ns)
        found = [self.shown(read(path)) for path in paths]
        active = next((a["adapter_id"] for a in found if a["active"]), "")
        return {"folder": str(adapters_folder()), "adapters": found, "problems": [], "active": active}

    def adapter_activate(self, path: str) -> dict:
        self.adapter = ""
        if path and not Path(path).is_file():
            raise refusal("AdapterError", f"{path} is not an adapter.", "Choose another one.")
        self.adapter = path
        return {"active": Path(path).name, "seconds": 0.0}

    def adapter_rename(self, path: str, name: str) -> dict:
        write(Path(path), {**read(Path(path)), "name": name})
        return {"adapter": self.shown(read(Path(path)))}

    def adapter_export(self, path: str, target: str) -> dict:
        shutil.copy(path, target)
        return {"target": target}

    def adapter_import(self, source: str) -> dict:
        adapter = read(Path(source))
        if adapter["base_hash"] != "f" * 64:
            message = f"The adapter “{adapter['name']}” belongs to another model."
            raise refusal("AdapterError", message, "Use that model.")
        adapter["path"] = str(adapters_folder() / adapter["adapter_id"])
        write(Path(adapter["path"]), adapter)
        return {"adapter": self.shown(adapter)}

    def adapter_delete(self, path: str) -> dict:
        self.adapter = "" if path == self.adapter else self.adapter
        Path(path).unlink()
        return {}

    def close_volume(self, volume_id: str) -> dict:
        self.volumes.pop(volume_id, None)
        return {}

    def segment(
        self, job_id: str, volume_id: str, prompt: str, proposals: int, quality: str, seed: int
    ) -> dict:
        if "error" in BEHAVIOUR:
            raise ValueError("PromptError")
        named = [organ for organ in ORGANS if organ in prompt.lower()]
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
        return self.steered(job_id, volume_id, organ, prompt, drawn, told)

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
        return self.steered(job_id, volume_id, organ, prompt, drawn, told)

    def steered(
        self, job_id: str, volume_id: str, organ: str, prompt: str, drawn: list[np.ndarray], told: dict
    ) -> dict:
        made: list[dict] = []
        base = {"organ": organ, "name": organ, "found": True, "reason": "", "pairwise_dice": []}
        base |= {"distinct": 0, "consensus": None, "agreement": None, "proposals": [], "ranking": []}
        for number, mask in enumerate(drawn):
            for step in range(4):
                time.sleep(0.08 if "slow" in BEHAVIOUR else 0.002)
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
            made.append(self.described(volume_id, organ, number, prompt, region, array, 0))
            made[-1]["name"] = f"{told['parent'] or organ}.{number + 1}"
            made[-1]["provenance"] |= told
            notify("proposal", job_id=job_id, proposal=made[-1])
            if "die-after-first" in BEHAVIOUR:
                os._exit(9)
        found = self.summary(base, made, organ, self.voxel_ml[volume_id])
        seconds, cancelled = {"first_proposal": 0.1, "total": 1.2}, job_id in self.cancelled
        return {"job_id": job_id, "sets": [found], "seconds": seconds, "cancelled": cancelled}

    def joined(self, volume_id: str, given: list[dict]) -> np.ndarray:
        return np.any([self.voxels(volume_id, None), *(self.voxels(volume_id, v) for v in given)], axis=0)

    def voxels(self, volume_id: str, given: dict | None, otherwise: bool = False) -> np.ndarray:
        """(I, J, K) bool of VOXELS of the protocol."""
        shape = self.volumes[volume_id].shape
        full = np.full(shape, otherwise if given is None else False)
        if given is None:
            return full
        to_index = np.linalg.inv(self.affines[volume_id])
        if "array" in given:
            array = np.load(self.folder / given["array"], allow_pickle=False)
            (self.folder / given["array"]).unlink()
            box = tuple(slice(*r) for r in given["region"])
            full[box] = array > 255 * given.get("threshold", 0)
        elif "points" in given:
            for point in given["points"]:
                full[tuple(np.round(to_index @ [*point, 1])[:3].astype(int))] = True
        elif "slices" in given:
            full[:, :, given["slices"][0] : given["slices"][1] + 1] = True
        else:
            roi = given["roi"]
            places = self.affines[volume_id] @ np.r_[np.indices(shape).reshape(3, -1), [np.ones(full.size)]]
            local = np.array(roi["axes"]).T @ (places[:3] - np.array(roi["center"])[:, None])
            full = (np.abs(local) <= np.array(roi["size"])[:, None] / 2).all(axis=0).reshape(shape)
        return full

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
            "name": organ,
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
        return self.summary(base, made, organ, self.voxel_ml[volume_id])

    def proposal(self, volume_id: str, organ: str, number: int, prompt: str, seed: int) -> dict:
        if "FAKE_LABELS" in os.environ:
            low, probability = from_labels(np.load(os.environ["FAKE_LABELS"]) == ORGANS[organ], number)
        else:
            low, probability = ellipsoid(self.volumes[volume_id].shape, organ, number)
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
            "name": f"{organ} {number + 1}",
            "organ": organ,
            "organ_name": organ,
            "label": ORGANS[organ],
            "region": region,
            "probability": self.give(probability),
            "threshold": 0.5,
            "score": 0.9 - 0.03 * number,
            "volume_ml": size,
            "provenance": {
                "prompt": prompt,
                "model": "fake",
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
            "name": organ,
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
                    "score": p["score"],
                    "dice_to_consensus": 0.9,
                }
                for p in made
            ],
        }

    def give(self, array: np.ndarray) -> str:
        name = f"{uuid.uuid4().hex}.npy"
        with (self.folder / (name + ".part")).open("wb") as file:
            np.save(file, array, allow_pickle=False)
        (self.folder / (name + ".part")).rename(self.folder / name)
        return name


DATE = "2026-11-20T09:00:00+00:00"


def adapters_folder() -> Path:
    folder = Path(os.environ.get("PROGIDIFF_ADAPTERS", tempfile.gettempdir() + "/fake-adapters"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def write(path: Path, content: dict) -> None:
    path.with_suffix(".part").write_text(json.dumps(content))
    path.with_suffix(".part").rename(path)


def refusal(kind: str, message: str, remedy: str) -> ValueError:
    return ValueError(kind, message, remedy)


def ellipsoid(shape: tuple, organ: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Corner and uint8 probability of a soft ellipsoid; each number is a little larger and further on."""
    centers = {"liver": (0.35, 0.45, 0.5), "spleen": (0.72, 0.6, 0.55), "pancreas": (0.5, 0.45, 0.4)}
    center = np.array(shape) * centers[organ] + np.array([number - 2, 0, 0])
    radii = np.array(shape) * (0.16 + 0.01 * number)
    low = np.maximum(np.floor(center - 1.4 * radii), 0).astype(int)
    high = np.minimum(np.ceil(center + 1.4 * radii), shape).astype(int)
    grid = np.indices(high - low) + low[:, None, None, None]
    far = np.sqrt((((grid - center[:, None, None, None]) / radii[:, None, None, None]) ** 2).sum(axis=0))
    return low, np.clip(255 * (1.25 - far) / 0.5, 0, 255).astype(np.uint8)


def from_labels(mask: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """A blurred, slightly wavy version of a true mask, for pictures: different for each number."""
    inside = np.argwhere(mask)
    low = np.maximum(inside.min(axis=0) - 9, 0)
    high = np.minimum(inside.max(axis=0) + 10, mask.shape)
    soft = mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].astype(np.float32)
    for _pass in range(3):
        for axis, width in ((0, 4), (1, 4), (2, 1)):
            soft = sum(np.roll(soft, step, axis) for step in range(-width, width + 1)) / (2 * width + 1)
    i, j, k = np.indices(soft.shape)
    wave = np.sin(i / (6 + number) + number) * np.cos(j / (9 - number) + 2 * number) * np.cos(k / 3 + number)
    return low, np.clip(255 * (0.5 + 1.6 * (soft - 0.5 + 0.2 * wave + 0.05 * (2 - number))), 0, 255).astype(
        np.uint8
    )


def main() -> None:
    worker, waiting = FakeWorker(), queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            request = json.loads(line)
            if request["method"] == "cancel":
                worker.cancelled.add(request["params"]["job_id"])
                send(id=request["id"], result={"cancelled": True})
            else:
                waiting.put(request)
        shutil.rmtree(worker.folder, ignore_errors=True)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        request = waiting.get()
        try:
            result = getattr(worker, request["method"])(**request["params"])
            send(id=request["id"], result=result)
        except ValueError as error:
            said = error.args if len(error.args) == 3 else _NO_ORGAN
            data = dict(zip(("kind", "message", "remedy"), said, strict=True))
            send(id=request["id"], error={"code": -32000, "message": data["message"], "data": data})


_NO_ORGAN = ("PromptError", "The prompt names no organ.", "Try: segment the liver.")


if __name__ == "__main__":
    main()
