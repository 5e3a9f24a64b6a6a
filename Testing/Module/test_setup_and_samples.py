"""Status, installation on consent, choosing another Python, removing downloads, sample data."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
from panel_bench import until

pytest.importorskip("slicer", reason="needs slicer-core")
pytest.importorskip("PySide6", reason="needs PySide6-Essentials")

import slicer
from slicer_host import pythonqt


def test_set_up_folds_away_when_all_is_well_and_unfolds_when_not(panel, behaviour):
    panel.fold("setupSection")
    panel.click("checkButton")
    until(lambda: "PyTorch" in panel.it("setupLabel").text())
    assert panel.it("setupSection")._collapsed
    panel.widget.logic.engine.stop()
    behaviour("no-torch")
    panel.fold("setupSection")
    panel.click("checkButton")
    until(lambda: "missing" in panel.it("setupLabel").text())
    assert not panel.it("setupSection")._collapsed and "#b3261e" in panel.it("setupLabel").text()


@pytest.fixture
def consent(monkeypatch):
    """The user presses OK; in testing mode Slicer itself would answer no."""
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *_question, **_options: True)


@pytest.fixture
def pytorch_extension(monkeypatch):
    """Notes what it is asked to install; knows fewer keywords than the newest version."""
    asked: list[dict] = []

    class PyTorchUtilsLogic:
        def torchInstalled(self) -> bool:
            return False

        def installTorch(self, askConfirmation: bool = False, torchVersionRequirement: str = "") -> object:
            asked.append(
                {"askConfirmation": askConfirmation, "torchVersionRequirement": torchVersionRequirement}
            )
            return object()

    monkeypatch.setitem(
        sys.modules, "PyTorchUtils", types.SimpleNamespace(PyTorchUtilsLogic=PyTorchUtilsLogic)
    )
    return asked


@pytest.fixture
def installed(monkeypatch):
    """What would be handed to pip."""
    calls: list[tuple[list[str], str]] = []

    def pip_install(requirements, constraints="", **_options) -> None:
        calls.append((requirements, Path(constraints).read_text(encoding="utf-8")))

    monkeypatch.setattr(slicer, "packaging", types.SimpleNamespace(pip_install=pip_install), raising=False)
    return calls


def test_installing_goes_through_the_pytorch_extension_and_keeps_slicers_packages(
    panel, consent, pytorch_extension, installed
):
    panel.fold("setupSection")
    panel.click("installButton")
    until(lambda: "PyTorch" in panel.it("setupLabel").text())
    assert pytorch_extension == [{"askConfirmation": False, "torchVersionRequirement": ">=2.4"}]
    ((requirements, pins),) = installed
    assert not any(r.startswith("torch") for r in requirements) and "diffusers>=0.37" in requirements
    assert "numpy==" in pins


def test_a_slicer_without_its_packaging_module_installs_too(panel, consent, pytorch_extension, monkeypatch):
    """5.10 has only slicer.util.pip_install, which takes pip's own arguments."""
    calls: list[list[str]] = []
    monkeypatch.setattr(slicer.util, "pip_install", calls.append)
    panel.fold("setupSection")
    panel.click("installButton")
    ((*requirements, option, _file),) = calls
    assert option == "--constraint" and "diffusers>=0.37" in requirements


def test_nothing_is_installed_without_consent(panel, pytorch_extension, installed):
    panel.fold("setupSection")
    panel.click("installButton")
    assert pytorch_extension == [] and installed == []


def test_without_the_pytorch_extension_it_says_where_to_get_it(panel, consent, installed):
    panel.fold("setupSection")
    panel.click("installButton")
    assert "Install the PyTorch extension in the Extensions Manager" in panel.it("setupLabel").text()
    assert installed == []


def test_an_install_that_fails_ends_in_a_sentence(panel, consent, pytorch_extension, monkeypatch):
    def pip_install(*_arguments, **_options) -> None:
        raise RuntimeError("no network")

    monkeypatch.setattr(slicer, "packaging", types.SimpleNamespace(pip_install=pip_install), raising=False)
    panel.fold("setupSection")
    panel.click("installButton")
    assert "The packages could not be installed." in panel.it("setupLabel").text()


def test_another_python_can_be_chosen_and_is_used(panel, monkeypatch):
    from ProGiDiffSlicerLib import launching, settings

    monkeypatch.setattr(pythonqt._FileDialog, "answer", "/opt/python/bin/python3")
    panel.fold("setupSection")
    panel.click("otherPythonButton")
    assert settings.interpreter() == "/opt/python/bin/python3"
    assert panel.it("interpreterEdit")._line.text() == "/opt/python/bin/python3"
    launch = launching.default_launch()
    assert launch.program == "/opt/python/bin/python3" and launch.arguments == ("-m", "progidiff.worker")
    assert "PYTHONHOME" not in launch.environment and launch.environment["PYTHONUNBUFFERED"] == "1"
    assert launch.environment["PYTHONPATH"].endswith("Logic")


def test_removing_downloads_asks_and_leaves_the_rest(panel, consent, monkeypatch, tmp_path):
    from ProGiDiffSlicerLib import installation

    folder = tmp_path / "downloads"
    (folder / "hub").mkdir(parents=True)
    (folder / "hub" / "model.safetensors").write_bytes(b"x" * 3_000_000)
    monkeypatch.setattr(installation, "downloads_folder", lambda: folder)
    panel.fold("setupSection")
    panel.click("removeDownloadsButton")
    assert "3 MB freed" in panel.it("setupLabel").text() and not folder.exists()


def test_choices_of_the_computer_are_kept_and_used(panel):
    from ProGiDiffSlicerLib import settings

    panel.fold("advancedSection")
    panel.choose("deviceBox", "Processor")
    panel.hands_type(panel.it("interpreterEdit")._line, "/opt/python3")
    assert settings.device() == "cpu" and settings.interpreter() == "/opt/python3"


def test_sample_data_are_registered_once_slicer_has_started(host, module, monkeypatch):
    from ProGiDiffSlicerLib import sample_data

    registered: list[dict] = []
    logic = types.SimpleNamespace(registerCustomSampleDataSource=lambda **source: registered.append(source))
    monkeypatch.setitem(sys.modules, "SampleData", types.SimpleNamespace(SampleDataLogic=logic))
    slicer.app.startupCompleted()
    assert [s["sampleName"] for s in registered] == ["ProGiDiffSyntheticCT", "ProGiDiffSyntheticMR"]
    assert all(s["category"] == "ProGiDiffSlicer" for s in registered)
    made: list[str] = []
    monkeypatch.setattr(sample_data, "make", made.append)
    registered[1]["customDownloader"](None)
    assert made == ["MR"]
