"""Choices that belong to the computer, not to the scene: device, model, cases, history."""

from __future__ import annotations

import qt

_PREFIX = "ProGiDiffSlicer/"
_HISTORY_LENGTH = 20
EMBEDDED = "embedded"
DEVICES = {
    "Automatic": "auto",
    "Graphics card (CUDA)": "cuda",
    "Processor": "cpu",
}


def _read(name: str, default: str = "") -> str:
    value = qt.QSettings().value(_PREFIX + name, default)
    return default if value is None else str(value)


def _write(name: str, value: str) -> None:
    qt.QSettings().setValue(_PREFIX + name, value)


def interpreter() -> str:
    """Path of the Python that runs the engine; empty for Slicer's own."""
    return _read("Interpreter")


def set_interpreter(path: str) -> None:
    _write("Interpreter", path.strip())


def device() -> str:
    """auto, cuda or cpu."""
    return _read("Device", "auto")


def set_device(device: str) -> None:
    _write("Device", device)


def model() -> str:
    """`EMBEDDED`, the id of an installed model, or a model folder."""
    return _read("Model") or EMBEDDED


def set_model(model: str) -> None:
    _write("Model", model.strip())


def adapter() -> str:
    """Folder of an adapter, or empty."""
    return _read("Adapter")


def adapter_name() -> str:
    """What the user calls it."""
    return _read("AdapterName")


def set_adapter(folder: str, name: str) -> None:
    _write("Adapter", folder.strip())
    _write("AdapterName", name.strip())


def case_library() -> str:
    """Folder of the corrected cases; empty as long as none was chosen."""
    return _read("CaseLibrary")


def set_case_library(folder: str) -> None:
    _write("CaseLibrary", folder.strip())


def checked_by() -> str:
    """Who checks the cases; may be empty."""
    return _read("CheckedBy")


def set_checked_by(name: str) -> None:
    _write("CheckedBy", name.strip())


def unfinished_training() -> str:
    """Case library of a training that was stopped and can go on; empty if there is none."""
    return _read("UnfinishedTraining")


def set_unfinished_training(library: str) -> None:
    _write("UnfinishedTraining", library)


def history() -> list[str]:
    """Prompts used before, latest first."""
    return [line for line in _read("History").split("\n") if line]


def remember_prompt(prompt: str) -> None:
    others = [p for p in history() if p.lower() != prompt.lower()]
    _write("History", "\n".join([prompt, *others][:_HISTORY_LENGTH]))
