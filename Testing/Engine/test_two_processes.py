"""Training in two processes that share every step, as `accelerate launch` starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from progidiff.pipelines.registry import load_pipeline
from progidiff.training.run import stage_summary
from progidiff.training.safeguards import checkpoint_step

SCRIPT = Path(__file__).with_name("one_of_two_processes.py")


def test_two_processes_train_together_and_end_together(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(tmp_path), rank],
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=environment,
        )
        for rank in ("0", "1")
    ]
    try:
        said = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)

    summary = stage_summary(tmp_path / "progidiff" / "locator")
    assert summary is not None and summary["steps"] == 2 and summary["batch"] == 4
    run = tmp_path / "textdiffseg"
    assert checkpoint_step(run / "textdiffseg") == 3
    assert "| textdiffseg | 3 |" in (run / "tiny-run" / "README.md").read_text(encoding="utf-8")
    assert load_pipeline(run / "tiny-run").config.findings
    assert json.loads((run / "recipe.json").read_text(encoding="utf-8"))["cases"]
