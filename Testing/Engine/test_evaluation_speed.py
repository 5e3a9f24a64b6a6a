"""The benchmark runs, and its table says what its JSON says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from evaluation_samples import WholeFakeSegmenter

ENGINE = Path(__file__).resolve().parent
SPEED = ENGINE.parent / "Benchmarks" / "speed.py"


def whole_model(model: str, device: str) -> WholeFakeSegmenter:
    """What the benchmark's segmenter seam loads here."""
    if model == "missing":
        raise SystemExit(3)
    return WholeFakeSegmenter()


def run_speed(tmp_path: Path, *arguments: str) -> tuple[int, str, dict]:
    environment = {
        **os.environ,
        "PROGIDIFF_SEGMENTER": "test_evaluation_speed:whole_model",
        "PYTHONPATH": os.pathsep.join([str(ENGINE), os.environ.get("PYTHONPATH", "")]),
    }
    file = tmp_path / "speed.json"
    command = [sys.executable, str(SPEED), "--tiny", "--device", "cpu", "--json", str(file), *arguments]
    done = subprocess.run(
        command, env=environment, capture_output=True, encoding="utf-8", check=False, timeout=120
    )
    return done.returncode, done.stdout, json.loads(file.read_text(encoding="utf-8"))


def test_every_stage_is_in_table_and_json(tmp_path: Path) -> None:
    code, printed, facts = run_speed(tmp_path, "--model", "fake")
    assert code == 0
    (run,) = facts["runs"]
    assert run["stages_s"].keys() == {"read", "prepare", "denoise"}
    assert 0 <= run["first_s"] <= run["all_s"]
    assert 0.02 < run["memory_gb"] < 5
    assert "| – denoise, s | 0.50 |" in printed
    assert f"| peak memory, GB | {run['memory_gb']:.2f} |" in printed


def test_a_model_that_fails_is_a_row_and_a_bad_exit_code(tmp_path: Path) -> None:
    code, printed, facts = run_speed(tmp_path, "--model", "missing")
    assert code == 1
    assert facts["runs"][0]["error"] == "exit code 3"
    assert "exit code 3" in printed


@pytest.mark.parametrize(("seconds", "word"), [(4.0, "within 5"), (6.0, "OVER 5")])
def test_figures_are_held_against_the_budget(
    monkeypatch: pytest.MonkeyPatch, seconds: float, word: str
) -> None:
    monkeypatch.syspath_prepend(SPEED.parent)
    import speed

    run = {"device": "cpu", "size": speed.USUAL.name, "proposals": 5, "first_s": seconds}
    assert word in speed.against(run, "first_s", "first_s")
