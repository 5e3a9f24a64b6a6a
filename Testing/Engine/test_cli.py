"""The command line: exit codes, what is printed, and that nothing is left half-done."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import progidiff
import pytest
from progidiff.cli.ids import listed
from progidiff.cli.main import COMMANDS, main
from progidiff.errors import OutputError, PromptError, UsageError
from progidiff.model_list import weights_hash
from progidiff.volumes import read_volume, write_volume
from progidiff.volumes.volume import Volume, axial_grid
from test_volumes_dicom import stack, write_slices

HERE = Path(__file__).parent


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A small scan on disk."""
    grid = axial_grid((20, 18, 12), (2.0, 2.0, 5.0), np.zeros(3))
    voxels = np.random.default_rng(0).integers(-1000, 1000, grid.shape).astype(np.int16)
    path = tmp_path / "scan.nii.gz"
    write_volume(Volume(voxels, grid.affine), path)
    return path


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROGIDIFF_SEGMENTER", "fake_segmenter:load")
    monkeypatch.syspath_prepend(str(HERE))


def segment(scan: Path, output: Path, *more: str) -> int:
    return main(["segment", str(scan), "--prompt", "the liver", "--output", str(output), *more])


def process(*arguments: str, **options: object) -> subprocess.Popen:
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    env.pop("PYTHONUNBUFFERED", None)
    command = [sys.executable, "-m", "progidiff", *arguments]
    return subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A run in the background ignores Ctrl-C, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        **options,
    )  # type: ignore[call-overload]


# -- segment ---------------------------------------------------------------------------------------


def test_segment_writes_all_files_and_a_table(
    scan: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert segment(scan, tmp_path / "out", "--proposals", "2", "--seed", "3", "--quality", "fine") == 0
    printed = capfd.readouterr().out
    assert "liver" in printed
    assert "ml" in printed
    assert str(tmp_path / "out") in printed
    report = json.loads((tmp_path / "out" / "proposals.json").read_text(encoding="utf-8"))
    (organ,) = report["organs"]
    assert len(organ["proposals"]) == 2
    assert sorted(p["seed"] for p in organ["proposals"]) == [3, 4]
    assert {p["provenance"]["steps"] for p in organ["proposals"]} == {8}
    label = read_volume(tmp_path / "out" / "consensus.nii.gz")
    assert label.shape == read_volume(scan).shape
    np.testing.assert_allclose(label.affine, read_volume(scan).affine, atol=1e-4)


def test_the_table_shows_each_distinct_proposal_once(
    scan: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # The fake's sixth proposal is its first.
    assert segment(scan, tmp_path / "out", "--proposals", "6") == 0
    rows = [line.split("  ")[1] for line in capfd.readouterr().out.splitlines() if line.startswith("  ")]
    assert sorted(rows) == ["liver 1 (also 6)", *(f"liver {n}" for n in range(2, 6))]
    (organ,) = json.loads((tmp_path / "out" / "proposals.json").read_text(encoding="utf-8"))["organs"]
    assert len(organ["proposals"]) == 6


def test_two_runs_with_one_seed_agree(scan: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert segment(scan, tmp_path / name, "--proposals", "2") == 0
    a, b = (read_volume(tmp_path / name / "probability.nii.gz").array for name in ("a", "b"))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (["--proposals", "0"], (2, "between 1 and")),
        (["--steps", "-1"], (2, "steps")),
        (["--seed", str(10**20)], (2, "seed")),
        (["--seed", "-1"], (2, "seed")),
        (["--prompt", ""], (2, "prompt")),
        (["--prompt", "the carburettor"], (2, "carburettor")),
        (["--model", "no such model"], (1, "no model")),
    ],
)
def test_a_mistake_is_a_sentence_and_an_exit_code(
    scan: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: list[str],
    expected: tuple[int, str],
) -> None:
    code, words = expected
    assert segment(scan, tmp_path / "out", *change) == code
    printed = capsys.readouterr().err
    assert printed.startswith("Error: ")
    assert words in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "out").exists()


def test_the_user_is_told_which_of_several_series_was_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for series, slices in ((1, 2), (2, 5), (3, 3)):
        write_slices(tmp_path / "study", stack(slices), series)
    assert segment(tmp_path / "study", tmp_path / "out", "--proposals", "1") == 0
    warning = capsys.readouterr().err
    assert "Warning: The folder holds 3 series; the largest, “series 2” with 5 slices, was taken." in warning
    chosen = json.loads((tmp_path / "out" / "proposals.json").read_text(encoding="utf-8"))["input"]
    assert (chosen["series_uid"], chosen["series_description"]) == ("1.2.3.2", "series 2")
    assert segment(tmp_path / "out" / "probability.nii.gz", tmp_path / "again", "--proposals", "1") == 0
    assert "Warning" not in capsys.readouterr().err


