"""From cases to adapter: the whole way on a tiny model, with its verdicts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adaptation_samples import SETTINGS, library, scan, tiny_segmenter
from progidiff.adaptation import adapt as adapt_file
from progidiff.adaptation import lora, outcome
from progidiff.adaptation.adapt import adapt
from progidiff.adaptation.before_after import Measured
from progidiff.adaptation.case_library import CaseLibrary
from progidiff.adaptation.progress import STAGES, AdaptProgress
from progidiff.adaptation.settings import TRAININGS
from progidiff.adaptation.teaching import split
from progidiff.adaptation.work_folder import remove_stale, working_in
from progidiff.atomic_files import write_json
from progidiff.errors import Cancelled, CasesError, OutputError
from progidiff.training.phantom import make_phantom

_PHANTOM = make_phantom(1, "MR", (48, 48, 12), (7.0, 7.0, 14.0))


@pytest.fixture(autouse=True)
def small_phantom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapt_file, "make_phantom", lambda *_: _PHANTOM)


@pytest.fixture
def dice(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Dice that the measurements shall give, without and with an adapter."""
    wanted = {"before": 0.5, "after": 0.8, "phantom_before": 0.9, "phantom_after": 0.9}

    def cases(segmenter: Any, *_: Any) -> Measured:
        return Measured({"liver": wanted["after" if segmenter.adapter else "before"]}, [])

    def phantom(segmenter: Any, *_: Any) -> Measured:
        return Measured({"spleen": wanted["phantom_after" if segmenter.adapter else "phantom_before"]}, [])

    monkeypatch.setattr(adapt_file, "measure_cases", cases)
    monkeypatch.setattr(adapt_file, "measure_phantom", phantom)
    return wanted


def test_the_whole_way_with_nothing_replaced(tmp_path: Path) -> None:
    segmenter, reports = tiny_segmenter(), []
    before = {n: p.clone() for n, p in segmenter.pipeline.controlnet.named_parameters()}
    adapter = adapt(
        segmenter,
        library(tmp_path / "cases", 2).cases(),
        tmp_path / "adapter",
        name="scanner 3",
        settings=SETTINGS,
        on_progress=reports.append,
    )
    facts = adapter.facts
    assert facts["name"] == "scanner 3"
    assert set(facts["measured"]["organs"]) == {"liver"}
    assert len(facts["forgetting"]["organs"]) > 3
    (held_out,) = facts["measured"]["held_out"]
    assert held_out["id"] in facts["measured"]["how"]
    assert held_out["organs"]["liver"]["slices"] == "0–11"
    assert [c["id"] for c in facts["cases"]] == [c.id for c in library(tmp_path / "cases", 2).cases()]
    assert (adapter.folder / "before_after.png").read_bytes()[:4] == b"\x89PNG"
    assert not (tmp_path / "adapter.training").exists()
    after = dict(segmenter.pipeline.controlnet.named_parameters())
    assert all(torch.equal(after[n], p) for n, p in before.items())
    _check_reports(reports, {"read", "before", "find", "see", "draw", "after", "check"})


def _check_reports(reports: list[AdaptProgress], stages: set[str]) -> None:
    assert stages <= {r.stage for r in reports} <= set(STAGES)
    fractions = [r.fraction for r in reports]
    assert fractions == sorted(fractions)
    assert all(0 <= f <= 1 for f in fractions)
    assert all(r.seconds_left >= 0 for r in reports)


def test_a_better_adapter_goes_on_with_all_cases(tmp_path: Path, dice: dict[str, float]) -> None:
    segmenter = tiny_segmenter()
    adapter = adapt(segmenter, library(tmp_path / "cases", 2).cases(), tmp_path / "a", settings=SETTINGS)
    assert adapter.improved
    assert "got better" in adapter.facts["verdict"]
    assert "0.500 before, 0.800 after" in adapter.facts["verdict"]
    assert "all cases" in adapter.facts["training"]["how"]
    segmenter.load_adapter(adapter.folder)
    assert segmenter.adapter == adapter.id


def test_one_that_is_not_better_says_so(tmp_path: Path, dice: dict[str, float]) -> None:
    dice["after"] = 0.505
    adapter = adapt(
        tiny_segmenter(), library(tmp_path / "cases", 2).cases(), tmp_path / "a", settings=SETTINGS
    )
    assert not adapter.improved
    assert "did not get better" in adapter.facts["verdict"]
    assert "all cases" in adapter.facts["training"]["how"]
    card = (adapter.folder / "README.md").read_text(encoding="utf-8")
    assert "not activated" in card


