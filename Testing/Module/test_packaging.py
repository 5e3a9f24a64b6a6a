"""What reaches the package, and what Slicer must find in it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from panel_bench import MODULE_FILE, ROOT

MODULE_FOLDER = ROOT / "ProGiDiffSlicer"
UI = ROOT / "Resources" / "UI" / "ProGiDiffSlicer.ui"


def cmake(path: str) -> str:
    return re.sub(r"#.*", "", (ROOT / path).read_text(encoding="utf-8"))


def s4ext() -> dict[str, str]:
    lines = (ROOT / "ProGiDiffSlicer.s4ext").read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))


def test_cmake_lists_every_script_of_the_module_and_no_other():
    listed = re.search(r"set\(MODULE_PYTHON_SCRIPTS(.*?)\)", cmake("ProGiDiffSlicer/CMakeLists.txt"), re.S)
    there = {str(p.relative_to(MODULE_FOLDER)) for p in MODULE_FOLDER.rglob("*.py")}
    assert set(listed.group(1).split()) == there


def test_engine_and_resources_reach_the_package():
    text = cmake("ProGiDiffSlicer/CMakeLists.txt")
    assert "progidiff/*.py" in text and "file(COPY ${CMAKE_CURRENT_SOURCE_DIR}/../Resources" in text
    others = [
        p for p in (ROOT / "Logic" / "progidiff").rglob("*") if p.is_file() and "__pycache__" not in p.parts
    ]
    assert {p.suffix for p in others} <= {".py", ".md"}, "a data file in the engine would not be packaged"


def test_s4ext_json_and_cmake_agree():
    entry = json.loads((ROOT / "ProGiDiffSlicer.json").read_text(encoding="utf-8"))
    described = s4ext()
    declared = dict(
        re.findall(r'set\(EXTENSION_(\w+) "([^"]*)"\)', (ROOT / "CMakeLists.txt").read_text(encoding="utf-8"))
    )
    assert (described["scmurl"], described["scmrevision"], described["scm"]) == (
        entry["scm_url"], entry["scm_revision"], entry["scm_type"],
    )  # fmt: skip
    assert described["category"] == entry["category"] == declared["CATEGORY"]
    assert described["depends"].split() == entry["build_dependencies"] == declared["DEPENDS"].split()
    assert described["build_subdirectory"] == entry["build_subdirectory"]
    assert (described["enabled"] == "1") is entry["enabled"]
    for name in ("homepage", "contributors", "description", "iconurl", "screenshoturls"):
        assert described[name] == declared[name.upper()], name


def test_s4ext_has_every_keyword_of_its_format():
    assert set(s4ext()) == {
        "scm", "scmurl", "scmrevision", "depends", "build_subdirectory", "homepage", "contributors",
        "category", "iconurl", "status", "description", "screenshoturls", "enabled",
    }  # fmt: skip


def test_advertised_pictures_exist():
    for name in ("iconurl", "screenshoturls"):
        assert (ROOT / s4ext()[name].split("/main/")[1]).is_file(), name


def test_ui_names_only_classes_and_properties_that_exist(host):
    from PySide6 import QtWidgets
    from slicer_host.ctk_widgets import WIDGETS as CTK
    from slicer_host.mrml_widgets import WIDGETS as MRML

    tree = ET.parse(UI)
    declared = {c.findtext("class") for c in tree.iter("customwidget")}
    for widget in tree.iter("widget"):
        name = widget.get("class")
        custom = {**CTK, **MRML}.get(name)
        assert (custom is not None) == (name in declared), f"{name} is not declared as it should be"
        made = (custom or getattr(QtWidgets, name))()
        for given in widget.findall("property"):
            if given.get("stdset") != "0" and given.get("name") != "buddy":
                assert made.metaObject().indexOfProperty(given.get("name")) >= 0, (name, given.get("name"))


def test_ui_names_are_unique_and_bound_to_parameters_that_exist(host, module):
    from ProGiDiffSlicerLib.parameters import Parameters

    widgets = list(ET.parse(UI).iter("widget"))
    names = [w.get("name") for w in widgets]
    assert len(set(names)) == len(names)
    bound = [
        p.findtext("string")
        for w in widgets
        for p in w.findall("property")
        if p.get("name") == "SlicerParameterName"
    ]
    by_hand = {"model"}  # its choices are only known once the engine has started
    assert {*bound} == {*Parameters.allParameters} - by_hand and len(bound) == len({*bound})


def test_every_widget_the_code_names_is_in_the_ui():
    names = {w.get("name") for w in ET.parse(UI).iter("widget")}
    for path in MODULE_FOLDER.rglob("*.py"):
        for used in re.findall(r"\b(?:self\._|self\.)?ui\.(\w+)", path.read_text(encoding="utf-8")):
            assert used in names, f"{path.name} uses {used}"


def test_everything_that_can_be_pressed_says_what_it_does():
    for widget in ET.parse(UI).iter("widget"):
        if re.search(r"Button$|Box$|Edit$|Selector$|Slider$", widget.get("name")):
            tips = [p for p in widget.findall("property") if p.get("name") == "toolTip"]
            assert tips, widget.get("name")


def test_opening_the_module_imports_nothing_from_third_parties(host, tmp_path):
    """In a process of its own: only what Slicer itself brings may be imported when the panel opens."""
    script = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from slicer_host.application import Host
host = Host(Path({str(tmp_path)!r}))
before = set(sys.modules)
import time; started = time.process_time()  # of this process alone: the computer may be busy
module = host.load_module(Path({str(MODULE_FILE)!r}))
print("IMPORTED", time.process_time() - started)
host.open_panel(module)
print("SECONDS", time.process_time() - started)
print("NEW", *sorted({{name.split(".")[0] for name in set(sys.modules) - before}}))
import os; os._exit(0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    new = set(re.search(r"NEW (.*)", done.stdout).group(1).split())
    allowed = set(sys.stdlib_module_names) | {
        "ProGiDiffSlicer",
        "ProGiDiffSlicerLib",
        "numpy",
        "slicer",
        "vtk",
        "vtkmodules",
    }
    assert new <= allowed, new - allowed
    assert float(re.search(r"IMPORTED (.*)", done.stdout).group(1)) < 0.3, "Slicer imports it when it starts"
    assert float(re.search(r"SECONDS (.*)", done.stdout).group(1)) < 3


def test_packaged_layout_is_found_too(tmp_path):
    """Packaged, Resources and progidiff lie beside the module file."""
    shutil.copytree(MODULE_FOLDER / "ProGiDiffSlicerLib", tmp_path / "ProGiDiffSlicerLib")
    (tmp_path / "Resources").mkdir()
    shutil.copy(ROOT / "Resources" / "organs.json", tmp_path / "Resources")
    (tmp_path / "progidiff").mkdir()
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from ProGiDiffSlicerLib.locations import engine_folder, resource\n"
        "print(resource('organs.json')); print(engine_folder())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == [str(tmp_path / "Resources" / "organs.json"), str(tmp_path)]


def test_what_is_installed_is_what_the_engine_declares():
    tomllib = pytest.importorskip("tomllib")
    sys.path.insert(0, str(MODULE_FOLDER))
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    source = (MODULE_FOLDER / "ProGiDiffSlicerLib" / "installation.py").read_text(encoding="utf-8")
    installed = re.findall(
        r'"([\w-]+>=[\d.]+)"', re.search(r"REQUIREMENTS = \((.*?)\n\)", source, re.S).group(1)
    )
    brought_by_slicer = {"numpy", "SimpleITK", "torch"}
    assert {d for d in declared if re.split("[>=<]", d)[0] not in brought_by_slicer} == set(installed)