@pytest.mark.parametrize("model", ["embedded", "no such model"])
@pytest.mark.parametrize("command", [["segment"], ["vary", "--mask", "mask.nii.gz"], ["constrain"]])
def test_what_the_model_cannot_do_is_told_before_anything_is_loaded(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    model: str,
) -> None:
    monkeypatch.delenv("PROGIDIFF_SEGMENTER")
    missing = str(tmp_path / "scan.nii.gz")
    where = ["--prompt", "liver tumor", "--model", model, "--output", str(tmp_path / "out")]
    expected = {"embedded": (2, "draws organs only"), "no such model": (1, "no model")}[model]
    assert main([*command, missing, *where]) == expected[0]
    assert expected[1] in capsys.readouterr().err


@pytest.mark.parametrize("command", [["segment"], ["vary", "--mask", "mask.nii.gz"], ["constrain"]])
def test_an_adapter_that_cannot_be_used_is_told_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.delenv("PROGIDIFF_SEGMENTER")
    missing = str(tmp_path / "scan.nii.gz")
    where = ["--prompt", "liver", "--adapter", str(tmp_path), "--output", str(tmp_path / "out")]
    assert main([*command, missing, *where]) == 1
    assert "is not an adapter" in capsys.readouterr().err


def test_debug_adds_the_traceback(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert segment(scan, tmp_path / "out", "--proposals", "0", "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change", [["--proposals", "many"], ["--quality", "superb"], ["--colour", "red"], ["--output", ""]]
)
def test_arguments_that_cannot_be_read_are_usage_errors(
    scan: Path, tmp_path: Path, change: list[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        segment(scan, tmp_path / "out", *change)
    assert stopped.value.code == 2


def test_a_list_in_another_encoding_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_bytes("Müller\n".encode("latin-1"))
    with pytest.raises(UsageError, match="cannot be read as text") as caught:
        listed(str(tmp_path / "ids.txt"))
    assert "UTF-8" in caught.value.remedy
    (tmp_path / "ids.txt").write_text("a\nb, c\n", encoding="utf-8")
    assert listed(str(tmp_path / "ids.txt")) == ["a", "b", "c"]


@pytest.mark.parametrize("content", [None, b"", b"this is not an image"])
def test_a_missing_or_broken_image_is_a_typed_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    image = tmp_path / "image.nii.gz"
    if content is not None:
        image.write_bytes(content)
    assert segment(image, tmp_path / "out") == 1
    assert "image.nii.gz" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_noticed_before_the_work(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("mine")
    assert segment(scan, tmp_path / "out" / "deep") == 1
    assert "is a file" in capsys.readouterr().err
    assert (tmp_path / "out").read_text(encoding="utf-8") == "mine"


def test_a_read_only_output_is_noticed_before_the_work(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    assert segment(scan, tmp_path / "locked" / "out") == 1
    assert "cannot be written" in capsys.readouterr().err
    assert not (tmp_path / "locked").exists()


@pytest.mark.parametrize(("model", "words"), [("fake:bug", "--debug"), ("fake:no_memory", "--device cpu")])
def test_the_unforeseen_is_an_apology_and_memory_a_remedy(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, words: str
) -> None:
    assert segment(scan, tmp_path / "out", "--model", model) == 1
    printed = capsys.readouterr().err
    assert words in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_nothing_behind(
    scan: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    order = ["segment", str(scan), "--prompt", "liver", "--output", str(tmp_path / "out")]
    running = process(*order, "--model", "fake:slow,noisy", "--proposals", "100", stdin=subprocess.DEVNULL)
    assert running.stdout is not None
    assert "prints" in running.stdout.readline()  # it is at work
    running.send_signal(number)
    _, printed = running.communicate(timeout=10)
    assert running.returncode == code
    assert "Traceback" not in printed
    assert not (tmp_path / "out").exists()


def test_a_closed_pipe_is_no_error() -> None:
    running = process("models")
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    assert running.wait(10) == 0
    assert running.stderr.read() == ""
    running.stderr.close()


# -- the same from Python --------------------------------------------------------------------------


def test_the_python_call_does_what_the_command_does(scan: Path, tmp_path: Path) -> None:
    assert segment(scan, tmp_path / "a", "--proposals", "2", "--quality", "fine", "--seed", "3") == 0
    adapter = tmp_path / "adapter"
    result = progidiff.segment(
        scan, "the liver", tmp_path / "b", 2, seed=3, device="cpu", adapter=adapter, quality="fine"
    )
    assert result.model_id == "fake"
    reports = [
        json.loads((tmp_path / name / "proposals.json").read_text(encoding="utf-8"))["organs"]
        for name in "ab"
    ]
    assert reports[0] == reports[1]
    assert result.sets[0].proposals[0].provenance.steps == 8
    result = progidiff.segment(scan, "the liver", proposals=1, steps=3, quality="draft")
    assert result.sets[0].proposals[0].provenance.steps == 3


def test_the_python_call_puts_the_adapter_on(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_on = []
    monkeypatch.setattr("fake_segmenter.FakeSegmenter.load_adapter", lambda _, path: put_on.append(path))
    progidiff.segment(scan, "the liver", proposals=1, adapter="my/adapter")
    progidiff.segment(scan, "the liver", proposals=1)
    assert put_on == [Path("my/adapter")]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"output": "in the way"}, OutputError),
        ({"quality": "superb"}, UsageError),
        ({"proposals": 0}, UsageError),
        ({"seed": 10**20}, UsageError),
        ({"prompt": "the carburettor"}, PromptError),
    ],
)
def test_the_python_call_finds_mistakes_before_it_loads_a_model(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict, error: type[Exception]
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr("fake_segmenter.load", lambda model, device: loaded.append(model))
    monkeypatch.chdir(tmp_path)
    Path("in the way").write_text("mine", encoding="utf-8")
    with pytest.raises(error):
        progidiff.segment(**{"input": scan, "prompt": "the liver", "output": tmp_path / "out", **change})
    assert not loaded
    assert not (tmp_path / "out").exists()


# -- the other commands ----------------------------------------------------------------------------


def test_help_and_version_need_neither_torch_nor_numpy() -> None:
    code = (
        "import sys\n"
        "from progidiff.cli.main import main\n"
        "for argument in (['--help'], ['--version'], ['segment', '--help']):\n"
        "    try: main(argument)\n"
        "    except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'torch', 'numpy', 'rich', 'SimpleITK', 'rapidfuzz'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert progidiff.__version__ in done.stdout
    assert all(name in done.stdout for name in COMMANDS)


def test_doctor_reports_line_by_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) in (0, 1)
    printed = capfd.readouterr().out
    assert "torch" in printed
    assert "bf16" in printed
    assert sys.executable in printed
    assert "Memory" in printed


def test_doctor_works_without_torch(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('No module named torch', name='torch')")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "progidiff", "doctor"]
    done = subprocess.run(command, env=env, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 1
    assert "not installed" in done.stdout
    assert "Traceback" not in done.stderr


def test_models_come_with_the_summary_of_their_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROGIDIFF_MODELS", str(tmp_path))
    card = "---\nlicense: apache-2.0\n---\n# Mine\n\nKnows the liver\nof my ward.\n\nMore.\n"
    for name, text in (("mine", card), ("plain", ""), ("not-a-model", None)):
        (tmp_path / name).mkdir()
        if text is not None:
            (tmp_path / name / "model_index.json").write_text("{}")
            (tmp_path / name / "README.md").write_text(text)
    assert main(["models"]) == 0
    printed = capsys.readouterr().out
    assert "Knows the liver of my ward." in printed
    assert "plain" in printed
    assert "not-a-model" not in printed
    assert main(["models", "mine"]) == 0
    assert capsys.readouterr().out == card + "\n"
    assert main(["models", "nobody"]) == 1
    assert "mine" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["embedded", "textdiffseg"])
def test_models_are_known_by_the_names_that_can_be_asked_for(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", name]) == 0
    assert "## " in capsys.readouterr().out
    assert main(["models"]) == 0
    assert f"(or {name})" in capsys.readouterr().out


def test_signs_that_the_terminal_lacks_are_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["cases", "list", "--cases", "/no/Fälle"]) == 0
    terminal.flush()
    assert b"There are no cases in /no/F?lle." in terminal.buffer.getvalue()  # type: ignore[attr-defined]


def test_the_hash_follows_weights_and_nothing_else(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "unet").mkdir(parents=True)
        (tmp_path / name / "unet" / "model.safetensors").write_bytes(b"weights")
        (tmp_path / name / "README.md").write_text(name)
    assert weights_hash(tmp_path / "a") == weights_hash(tmp_path / "b")
    (tmp_path / "b" / "unet" / "model.safetensors").write_bytes(b"weightz")
    assert weights_hash(tmp_path / "a") != weights_hash(tmp_path / "b")
    (tmp_path / "b" / "unet").rename(tmp_path / "b" / "other")
    (tmp_path / "b" / "other" / "model.safetensors").write_bytes(b"weights")
    assert weights_hash(tmp_path / "a") != weights_hash(tmp_path / "b")


def test_phantom_writes_an_image_and_its_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from progidiff.training import phantom

    grid = axial_grid((8, 7, 6), (2.0, 2.0, 5.0), np.zeros(3))
    asked = []

    def small(seed: int, modality: str) -> tuple[Volume, Volume]:
        asked.append((seed, modality))
        label = np.zeros(grid.shape, np.uint8)
        label[2:4, 2:4, 2:4] = 6
        return Volume(label.astype(np.int16) * 10, grid.affine), Volume(label, grid.affine)

    monkeypatch.setattr(phantom, "make_phantom", small)
    image = tmp_path / "new" / "ph.nii.gz"
    assert main(["phantom", "--seed", "4", "--modality", "MR", "--output", str(image)]) == 0
    assert asked == [(4, "MR")]
    assert read_volume(image).array.max() == 60
    assert read_volume(tmp_path / "new" / "ph_label.nii.gz").array.max() == 6
    (tmp_path / "full.nii.gz").mkdir()
    assert main(["phantom", "--output", str(tmp_path / "full.nii.gz")]) == 1
    assert not (tmp_path / "full_label.nii.gz").exists()
    assert main(["phantom", "--output", str(tmp_path / "ph.jpeg")]) == 2
