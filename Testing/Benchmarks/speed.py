"""How long proposals take and how much memory, by stage, against the project's budgets.

    python Testing/Benchmarks/speed.py [--large] [--device cpu cuda] [--model embedded PATH ...] [--json FILE]

Every combination of model, device and volume runs in a process of its own, so that peak memory is its
own too. The volumes are phantoms; the weights may be random, time does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

STAGES = ("read", "prepare", "encode", "denoise", "decode", "resample", "summarise")


@dataclass(frozen=True)
class Size:
    """A phantom's grid: voxels and millimetres."""

    name: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]


@dataclass(frozen=True)
class Budget:
    """What a run may take at most: seconds and GB."""

    first_s: float
    all_s: float
    memory_gb: float


USUAL = Size("192×192×40", (192, 192, 40), (1.8, 1.8, 5.0))
LARGE = Size("512×512×300", (512, 512, 300), (0.75, 0.75, 1.5))
TINY = Size("48×48×12", (48, 48, 12), (7.2, 7.2, 16.0))
BUDGETS = {("cpu", USUAL.name): Budget(5, 15, 3), ("cuda", LARGE.name): Budget(1, 5, 8)}
MODEL_BUDGET_MB = 60


def main() -> int:
    options = parse_arguments()
    if options.one:
        print(json.dumps(measure(json.loads(options.one))))
        return 0
    sizes = [TINY] if options.tiny else [USUAL, LARGE] if options.large else [USUAL]
    with tempfile.TemporaryDirectory(prefix="progidiff-speed-") as folder:
        volumes = {size.name: write_phantom(size, Path(folder)) for size in sizes}
        runs = [
            run_apart(job_of(options, model, device, size, volumes[size.name]))
            for model in options.model
            for device in options.device or devices()
            for size in sizes
        ]
    print(table(runs))
    if options.json:
        facts = {"machine": machine(), "created": time.strftime("%Y-%m-%d %H:%M"), "runs": runs}
        options.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return 1 if any("error" in run for run in runs) else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--model", nargs="+", default=["embedded"], help="names or folders (default embedded)")
    add("--device", nargs="+", default=[], help="cpu, cuda (default: what there is)")
    add("--large", action="store_true", help="also 512×512×300")
    add("--tiny", action="store_true", help="only 48×48×12, to try the benchmark itself")
    add("--proposals", type=int, default=5)
    add("--steps", type=int, help="denoising steps (default: the model's own)")
    add("--prompt", default="segment the liver")
    add("--json", type=Path, help="write the figures there")
    add("--one", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def devices() -> list[str]:
    import torch

    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def write_phantom(size: Size, folder: Path) -> str:
    from progidiff.training.phantom import make_phantom
    from progidiff.volumes import write_volume

    path = folder / f"phantom_{size.shape[0]}.nii.gz"
    image, _ = make_phantom(0, "CT", size.shape, size.spacing)
    write_volume(image, path)
    return str(path)


def job_of(options: argparse.Namespace, model: str, device: str, size: Size, volume: str) -> dict[str, Any]:
    asked = {"prompt": options.prompt, "proposals": options.proposals, "steps": options.steps}
    return {"model": model, "device": device, "size": size.name, "volume": volume, **asked}


def run_apart(job: dict[str, Any]) -> dict[str, Any]:
    """Measures one job in a fresh process; a failure becomes a row that says so."""
    print(f"measuring {job['model']} on {job['device']}, {job['size']} ...", file=sys.stderr, flush=True)
    command = [sys.executable, str(Path(__file__).resolve()), "--one", json.dumps(job)]
    child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    facts = {name: job[name] for name in ("model", "device", "size", "proposals")}
    if child.returncode:
        return {**facts, "error": f"exit code {child.returncode}"}
    return {**facts, **json.loads(child.stdout.splitlines()[-1])}


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Loads, warms up with one proposal in one step, then measures one prompt on a freshly read volume."""
    started = time.perf_counter()
    from progidiff.segmenter_factory import load_segmenter

    segmenter = load_segmenter(job["model"], job["device"])
    loaded = time.perf_counter() - started
    from progidiff.volumes import read_volume

    started = time.perf_counter()
    volume = read_volume(job["volume"])
    seconds = {"read": time.perf_counter() - started}
    segmenter.segment(volume, job["prompt"], proposals=1, steps=1)

    arrivals: list[float] = []
    started = time.perf_counter()
    result = segmenter.segment(
        volume,
        job["prompt"],
        proposals=job["proposals"],
        steps=job["steps"],
        on_proposal=lambda _: arrivals.append(time.perf_counter() - started),
    )
    finished = time.perf_counter() - started
    seconds |= {stage: spent for stage, spent in result.seconds.items() if stage != "total"}
    return {
        "model_mb": model_megabytes(job["model"]),
        "load_s": loaded,
        "first_s": arrivals[0] if arrivals else None,
        "all_s": finished,
        "found": all(found.found for found in result.sets),
        "stages_s": seconds,
        "memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_of_maxrss() / 1e9,
        "gpu_memory_gb": gpu_gigabytes(result.device),
    }


def unit_of_maxrss() -> int:
    """Bytes: Linux counts in KiB, macOS in bytes."""
    return 1 if sys.platform == "darwin" else 1024


def gpu_gigabytes(device: str) -> float | None:
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.max_memory_reserved(device) / 1e9


def model_megabytes(model: str) -> float | None:
    from progidiff.errors import ModelError
    from progidiff.pipelines.model_folder import model_folder

    try:
        files = [path for path in model_folder(model).rglob("*") if path.is_file()]
    except ModelError:  # a test's model is no folder
        return None
    return sum(path.stat().st_size for path in files) / 1e6


def machine() -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return {"processor": name or platform.processor(), "cores": cores, "torch": version("torch")}


def table(runs: Sequence[dict[str, Any]]) -> str:
    """One column a run, with the budget where there is one."""
    facts = machine()
    lines = [f"{facts['processor']}, {facts['cores']} cores, torch {facts['torch']}", ""]
    names = [f"{Path(run['model']).name}, {run['device']}, {run['size']}" for run in runs]
    lines += ["| | " + " | ".join(names) + " |", "|" + " --- |" * (len(runs) + 1)]
    rows = {
        "first proposal, s": [against(run, "first_s", "first_s") for run in runs],
        f"all {runs[0]['proposals']} proposals, s": [against(run, "all_s", "all_s") for run in runs],
        "peak memory, GB": [against(run, "memory_gb", memory_key(run)) for run in runs],
        "model on disk, MB": [disk(run) for run in runs],
        "load the model, s": [number(run.get("load_s")) for run in runs],
    }
    for stage in STAGES:
        rows[f"– {stage}, s"] = [number(run.get("stages_s", {}).get(stage)) for run in runs]
    rows["organ found"] = [run.get("error") or ("yes" if run["found"] else "no") for run in runs]
    lines += ["| " + " | ".join([name, *cells]) + " |" for name, cells in rows.items()]
    return "\n".join(lines)


def memory_key(run: dict[str, Any]) -> str:
    """On a GPU it is the GPU's memory that is short."""
    return "memory_gb" if run["device"] == "cpu" else "gpu_memory_gb"


def against(run: dict[str, Any], budget_key: str, key: str) -> str:
    """A figure, and whether it is within its budget."""
    value = run.get(key)
    budget = BUDGETS.get((run["device"].split(":")[0], run["size"]))
    if value is None or budget is None or run["proposals"] != 5:
        return number(value)
    limit = asdict(budget)[budget_key]
    return f"{number(value)} ({'within' if value <= limit else 'OVER'} {limit:g})"


def disk(run: dict[str, Any]) -> str:
    value = run.get("model_mb")
    if value is None or run["model"] != "embedded":
        return number(value)
    return f"{number(value)} ({'within' if value <= MODEL_BUDGET_MB else 'OVER'} {MODEL_BUDGET_MB})"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
