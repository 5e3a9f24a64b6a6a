"""Adapter folders: what is accepted, what travels, and what is refused."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from adaptation_samples import tiny_segmenter
from progidiff.adaptation import lora_training
from progidiff.adaptation.adapter import Adapter
from progidiff.adaptation.adapter_store import AdapterStore, delete, export, import_adapter, rename
from progidiff.adaptation.before_after import Measured
from progidiff.adaptation.outcome import write_adapter
from progidiff.errors import AdapterError, OutputError, UsageError

FACTS: dict[str, Any] = {
    "schema": "progidiff-adapter-1",
    "name": "our scanner",
    "created": "2026-01-01T00:00:00+00:00",
    "base_model": "tiny",
    "base_hash": "a" * 64,
    "rank": 2,
    "cases": [{"id": "case-1", "modality": "MR", "organs": {"liver": "1–12"}}],
    "organs": ["liver"],
    "improved": True,
    "verdict": "It got better.",
    "measured": {"how": "One case.", "organs": {"liver": {"before": 0.5, "after": 0.75}}},
    "forgetting": {"how": "A phantom.", "organs": {}},
    "settings": {"rank": 2},
    "training": {"how": "Quickly.", "minutes": 1.0, "device": "cpu"},
    "licence": "Ask.",
}


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    segmenter = tiny_segmenter()
    with lora_training.attached(segmenter.pipeline, rank=2):
        tensors = lora_training.state(segmenter.pipeline)
    return {n: torch.full_like(t, 0.1) for n, t in tensors.items()}


@pytest.fixture
def adapter(tmp_path: Path, weights: dict[str, torch.Tensor]) -> Adapter:
    (tmp_path / "adapters").mkdir()
    nothing = Measured({}, [])
    return write_adapter(tmp_path / "adapters" / "one", FACTS, weights, nothing, nothing)


def test_a_written_adapter_loads_into_its_model(adapter: Adapter) -> None:
    segmenter = tiny_segmenter()
    segmenter.load_adapter(adapter.folder)
    assert segmenter.adapter == adapter.id
    assert adapter.id.startswith("adapter-")
    assert adapter.facts["layers"]["locator"] > 0
    card = (adapter.folder / "README.md").read_text(encoding="utf-8")
    assert "| liver | 0.500 | 0.750 | +0.250 |" in card
    assert "case-1" in card


def test_another_base_is_refused_and_the_model_stays_as_it_is(adapter: Adapter, tmp_path: Path) -> None:
    segmenter = tiny_segmenter()
    segmenter.model_hash = "b" * 64
    own = segmenter.pipeline.controlnet.conv_in.weight.clone()
    with pytest.raises(AdapterError, match="another model"):
        segmenter.load_adapter(adapter.folder)
    assert torch.equal(segmenter.pipeline.controlnet.conv_in.weight, own)
    zipped = export(adapter, tmp_path / "out.zip")
    with pytest.raises(AdapterError, match="another model"):
        import_adapter(zipped, tmp_path / "in", base_hash="b" * 64)
    assert not (tmp_path / "in").exists()


def test_list_rename_delete(adapter: Adapter) -> None:
    store = AdapterStore(adapter.folder.parent)
    renamed = rename(adapter, "  the new one ")
    assert renamed.id == adapter.id
    assert [a.name for a in store.adapters()] == ["the new one"]
    assert (adapter.folder / "README.md").read_text(encoding="utf-8").startswith("# the new one\n")
    for nonsense in ("", "   ", "a\nb", "x" * 101):
        with pytest.raises(UsageError):
            rename(adapter, nonsense)
    delete(renamed)
    assert store.adapters() == []
    assert not adapter.folder.exists()


@pytest.mark.parametrize("kind", ["out.zip", "out"])
def test_an_exported_adapter_comes_in_whole_and_without_pictures(
    adapter: Adapter, tmp_path: Path, kind: str
) -> None:
    (adapter.folder / "before_after.png").write_bytes(b"a patient")
    target = export(adapter, tmp_path / kind)
    with pytest.raises(OutputError):
        export(adapter, tmp_path / kind)
    came = import_adapter(target, tmp_path / "there", adapter.facts["base_hash"])
    assert came.facts == adapter.facts
    assert {p.name for p in came.folder.iterdir()} == {"adapter.json", "adapter.safetensors", "README.md"}
    assert import_adapter(target, tmp_path / "there").folder == came.folder


def test_a_damaged_adapter_is_mended_by_importing_it_again(adapter: Adapter, tmp_path: Path) -> None:
    zipped = export(adapter, tmp_path / "out.zip")
    came = import_adapter(zipped, tmp_path / "there")
    (came.folder / "adapter.safetensors").write_bytes(b"cut off")
    assert import_adapter(zipped, tmp_path / "there").tensors().keys() == adapter.tensors().keys()


def test_an_export_that_cannot_be_written_is_refused_in_words(adapter: Adapter, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "file" / "out.zip", tmp_path / "file" / "out", tmp_path / f"{'x' * 250}.zip"):
        with pytest.raises(OutputError, match="cannot be written"):
            export(adapter, target)


def test_numbers_that_json_does_not_know_stay_out_of_messages(adapter: Adapter) -> None:
    losses = {"held_out_losses": {"see": [[0, float("nan")], [5, 0.5]]}}
    (adapter.folder / "adapter.json").write_text(json.dumps({**adapter.facts, "training": losses}))
    assert Adapter.open(adapter.folder).facts["training"]["held_out_losses"]["see"] == [[0, None], [5, 0.5]]


def test_damaged_adapters_are_named_and_do_not_hide_the_others(adapter: Adapter, tmp_path: Path) -> None:
    store = AdapterStore(adapter.folder.parent)
    export(adapter, adapter.folder.parent / "two")
    with (adapter.folder.parent / "two" / "adapter.safetensors").open("ab") as file:
        file.write(b"!")
    assert [a.folder.name for a in store.adapters()] == ["one"]
    (problem,) = store.problems()
    assert "damaged" in problem


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "progidiff-adapter-9"},
        {"rank": "8"},
        {"improved": 1},
        {"id": "../../etc"},
        {"cases": None},
        {"measured": []},
        {"organs": [6]},
        {"cases": ["case-1"]},
        {"measured": {"how": "One case."}},
        {"measured": {"how": "One case.", "organs": {"liver": {"before": 0.5}}}},
        {"measured": {"how": "One case.", "organs": {}, "held_out": ["case-1"]}},
        {"forgetting": {}},
        {"training": {"minutes": "one"}},
        {"training": {"minutes": float("inf")}},
        {"forgetting": {"how": "", "organs": {"liver": {"before": float("nan"), "after": 0.5}}}},
    ],
)
def test_facts_of_another_shape_are_refused(adapter: Adapter, tmp_path: Path, change: dict) -> None:
    (adapter.folder / "adapter.json").write_text(json.dumps({**adapter.facts, **change}))
    with pytest.raises(AdapterError):
        Adapter.open(adapter.folder)
    with pytest.raises(AdapterError):
        import_adapter(adapter.folder, tmp_path / "in")
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize(
    "member", ["../adapter.json", "/adapter.json", "a/../../adapter.json", "C:\\adapter.json"]
)
def test_paths_that_lead_outside_are_refused(adapter: Adapter, tmp_path: Path, member: str) -> None:
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(adapter.folder / "adapter.safetensors", "adapter.safetensors")
        file.writestr(zipfile.ZipInfo(member), (adapter.folder / "adapter.json").read_bytes())
    with pytest.raises(AdapterError):
        import_adapter(archive, tmp_path / "in")
    assert not (tmp_path / "in").exists()


def test_only_the_files_of_an_adapter_are_taken_from_an_archive(adapter: Adapter, tmp_path: Path) -> None:
    archive = tmp_path / "full.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in adapter.folder.iterdir():
            file.write(path, f"folder/{path.name}")
        file.writestr("folder/payload.py", "print('hello')")
        file.writestr("folder/model.bin", b"pickle")
    came = import_adapter(archive, tmp_path / "in")
    assert {p.name for p in came.folder.iterdir()} == {"adapter.json", "adapter.safetensors", "README.md"}


def test_an_archive_damaged_within_is_refused(adapter: Adapter, tmp_path: Path) -> None:
    archive = tmp_path / "bad.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in adapter.folder.iterdir():
            file.write(path, path.name)
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            start = member.header_offset + 30 + len(member.filename)
            content[start : start + 40] = b"\xff" * 40  # no block of a deflated stream begins like this
    archive.write_bytes(content)
    with pytest.raises(AdapterError, match="cannot be read as an adapter"):
        import_adapter(archive, tmp_path / "in")


def test_pickles_in_disguise_and_truncated_files_are_refused(adapter: Adapter, tmp_path: Path) -> None:
    import hashlib

    nonsense = b"\x80\x04K\x01."
    facts = {**adapter.facts, "weights_hash": hashlib.sha256(nonsense).hexdigest()}
    (adapter.folder / "adapter.json").write_text(json.dumps(facts))
    (adapter.folder / "adapter.safetensors").write_bytes(nonsense)
    with pytest.raises(AdapterError, match="safetensors"):
        import_adapter(adapter.folder, tmp_path / "in")
    with pytest.raises(AdapterError):
        tiny_segmenter().load_adapter(adapter.folder)
    (tmp_path / "cut.zip").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(AdapterError):
        import_adapter(tmp_path / "cut.zip", tmp_path / "in")
    with pytest.raises(AdapterError):
        import_adapter(tmp_path / "missing.zip", tmp_path / "in")
