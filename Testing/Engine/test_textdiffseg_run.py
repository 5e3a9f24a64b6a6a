"""A TextDiffSeg run: resumes, stops, refuses other cases, and survives full disks and bad numbers."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from progidiff.cli import train_textdiffseg
from progidiff.cli.main import main
from progidiff.errors import Cancelled, CasesError, ModelError, OutputError, UsageError
from progidiff.evaluation.learnt import learnt_cases
from progidiff.model_list import card_summary
from progidiff.pipelines.registry import load_pipeline
from progidiff.pipelines.textdiffseg.build import Without
from progidiff.prompts import organ_table
from progidiff.training import loop, textdiffseg_run
from progidiff.training.case_store import PackedCase
from progidiff.training.loop import Schedule
from progidiff.training.pack_cache import write_case
from progidiff.training.safeguards import checkpoint_step, write_json
from progidiff.training.textdiffseg import TextDiffSegStage
from progidiff.training.textdiffseg_run import Recipe, TextDiffSegRun, read_locator, recipe_with
from safetensors import SafetensorError
from safetensors.torch import load_file
from textdiffseg_samples import packed_case, tokenizer
from tiny_models import tiny_locator

TINY_RECIPE = Recipe(
    name="tiny-run",
    size="tiny",
    vocabulary=200,
    depths=(8,),
    default_steps=2,
    encoder=Schedule(steps=2, batch=2, learning_rate=1e-3, warmup=1, precision="no"),
    schedule=Schedule(steps=2, batch=2, learning_rate=1e-3, warmup=1, precision="no"),
)


def test_a_run_resumes_and_ends_as_a_model_folder(tmp_path: Path) -> None:
    cases = [packed_case()]
    tokenizer().save_pretrained(tmp_path / "tokenizer")
    first = TextDiffSegRun(tmp_path, cases, tiny_locator(), TINY_RECIPE, device="cpu")
    first.train()
    longer = replace(TINY_RECIPE, schedule=replace(TINY_RECIPE.schedule, steps=3))
    steps: list[str] = []
    second = TextDiffSegRun(tmp_path, cases, tiny_locator(), longer, device="cpu")
    second.first_stage.register_forward_hook(lambda *_: steps.append("first"))
    second.stage.register_forward_hook(lambda *_: steps.append("joint"))
    second.train()
    assert steps == ["joint"], "it did not continue"
    folder = second.save()
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "| image_encoder | 2 |" in card and "| textdiffseg | 3 |" in card
    assert packed_case().id in card and learnt_cases(str(folder)) == {packed_case().id}
    said = card_summary(folder / "README.md")
    assert "tumors" in said and "arXiv" not in said, "the panel shows it to clinicians"
    loaded = load_pipeline(folder)
    assert loaded.config.findings.split() == list(organ_table().finding_ids)
    assert next(loaded.denoiser.parameters()).dtype == torch.float32
    with pytest.raises(UsageError, match="lesions"):
        TextDiffSegRun(tmp_path, cases, tiny_locator(), replace(TINY_RECIPE, lesions=0.0))


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CasesError):
        TextDiffSegRun(tmp_path, [replace(packed_case(), image=None)], tiny_locator(), TINY_RECIPE)
    with pytest.raises(ModelError, match="locator"):
        read_locator(tmp_path)
    with pytest.raises(UsageError, match="colour"):
        recipe_with({"colour": 1})
    with pytest.raises(UsageError, match="words"):
        recipe_with({"without": ["words"]})
    assert recipe_with({"without": ["text"], "lesions": 0.1}) == Recipe(
        lesions=0.1, without=Without(text=True)
    )


def tiny_run(
    folder: Path, recipe: Recipe | None = None, cases: list[PackedCase] | None = None
) -> TextDiffSegRun:
    if not (folder / "tokenizer").is_dir():
        tokenizer().save_pretrained(folder / "tokenizer")
    return TextDiffSegRun(
        folder, cases or [packed_case()], tiny_locator(), recipe or TINY_RECIPE, device="cpu"
    )


def with_steps(encoder: int, joint: int, **changes: object) -> Recipe:
    first, second = replace(TINY_RECIPE.encoder, steps=encoder), replace(TINY_RECIPE.schedule, steps=joint)
    return replace(TINY_RECIPE, encoder=replace(first, **changes), schedule=replace(second, **changes))  # type: ignore[arg-type]


def after(steps: int) -> Callable[[], bool]:
    """Cancelled when it is asked again after so many steps."""
    asked = iter(range(10**6))
    return lambda: next(asked) >= steps


def steps_done(folder: Path) -> tuple[int, int]:
    return checkpoint_step(folder / "image_encoder"), checkpoint_step(folder / "textdiffseg")


def weights_at_the_joint_start(run: TextDiffSegRun) -> dict[str, torch.Tensor]:
    seen: dict[str, torch.Tensor] = {}

    def note(*_: object) -> None:
        if not seen:
            seen.update({n: p.detach().clone() for n, p in run.pipeline.image_encoder.named_parameters()})

    run.stage.register_forward_pre_hook(note)
    return seen


def assert_learnt_by_the_first_stage(weights: dict[str, torch.Tensor], folder: Path) -> None:
    learnt = load_file(folder / "image_encoder" / "checkpoint.safetensors")
    assert weights
    for name, value in weights.items():
        assert torch.equal(value, learnt[f"average.encoder.{name}"]), name


# Stopping


def test_a_stop_in_the_first_stage_does_not_begin_the_joint_one(tmp_path: Path) -> None:
    recipe = with_steps(4, 1)
    with pytest.raises(Cancelled, match="image_encoder at step 2"):
        tiny_run(tmp_path, recipe).train(cancelled=after(2))
    assert steps_done(tmp_path) == (2, 0)
    assert not (tmp_path / "textdiffseg").exists()
    again = tiny_run(tmp_path, recipe)
    seen = weights_at_the_joint_start(again)
    again.train()
    assert steps_done(tmp_path) == (4, 1)
    assert_learnt_by_the_first_stage(seen, tmp_path)


def test_a_joint_checkpoint_without_a_step_does_not_undo_the_first_stage(tmp_path: Path) -> None:
    run = tiny_run(tmp_path)
    loop.train(run.stage, replace(TINY_RECIPE.schedule, steps=0), tmp_path / "textdiffseg", device="cpu")
    assert (tmp_path / "textdiffseg" / "checkpoint.safetensors").is_file()
    again = tiny_run(tmp_path)
    seen = weights_at_the_joint_start(again)
    again.train()
    assert_learnt_by_the_first_stage(seen, tmp_path)


def test_a_stop_in_the_joint_stage_is_continued_there(tmp_path: Path) -> None:
    with pytest.raises(Cancelled, match="textdiffseg at step 1"):
        tiny_run(tmp_path, with_steps(2, 3)).train(cancelled=after(3))
    assert steps_done(tmp_path) == (2, 1)
    run = tiny_run(tmp_path, with_steps(5, 3))  # the first stage is over, even if it might go on
    run.first_stage.register_forward_hook(lambda *_: pytest.fail("the first stage was taken up again"))
    run.train()
    assert steps_done(tmp_path) == (2, 3)


def test_minutes_that_the_first_stage_leaves_over_are_the_joint_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_run(tmp_path).train()
    (tmp_path / "image_encoder" / "minutes.json").write_text("4.0")
    (tmp_path / "textdiffseg" / "minutes.json").write_text("6.0")
    limits: list[tuple[str, float, float]] = []

    def note(stage: object, schedule: Schedule, folder: Path, **_: object) -> dict[str, float]:
        limits.append((folder.name, schedule.minutes_done, schedule.max_minutes))
        return {}

    monkeypatch.setattr(textdiffseg_run, "train", note)
    tiny_run(tmp_path, TINY_RECIPE.with_minutes(20)).train()
    assert limits == [("textdiffseg", 6.0, pytest.approx(16.0))], "4 + 16 minutes were asked for"


# Other cases


def test_other_cases_are_refused(tmp_path: Path) -> None:
    a, b, c = (packed_case(seed=n) for n in range(3))
    tiny_run(tmp_path, cases=[a, b])
    before = (tmp_path / "recipe.json").read_text(encoding="utf-8")
    for cases in ([a], [a, c], [a, b, c]):
        with pytest.raises(UsageError, match="other cases") as refused:
            tiny_run(tmp_path, cases=cases)
        assert "--fresh" in refused.value.remedy
    tiny_run(tmp_path, cases=[b, a])
    assert (tmp_path / "recipe.json").read_text(encoding="utf-8") == before


def test_a_damaged_record_is_not_overwritten(tmp_path: Path) -> None:
    for damage in ("{", "{}", "3"):
        (tmp_path / "recipe.json").write_text(damage)
        with pytest.raises(UsageError, match=r"recipe\.json"):
            tiny_run(tmp_path)
        assert (tmp_path / "recipe.json").read_text(encoding="utf-8") == damage


# What goes wrong


def test_losses_that_are_no_numbers_leave_the_checkpoint_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_run(tmp_path).train()
    checkpoint = tmp_path / "textdiffseg" / "checkpoint.safetensors"
    before = checkpoint.read_bytes()
    run = tiny_run(tmp_path, with_steps(2, 9, checkpoint_minutes=0.0))
    losses = TextDiffSegStage.losses
    monkeypatch.setattr(
        TextDiffSegStage, "losses", lambda *a: {n: v * torch.nan for n, v in losses(*a).items()}
    )
    with pytest.raises(ModelError, match="textdiffseg are no numbers"):
        run.train()
    assert checkpoint.read_bytes() == before


@pytest.mark.parametrize(
    "problem", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("No space left on device")]
)
def test_a_full_disk_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise problem

    run = tiny_run(tmp_path)
    run.train()
    model = run.save()
    kept = sorted(p.name for p in model.iterdir())
    monkeypatch.setattr(textdiffseg_run, "save_half", fail)
    with pytest.raises(OutputError, match="No space left"):
        run.save()
    assert sorted(p.name for p in model.iterdir()) == kept
    assert not list(tmp_path.glob("*.partial"))
    monkeypatch.setattr(loop, "save_file", fail)
    with pytest.raises(OutputError, match=r"textdiffseg cannot be written.*No space left"):
        tiny_run(tmp_path, with_steps(2, 3)).train()


def test_a_run_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("hello")
    with pytest.raises(OutputError):
        TextDiffSegRun(tmp_path / "run", [packed_case()], tiny_locator(), TINY_RECIPE, device="cpu")


def test_a_torn_clock_does_not_block_resuming(tmp_path: Path) -> None:
    tiny_run(tmp_path).train()
    clock, again = tmp_path / "textdiffseg" / "minutes.json", tiny_run(tmp_path)
    known = again.minutes
    for torn in ("", "[", "null"):
        clock.write_text(torn)
        assert 0 < again.minutes < known
    again.train()
    assert json.loads(clock.read_text(encoding="utf-8")) > 0


def test_files_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "minutes.json"
    write_json(path, 1.5)

    def tear(self: Path, text: str, **_: object) -> None:
        self.write_bytes(text[:1].encode())
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", tear)
    with pytest.raises(OutputError):
        write_json(path, 22.5)
    assert json.loads(path.read_text(encoding="utf-8")) == 1.5


def test_only_the_main_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_run(tmp_path / "main").train()
    monkeypatch.setattr(PartialState, "is_main_process", property(lambda self: False))
    other = tiny_run(tmp_path / "other")
    shutil.copytree(tmp_path / "main" / "textdiffseg", tmp_path / "other" / "textdiffseg")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "other").rglob("*")}
    other.train()
    other.save()
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "other").rglob("*")} == before


# The command

CASES = {"a": packed_case(seed=1), "b": packed_case(seed=2), "c": packed_case(seed=3)}


def pack(cache: Path, *names: str) -> None:
    for name in names:
        write_case(cache, replace(CASES[name], id=name), mark=name)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`progidiff train textdiffseg` with a tiny recipe; `stop`: Ctrl-C after so many questions."""
    tokenizer().save_pretrained(tmp_path / "run" / "tokenizer")
    tiny_locator().save_pretrained(tmp_path / "locator")

    def call(*words: str, recipe: Recipe = TINY_RECIPE, stop: int = 10**5) -> int:
        @contextmanager
        def stopping() -> Iterator[Callable[[], bool]]:
            yield after(stop)

        monkeypatch.setattr(train_textdiffseg, "_recipe", lambda options: recipe)
        monkeypatch.setattr("progidiff.cli.train._stop_on_signals", stopping)
        fixed = [
            "--locator",
            str(tmp_path / "locator"),
            "--cache",
            str(tmp_path / "cache"),
            "--device",
            "cpu",
        ]
        return main(["train", "textdiffseg", "--output", str(tmp_path / "run"), *fixed, *words])

    return call


