"""Fixtures of the module tests: the host, the panel on a small volume, and a worker that answers at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from panel_bench import MODULE_FILE, ROOT, open_panel

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The stand-in for the Slicer application; its tests are skipped where its packages are missing."""
    pytest.importorskip("slicer", reason="the module tests need slicer-core (see Testing/Module/README.md)")
    pytest.importorskip(
        "PySide6", reason="the module tests need PySide6-Essentials (see Testing/Module/README.md)"
    )
    from slicer_host.application import Host

    return Host(tmp_path_factory.mktemp("settings"))


@pytest.fixture(scope="session")
def module(host: Any) -> Any:
    return host.load_module(MODULE_FILE)


@pytest.fixture(autouse=True)
def no_adapters_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have taught the model something."""
    monkeypatch.setenv("PROGIDIFF_ADAPTERS", str(tmp_path / "adapters"))


@pytest.fixture
def scene(host: Any) -> Iterator[Any]:
    """An empty MRML scene; at the end no callback may have raised."""
    import slicer
    from slicer_host import pythonqt

    host.reset()
    yield slicer.mrmlScene
    errors = list(pythonqt.callback_errors)
    host.reset()
    assert not errors, "a slot raised:\n" + "\n".join(errors)


@pytest.fixture
def behaviour(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the scripted worker misbehave from its next start on."""
    return lambda words: monkeypatch.setenv("FAKE_WORKER", words)


@pytest.fixture
def volume(scene: Any, module: Any) -> Any:
    from ProGiDiffSlicerLib import self_test

    return self_test.make_volume()


@pytest.fixture
def panel(host: Any, module: Any, volume: Any) -> Iterator[Any]:
    """The opened panel on one volume."""
    from slicer_host.hands import Hands

    widget = open_panel(host, module)
    yield Hands(widget)
    host.close_panel(widget)


@pytest.fixture(scope="session")
def engine_python() -> str:
    """An interpreter that can run the real engine: PROGIDIFF_PYTHON or this one; else a skip."""
    ask = [
        "-c",
        "import progidiff.worker.server, importlib.util as u, sys\n"
        "sys.exit(not all(map(u.find_spec, ('torch', 'scipy', 'rapidfuzz', 'SimpleITK'))))",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "Logic")}
    for python in filter(None, (os.environ.get("PROGIDIFF_PYTHON"), sys.executable)):
        if subprocess.run([python, *ask], env=environment, capture_output=True, check=False).returncode == 0:
            return python
    pytest.skip("no interpreter with the engine's packages; name one in PROGIDIFF_PYTHON")


@pytest.fixture(scope="session")
def phantom_folder(engine_python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """image.nrrd and labels.nrrd of a synthetic abdomen: no patient's data are ever shown."""
    folder = tmp_path_factory.mktemp("phantom")
    script = (
        "import sys\nfrom progidiff.training.phantom import make_phantom\n"
        "from progidiff.volumes import write_volume\n"
        "image, labels = make_phantom(seed=7)\n"
        "write_volume(image, sys.argv[1] + '/image.nrrd'); write_volume(labels, sys.argv[1] + '/labels.nrrd')"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "Logic")}
    subprocess.run([engine_python, "-c", script, str(folder)], env=environment, check=True)
    return folder
