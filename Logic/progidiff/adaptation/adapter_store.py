"""The adapters on this computer: list, rename, export, import, delete."""

from __future__ import annotations

import contextlib
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from progidiff.adaptation.adapter import CARD, FACTS, WEIGHTS, Adapter, check_facts
from progidiff.adaptation.card import write_card
from progidiff.atomic_files import new_folder, remove_folder, write_json
from progidiff.errors import AdapterError, OutputError, UsageError
from progidiff.model_list import user_models_folder

_TRAVELS = (FACTS, WEIGHTS, CARD)
_LARGEST = {FACTS: 4 << 20, WEIGHTS: 1 << 30, CARD: 4 << 20}
_LONGEST_NAME = 100


def user_adapters_folder() -> Path:
    """Where adapters lie unless the user says otherwise: beside the user's models."""
    if override := os.environ.get("PROGIDIFF_ADAPTERS"):
        return Path(override)
    return user_models_folder().with_name("adapters")


@dataclass(frozen=True)
class AdapterStore:
    """A folder of adapter folders."""

    folder: Path

    def adapters(self) -> list[Adapter]:
        """All that can be used, newest first."""
        found = [a for a in self._read_all() if isinstance(a, Adapter)]
        return sorted(found, key=lambda adapter: (adapter.facts["created"], adapter.id), reverse=True)

    def problems(self) -> list[str]:
        """One sentence for each adapter that is damaged."""
        return [str(a) for a in self._read_all() if isinstance(a, AdapterError)]

    def _read_all(self) -> list[Adapter | AdapterError]:
        found: list[Adapter | AdapterError] = []
        for facts in sorted(self.folder.glob(f"*/{FACTS}")):
            if facts.parent.name.startswith("."):  # unfinished
                continue
            try:
                found.append(Adapter.open(facts.parent))
            except AdapterError as error:
                found.append(error)
        return found


def rename(adapter: Adapter, name: str) -> Adapter:
    """Gives an adapter another name; its id stays.

    Raises:
        UsageError: an empty or overlong name.
        OutputError: the folder cannot be written to.
    """
    name = check_name(name)
    facts = {**adapter.facts, "name": name}
    write_json(adapter.folder / FACTS, facts)
    write_card(adapter.folder, facts)
    return Adapter(adapter.folder, facts)


def check_name(name: str) -> str:
    """Raises UsageError unless it is a name of one line."""
    name = name.strip()
    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise UsageError(
            "This is no name for an adapter.", f"Use 1 to {_LONGEST_NAME} characters on one line."
        )
    return name


def delete(adapter: Adapter) -> None:
    """Raises OutputError if the folder cannot be removed."""
    remove_folder(adapter.folder)


def export(adapter: Adapter, target: Path) -> Path:
    """Writes an adapter to a `.zip` file or a new folder, without the pictures: they show patients.

    Raises:
        OutputError: the target exists or cannot be written.
    """
    target = Path(target).expanduser()
    contents = {
        name: (adapter.folder / name).read_bytes() for name in _TRAVELS if (adapter.folder / name).is_file()
    }
    if target.suffix.lower() == ".zip":
        _write_zip(contents, target)
        return target
    with new_folder(target) as unfinished:
        _write_files(contents, unfinished)
    return target


def _write_zip(contents: dict[str, bytes], target: Path) -> None:
    if target.exists():
        raise OutputError(f"“{target}” exists already.", "Choose another name, or remove it first.")
    unfinished = target.with_name(f".{target.name}.unfinished")
    try:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
        unfinished.replace(target)
    except OSError as error:
        raise OutputError(
            f"“{target}” cannot be written: {error.strerror or error}.",
            "Free some space or choose another folder.",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def import_adapter(source: Path, folder: Path, base_hash: str = "") -> Adapter:
    """Takes an exported adapter, a `.zip` or a folder, into a folder of adapters.

    Only the three files of an adapter are read, each by its own name, and written anew: paths, links and
    anything else an archive may hold lead nowhere.

    Args:
        source: zip file or folder.
        folder: where adapters lie; created if missing.
        base_hash: hash of the model it must fit; "" accepts any.

    Raises:
        AdapterError: not an adapter, damaged, or of another model.
        OutputError: it cannot be written.
    """
    source = Path(source).expanduser()
    contents = _read_folder(source) if source.is_dir() else _read_zip(source)
    facts = check_facts(contents[FACTS].decode("utf-8", "replace"), source.name)
    Adapter(source, facts).require_base(base_hash or facts["base_hash"])
    _check_weights(contents[WEIGHTS], facts["weights_hash"], source.name)
    target = folder / facts["id"]
    with contextlib.suppress(AdapterError):
        return Adapter.open(target)
    if target.is_dir():  # the same adapter, damaged since
        remove_folder(target)
    with new_folder(target) as unfinished:
        _write_files(contents, unfinished)
        if CARD not in contents:
            write_card(unfinished, facts)
    return Adapter.open(target)


def _write_files(contents: dict[str, bytes], folder: Path) -> None:
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def _read_folder(source: Path) -> dict[str, bytes]:
    files = {
        name: source / name
        for name in _TRAVELS
        if (source / name).is_file() and not (source / name).is_symlink()
    }
    _check_complete(files, source.name)
    for name, path in files.items():
        _check_size(name, path.stat().st_size)
    return {name: path.read_bytes() for name, path in files.items()}


def _read_zip(source: Path) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(source) as archive:
            members = {}
            for info in archive.infolist():
                path = PurePosixPath(info.filename.replace("\\", "/"))
                if path.is_absolute() or ".." in path.parts or ":" in info.filename:
                    raise AdapterError(
                        f"{source.name} holds a path that leads outside.", "Do not trust this file."
                    )
                if path.name in _TRAVELS and len(path.parts) <= 2 and not info.is_dir():
                    members[path.name] = info
            _check_complete(members, source.name)
            return {name: _read_member(archive, name, info) for name, info in members.items()}
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise AdapterError(
            f"{source} cannot be read as an adapter ({error}).", "Choose the .zip file that was exported."
        ) from error


def _read_member(archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> bytes:
    """One file of the archive, but never more than its kind may hold, whatever its header says."""
    with archive.open(info) as file:
        content = file.read(_LARGEST[name] + 1)
    _check_size(name, len(content))
    return content


def _check_complete(names: dict, where: str) -> None:
    missing = [name for name in (FACTS, WEIGHTS) if name not in names]
    if missing:
        raise AdapterError(
            f"{where} is not an adapter: it has no {missing[0]}.", "Choose another file or folder."
        )


def _check_size(name: str, size: int) -> None:
    if size > _LARGEST[name]:
        raise AdapterError(f"The {name} of this adapter is too large to be true.", "Do not trust this file.")


def _check_weights(content: bytes, expected: str, where: str) -> None:
    """Raises AdapterError unless these are the safetensors that were exported, of low-rank pairs only."""
    import hashlib

    from safetensors import SafetensorError, deserialize

    if hashlib.sha256(content).hexdigest() != expected:
        raise AdapterError(f"The weights in {where} are not those that were exported.", "Export it again.")
    try:
        names = [name for name, _ in deserialize(content)]
    except SafetensorError as error:
        raise AdapterError(
            f"The weights in {where} are no safetensors.", "Do not trust this file."
        ) from error
    if not names or not all(name.endswith((".lora_A", ".lora_B")) for name in names):
        raise AdapterError(f"The weights in {where} are not those of an adapter.", "Choose another file.")
