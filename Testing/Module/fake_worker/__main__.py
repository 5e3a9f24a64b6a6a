"""A worker of a few lines for the module tests: speaks the protocol, needs only numpy, can misbehave.

The environment variable FAKE_WORKER chooses how, as words joined by "+": die-before-hello, no-torch, die-
after-first, die-while-writing, broken-json, slow, deaf (does not react to cancel), silent (never says
hello), disk-full (its directory cannot be written), not-found, drawn-empty (masks without a voxel), error,
no-models (lists none), no-better (adapting does not help), training-disk-full, die-training, die-saving.
FAKE_LABELS names a `.npy` with true labels; proposals are then variations of them, for pictures. Adapters
lie in the folder PROGIDIFF_ADAPTERS; FAKE_PICTURE names their picture.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import sys
import threading
import time
from pathlib import Path

from fake_worker.channel import BEHAVIOUR, refusal, send
from fake_worker.models import EMBEDDED, MODELS
from fake_worker.steering import Steering
from fake_worker.teaching import Teaching


class FakeWorker(Steering, Teaching):
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
            "models": [] if "no-models" in BEHAVIOUR else self.models(),
        }

    def ping(self) -> dict:
        return {}

    def doctor(self) -> dict:
        good = "no-torch" not in BEHAVIOUR
        return {
            "lines": [["PyTorch", "2.9.0 (CPU)" if good else "missing", good], ["Model", "embedded", True]]
        }

    def models(self) -> list[dict]:
        """The embedded model, and one that can draw findings."""
        if not self.folder.is_dir():
            return []
        return [
            {
                "id": name,
                "path": str(self.folder / name),
                "description": card,
                "findings": findings.split(),
                "embedded": name == EMBEDDED,
            }
            for name, (card, findings) in MODELS.items()
        ]

    def load_model(self, model: str, device: str, adapter: str) -> dict:
        if model not in (*MODELS, "embedded") and not Path(model).is_absolute():
            message = f"There is no model {model!r} on this computer."
            raise refusal("ModelError", message, "Installed models: none.")
        self.model = model
        self.adapter_activate(adapter)
        return {
            "model_id": model,
            "model_hash": "f" * 64,
            "device": "cpu",
            "seconds": 0.0,
            "default_steps": 4,
        }


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