def taught(folder: Path) -> list[str]:
    return list(json.loads((folder / "run" / "recipe.json").read_text(encoding="utf-8"))["cases"])


def test_a_stopped_command_is_no_finished_one(
    tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    pack(tmp_path / "cache", "a")
    assert command() == 0
    card = tmp_path / "run" / "tiny-run" / "README.md"
    before = card.stat().st_mtime_ns
    assert command(recipe=with_steps(2, 9), stop=1) == 130
    assert "Stopped textdiffseg at step 3" in capsys.readouterr().err
    assert card.stat().st_mtime_ns == before
    assert command(recipe=with_steps(2, 4)) == 0
    assert "| textdiffseg | 4 |" in card.read_text(encoding="utf-8")


def test_a_resumed_command_takes_the_cases_it_began_with(
    tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    pack(tmp_path / "cache", "a", "b")
    assert command("--exclude", "b") == 0
    pack(tmp_path / "cache", "c")  # another run shares the cache
    assert command("--exclude", "b") == 0
    assert command() == 0
    assert taught(tmp_path) == ["a"]
    assert command("--fresh") == 0
    assert taught(tmp_path) == ["a"]
    assert command("--exclude", "a") != 0
    (tmp_path / "cache" / "a.json").unlink()
    capsys.readouterr()
    assert command() == 1
    assert "“a” is not in" in capsys.readouterr().err


def test_what_the_locator_of_the_run_was_kept_from_does_not_teach(
    tmp_path: Path, command: Callable[..., int]
) -> None:
    """The cache is shared with the runs of other folds."""
    pack(tmp_path / "cache", "a", "b", "c")
    record = {"cases": ["a", "b"], "painted": [], "phantoms": {"count": 0, "first_seed": 1000}}
    write_json(tmp_path / "run" / "training_data.json", {**record, "kept_aside": ["c"]})
    assert command() == 0
    assert taught(tmp_path) == ["a", "b"]


def test_what_was_painted_from_an_excluded_case_is_excluded(
    tmp_path: Path, command: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CASES, "b_painted_0", CASES["b"])
    pack(tmp_path / "cache", "a", "b", "b_painted_0")
    assert command("--exclude", "b") == 0
    assert taught(tmp_path) == ["a"]


@pytest.mark.parametrize(
    "words",
    [
        ["--batch", "0"],
        ["--batch", "-2"],
        ["--learning-rate", "0"],
        ["--learning-rate", "-1"],
        ["--lesions", "2"],
    ],
)
def test_numbers_out_of_range(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    run = tmp_path / "run"
    assert main(["train", "textdiffseg", "--output", str(run), "--device", "cpu", *words]) == 2
    assert "Give --" in capsys.readouterr().err


def test_what_another_runs_locator_has_learnt_is_listed_with_the_model(tmp_path: Path) -> None:
    """Figures on those patients would flatter as much as on its own."""
    run = TextDiffSegRun(
        tmp_path, [packed_case()], tiny_locator(), TINY_RECIPE, located={"elsewhere"}, device="cpu"
    )
    run.train()
    assert learnt_cases(str(run.save())) == {packed_case().id, "elsewhere"}


def test_a_locator_that_saw_what_is_kept_aside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "training_data.json").write_text(json.dumps({"cases": ["a", "b"]}))
    train_textdiffseg._refuse_to_leak(tmp_path, ["c"])
    train_textdiffseg._refuse_to_leak(None, ["a"])
    with pytest.raises(CasesError, match="kept aside, such as b"):
        train_textdiffseg._refuse_to_leak(tmp_path, ["b", "c"])