def test_one_that_is_no_better_at_all_learns_no_further(tmp_path: Path, dice: dict[str, float]) -> None:
    dice["after"] = 0.5
    adapter = adapt(
        tiny_segmenter(), library(tmp_path / "cases", 2).cases(), tmp_path / "a", settings=SETTINGS
    )
    assert not adapter.improved
    assert "also what is in this folder" in adapter.facts["training"]["how"]
    assert not {"find_all", "see_all", "draw_all"} & set(adapter.facts["training"]["kept_steps"])


def test_the_fewer_cases_taught_the_nearer_the_model_stays_to_itself(
    tmp_path: Path, dice: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[int] = []

    def noted(tensors: Any, cases: int, prior: float) -> Any:
        taught.append(cases)
        return lora.shrunk(tensors, cases, prior)

    monkeypatch.setattr(adapt_file, "shrunk", noted)
    cases = library(tmp_path / "cases", 2).cases()
    adapter = adapt(tiny_segmenter(), cases, tmp_path / "a", settings=SETTINGS)
    assert taught == [1, 2], "measured after one case, kept after both"
    assert "67% of its strength" in adapter.facts["training"]["how"]
    matrices = {"x.lora_A": torch.ones(2), "x.lora_B": torch.ones(2)}
    half = lora.shrunk(matrices, 1, 1.0)
    assert float(half["x.lora_A"][0] * half["x.lora_B"][0]) == 0.5
    assert torch.equal(lora.shrunk(matrices, 3, 0.0)["x.lora_B"], matrices["x.lora_B"])


def test_forgetting_is_told(tmp_path: Path, dice: dict[str, float]) -> None:
    dice["phantom_after"] = 0.7
    adapter = adapt(
        tiny_segmenter(), library(tmp_path / "cases", 2).cases(), tmp_path / "a", settings=SETTINGS
    )
    assert "Something was forgotten" in adapter.facts["forgetting"]["how"]
    assert adapter.facts["forgetting"]["organs"]["spleen"] == {"before": 0.9, "after": 0.7}


def test_what_could_not_be_measured_is_not_called_better(tmp_path: Path) -> None:
    nothing = Measured({}, [])
    text = outcome.verdict(outcome.Outcome([], "", [], False, nothing, nothing, nothing, nothing), 0.01)
    assert "could not be measured" in text


@pytest.mark.parametrize(("training", "done"), [("see", {"find"}), ("draw", {"find", "see"})])
def test_a_cancelled_adaptation_continues(
    tmp_path: Path, dice: dict[str, float], monkeypatch: pytest.MonkeyPatch, training: str, done: set[str]
) -> None:
    segmenter, cases, stages = tiny_segmenter(), library(tmp_path / "cases", 2).cases(), []
    with pytest.raises(Cancelled):
        adapt(
            segmenter,
            cases,
            tmp_path / "a",
            settings=SETTINGS,
            on_progress=lambda r: stages.append(r.stage),
            cancelled=lambda: training in stages,
        )
    assert not (tmp_path / "a").exists()
    work = tmp_path / "a.training"
    assert {path.parent.name for path in work.glob("*/rounds.json")} == {*done, training}
    assert set(json.loads((work / "plan.json").read_text(encoding="utf-8"))["kept"]) == done
    for part in (segmenter.pipeline.controlnet, segmenter.pipeline.image_encoder):
        assert not any("lora" in n for n, _ in part.named_parameters())
    plan = json.loads((tmp_path / "a.training" / "plan.json").read_text(encoding="utf-8"))
    calls = []
    monkeypatch.setattr(
        adapt_file, "measure_cases", lambda s, *_: calls.append(s.adapter) or Measured({"liver": 0.9}, [])
    )
    adapter = adapt(segmenter, cases, tmp_path / "a", settings=SETTINGS)
    assert calls == ["adapter-in-training"]  # "before" was not measured again
    assert adapter.facts["training"]["steps"] == plan["steps"]
    assert set(adapter.facts["training"]["kept_steps"]) >= {"find", "see", "draw"}
    assert adapter.facts["measured"]["organs"]["liver"] == {"before": 0.5, "after": 0.9}


def test_other_cases_or_settings_start_anew(tmp_path: Path, dice: dict[str, float]) -> None:
    cases = library(tmp_path / "cases", 2).cases()
    work = tmp_path / "a.training"
    work.mkdir()
    write_json(work / "plan.json", {"digest": "of something else", "seconds_used": 1e6, "steps": {"find": 9}})
    (work / "before.json").write_text("{}")
    adapter = adapt(tiny_segmenter(), cases, tmp_path / "a", settings=replace(SETTINGS, seed=3))
    assert adapter.facts["training"]["minutes"] < 10
    assert set(adapter.facts["training"]["steps"]) == set(TRAININGS)


def test_a_folder_of_somebody_else_is_refused_and_stays(tmp_path: Path, dice: dict[str, float]) -> None:
    cases = library(tmp_path / "cases", 2).cases()
    work = tmp_path / "mine.training"
    work.mkdir()
    for plan in ("", "{}", '{"digest": 3}', "[]"):
        (work / "thesis.txt").write_text("three years")
        if plan:
            (work / "plan.json").write_text(plan)
        with pytest.raises(OutputError, match="no adaptation has put there") as refused:
            adapt(tiny_segmenter(), cases, tmp_path / "mine", settings=SETTINGS)
        assert "Move or rename" in refused.value.remedy
        assert (work / "thesis.txt").read_text(encoding="utf-8") == "three years"
        assert {p.name for p in work.iterdir()} <= {"thesis.txt", "plan.json"}


def test_an_empty_folder_may_be_worked_in(tmp_path: Path, dice: dict[str, float]) -> None:
    (tmp_path / "a.training").mkdir()
    (tmp_path / "a.training" / ".unfinished-0").write_text("{")  # killed before there was a plan
    cases = library(tmp_path / "cases", 2).cases()
    assert adapt(tiny_segmenter(), cases, tmp_path / "a", settings=SETTINGS).improved
    assert not (tmp_path / "a.training").exists()


def test_two_do_not_work_in_one_folder(tmp_path: Path, dice: dict[str, float]) -> None:
    segmenter, cases, refusals = tiny_segmenter(), library(tmp_path / "cases", 2).cases(), []

    def another(report: AdaptProgress) -> None:
        if report.stage == "find" and not refusals:
            with pytest.raises(OutputError) as refused:
                adapt(tiny_segmenter(), cases, tmp_path / "a", settings=replace(SETTINGS, seed=9))
            refusals.append(refused.value.message)

    assert adapt(segmenter, cases, tmp_path / "a", settings=SETTINGS, on_progress=another).improved
    assert refusals == [f"Another adaptation is at work in {tmp_path / 'a.training'}."]


@pytest.mark.parametrize(("days", "stays"), [(13, True), (15, False)])
def test_what_nobody_continues_goes_after_two_weeks(tmp_path: Path, days: int, stays: bool) -> None:
    for name in ("old", "old and in use", "old but not ours"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "before.json").write_text("{}")
        write_json(tmp_path / name / "plan.json", {} if "not" in name else {"digest": "a"})
        then = time.time() - days * 24 * 3600
        os.utime(tmp_path / name / "plan.json", (then, then))
    with working_in(tmp_path / "old and in use"):
        remove_stale(tmp_path, "old*")
    assert (tmp_path / "old").exists() == stays
    assert (tmp_path / "old and in use" / "before.json").exists()
    assert (tmp_path / "old but not ours" / "before.json").exists()


def test_the_active_adapter_is_put_on_again(tmp_path: Path, dice: dict[str, float]) -> None:
    segmenter, cases = tiny_segmenter(), library(tmp_path / "cases", 2).cases()
    first = adapt(segmenter, cases, tmp_path / "first", settings=SETTINGS)
    segmenter.load_adapter(first.folder)
    adapt(segmenter, cases, tmp_path / "second", settings=SETTINGS)
    assert segmenter.adapter == first.id


def test_what_cannot_be_done_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    segmenter = tiny_segmenter()
    with pytest.raises(CasesError):
        adapt(segmenter, [], tmp_path / "a")
    (tmp_path / "there").mkdir()
    cases = library(tmp_path / "cases", 1).cases()
    with pytest.raises(OutputError, match="exists"):
        adapt(segmenter, cases, tmp_path / "there")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        adapt(segmenter, cases, tmp_path / "file" / "a")


def test_a_full_disk_in_the_middle_of_training_loses_no_case(
    tmp_path: Path, dice: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    from progidiff.adaptation import fitting

    cases = library(tmp_path / "cases", 2)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fitting, "save_file", full)
    segmenter = tiny_segmenter()
    with pytest.raises(OutputError, match="No space left"):
        adapt(segmenter, cases.cases(), tmp_path / "a", settings=SETTINGS)
    assert len(cases.cases()) == 2
    assert not (tmp_path / "a").exists()
    assert segmenter.adapter == ""


@pytest.mark.parametrize("training", ["see", "draw"])
def test_a_damaged_checkpoint_begins_that_training_anew(
    tmp_path: Path, dice: dict[str, float], training: str
) -> None:
    segmenter, cases, stages = tiny_segmenter(), library(tmp_path / "cases", 2).cases(), []
    with pytest.raises(Cancelled):
        adapt(
            segmenter,
            cases,
            tmp_path / "a",
            settings=SETTINGS,
            on_progress=lambda r: stages.append(r.stage),
            cancelled=lambda: training in stages,
        )
    (tmp_path / "a.training" / training / "checkpoint.safetensors").write_bytes(b"cut off")
    assert adapt(segmenter, cases, tmp_path / "a", settings=SETTINGS).improved


@pytest.mark.parametrize("content", [b"", b"cut off", b"PK\x03\x04"])
@pytest.mark.parametrize("record", ["before", "phantom_before"])
def test_a_damaged_record_is_measured_again(
    tmp_path: Path, dice: dict[str, float], record: str, content: bytes
) -> None:
    segmenter, cases, stages = tiny_segmenter(), library(tmp_path / "cases", 2).cases(), []
    with pytest.raises(Cancelled):
        adapt(
            segmenter,
            cases,
            tmp_path / "a",
            settings=SETTINGS,
            on_progress=lambda r: stages.append(r.stage),
            cancelled=lambda: "find" in stages,
        )
    (tmp_path / "a.training" / f"{record}.npz").write_bytes(content)  # as after a power cut
    assert adapt(segmenter, cases, tmp_path / "a", settings=SETTINGS).improved


@pytest.mark.parametrize("tiny", [(0,), (1,), (0, 1)])
def test_an_organ_of_a_few_voxels_ends_no_adaptation(
    tmp_path: Path, dice: dict[str, float], tiny: tuple[int, ...]
) -> None:
    cases = CaseLibrary(tmp_path / "cases")
    for n in range(2):
        image, ball = scan(n)
        few = np.zeros(image.shape, bool)
        few[10:12, 10:12, 5:8] = True
        cases.add(image, few if n in tiny else ball, "liver")
    adapter = adapt(tiny_segmenter(), cases.cases(), tmp_path / "a", settings=SETTINGS)
    drew = {"see", "draw"} & set(adapter.facts["training"]["kept_steps"])
    assert bool(drew) == (split(cases.cases()).train[0].case.load_mask("liver").sum() > 20)


@pytest.mark.parametrize(("training", "shares"), [("find", (0.10, 0.45, 0.45)), ("see", (0.0, 0.5, 0.5))])
def test_a_process_killed_in_training_loses_nothing_and_is_continued(
    tmp_path: Path, dice: dict[str, float], training: str, shares: tuple[float, float, float]
) -> None:
    cases = library(tmp_path / "cases", 2)
    settings = replace(SETTINGS, most_steps=10_000, minutes=5.0, shares=shares)
    program = (
        "import sys\n"
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "from adaptation_samples import SETTINGS, library, scan, tiny_segmenter\n"
        "from progidiff.adaptation import adapt as file\n"
        "from progidiff.adaptation.before_after import Measured\n"
        "from progidiff.adaptation.case_library import CaseLibrary\n"
        "file.make_phantom = lambda *_: (None, None)\n"
        "file.measure_cases = lambda *_: Measured({'liver': 0.4}, [])\n"
        "file.measure_phantom = lambda *_: Measured({'spleen': 0.9}, [])\n"
        "cases = CaseLibrary(Path(sys.argv[1]) / 'cases').cases()\n"
        f"settings = replace(SETTINGS, most_steps=10_000, minutes=5.0, shares={shares})\n"
        "tell = lambda r: print(r.stage, r.step, r.loss, r.held_out_loss, r.seconds_left, flush=True)\n"
        "file.adapt(tiny_segmenter(), cases, Path(sys.argv[1]) / 'a', settings=settings, on_progress=tell)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    trainer = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, env=env, text=True
    )
    assert trainer.stdout is not None
    for line in trainer.stdout:
        if line.startswith(training) and line.split()[1] != "0":
            break
    assert all(float(number) > 0 for number in line.split()[1:])  # its loss and time left are told
    trainer.send_signal(signal.SIGKILL)
    assert trainer.wait() == -signal.SIGKILL
    trainer.stdout.close()
    assert [len(case.organs) for case in cases.cases()] == [1, 1]
    plan = tmp_path / "a.training" / "plan.json"
    content = json.loads(plan.read_text(encoding="utf-8"))
    assert (content["steps"]["find"] == 0) == (training == "see")
    short = {stage: min(steps, 3) for stage, steps in content["steps"].items()}
    write_json(plan, {**content, "steps": short})  # so that the rest is short
    adapter = adapt(tiny_segmenter(), cases.cases(), tmp_path / "a", settings=settings)
    assert adapter.facts["measured"]["organs"]["liver"] == {"before": 0.4, "after": 0.8}
