"""Cases and adapters: one JSON file each, which is all that the panel can see of them."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import uuid
import zlib
from pathlib import Path

from fake_worker.channel import BEHAVIOUR, notify, refusal
from fake_worker.volumes import Volumes

PARTS = {"mean": "measured", "forgetting": "forgetting"}
DATE = "2026-11-20T09:00:00+00:00"


class Teaching(Volumes):
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
        paths = sorted(Path(library).glob("case-*"))
        damaged = [path.name for path in paths if path.read_text(encoding="utf-8") == "{"]
        cases = [read(path) for path in paths if path.name not in damaged]
        organs = [o["organ"] for case in cases for o in case["organs"]]
        return {
            "cases": cases,
            "organs": {o: organs.count(o) for o in sorted(set(organs))},
            "damaged": damaged,
            "problems": [f"The case {name} cannot be read." for name in damaged],
        }

    def cases_remove(self, library: str, case_id: str, organ: str) -> dict:
        if not organ:
            (Path(library) / case_id).unlink()
            return {}
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
            stage, text = (
                ("see", "Learning what they look like") if step <= 10 else ("draw", "Learning to draw them")
            )
            notify("adapt_progress", job_id=job_id, stage=stage, text=text,
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
            "measured": {"how": "Leave one case out.", "held_out": ["case-1"],
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

    def adapters_compare(self, paths: list[str]) -> dict:
        found = [read(Path(path)) for path in paths]
        told = ("adapter_id", "name", "path", "base_model", "improved")
        rows = [
            {key: adapter[key] for key in told}
            | {"cases": len(adapter["cases"]), "how": adapter["measured"]["how"]}
            | {"held_out": adapter["measured"].get("held_out"), "organs": adapter["measured"]["organs"]}
            | {part: mean(adapter[source]["organs"]) for part, source in PARTS.items()}
            for adapter in found
        ]
        alike = len({json.dumps(row["held_out"]) for row in rows}) == 1
        notes = ["Their Dice can be compared." if alike else "Their Dice cannot be compared directly."]
        organs = sorted({organ for row in rows for organ in row["organs"]})
        return {"adapters": rows, "organs": organs, "comparable": alike, "notes": notes}

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


def mean(organs: dict) -> dict:
    scores = organs.values()
    return {when: sum(s[when] for s in scores) / len(scores) for when in ("before", "after")}


def adapters_folder() -> Path:
    folder = Path(os.environ.get("PROGIDIFF_ADAPTERS", tempfile.gettempdir() + "/fake-adapters"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, content: dict) -> None:
    path.with_suffix(".part").write_text(json.dumps(content))
    path.with_suffix(".part").rename(path)
