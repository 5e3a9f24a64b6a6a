"""The methods around corrected cases: keep them, learn from them, and manage what was learnt."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from progidiff.errors import AdapterError, Cancelled, UsageError
from progidiff.volumes.volume import Volume
from progidiff.worker.registry import method
from progidiff.worker.session import Session
from progidiff.worker.voxels import VoxelReader

if TYPE_CHECKING:
    from progidiff.adaptation.adapter import Adapter
    from progidiff.adaptation.case_library import StoredCase
    from progidiff.adaptation.progress import AdaptProgress
    from progidiff.adaptation.settings import AdaptSettings

_WORK_FOLDER = ".training-{}"


# -- cases -------------------------------------------------------------------------------------------


@method("cases_add")
def cases_add(
    session: Session,
    *,
    library: str,
    volume_id: str,
    organ: str,
    mask: dict,
    slices: list | None = None,
    by: str = "",
    source: str = "",
) -> dict[str, Any]:
    """Saves a checked mask with its opened volume. Needs no model; on disk when it answers."""
    from progidiff.adaptation.case_library import CaseLibrary

    opened = session.opened(volume_id)
    image = _with_modality(opened.volume, opened.modality)
    voxels = VoxelReader(session.store, image.grid).read(mask)
    whole = (slice(0, image.shape[0]), slice(0, image.shape[1]), slice(0, image.shape[2]))
    added = CaseLibrary(Path(library)).add(
        image, voxels.on(whole), organ, slices=slices or (), by=by, source=source or image.name
    )
    return {"case": case_json(added.case), "organ": organ, "outcome": added.outcome}


def _with_modality(volume: Volume, modality: str) -> Volume:
    return replace(volume, modality=modality) if modality in ("CT", "MR") else volume  # type: ignore[arg-type]


@method("cases_list")
def cases_list(session: Session, *, library: str) -> dict[str, Any]:
    """All cases of a library, the number by organ, and a sentence for each that is damaged."""
    from progidiff.adaptation.case_library import CaseLibrary

    cases = CaseLibrary(Path(library))
    found = cases.cases()
    organs, damaged = [organ for case in found for organ in case.organs], cases.damaged()
    return {
        "cases": [case_json(case) for case in found],
        "organs": {organ: organs.count(organ) for organ in sorted(set(organs))},
        "problems": list(damaged.values()),
        "damaged": list(damaged),
    }


@method("cases_remove")
def cases_remove(session: Session, *, library: str, case_id: str, organ: str = "") -> dict[str, Any]:
    """Removes a case, or one organ of it."""
    from progidiff.adaptation.case_library import CaseLibrary

    CaseLibrary(Path(library)).remove(case_id, organ)
    return {}


def case_json(case: StoredCase) -> dict[str, Any]:
    """CASE of PROTOCOL.md."""
    from progidiff.prompts import organ_table

    def organ_json(organ: str) -> dict[str, Any]:
        checked = asdict(case.organs[organ])
        del checked["mask_hash"]
        return {
            **checked,
            "name": organ_table().by_id(organ).name,
            "slices": [list(r) for r in checked["slices"]],
        }

    return {
        "case_id": case.id,
        "path": str(case.folder),
        "modality": case.modality,
        "shape": list(case.shape),
        "slice_axis": case.slice_axis,
        "source": case.source,
        "date": case.date,
        "organs": [organ_json(organ) for organ in case.organs],
        "earlier_versions": len(case.earlier),
    }


# -- adaptation --------------------------------------------------------------------------------------


@method("adapt")
def adapt(
    session: Session,
    *,
    job_id: str,
    library: str,
    folder: str = "",
    name: str = "",
    cases: list | None = None,
    minutes: float | None = None,
    activate: bool = True,
) -> dict[str, Any]:
    """Trains an adapter on the cases of a library; one that got better is put on the model at once."""
    from progidiff.adaptation.settings import LEAST_MINUTES, MOST_MINUTES, AdaptSettings
    from progidiff.adaptation.work_folder import remove_stale

    chosen = _chosen_cases(library, cases)
    if minutes is not None and not LEAST_MINUTES <= minutes <= MOST_MINUTES:
        raise UsageError(
            f"{minutes:g} minutes cannot be trained.", "Leave the time out, or give 1 to 1440 minutes."
        )
    place = _adapters_folder(folder)
    output, settings = _free_folder(place), AdaptSettings(minutes=minutes)
    remove_stale(place, _WORK_FOLDER.format("*"))
    try:
        adapter = session.sparing_memory(
            lambda: _learn(session, job_id, chosen, output, name, settings), job_id
        )
    except Cancelled:
        return {"job_id": job_id, "adapter": None, "activated": False, "cancelled": True}
    activated = activate and adapter.improved
    if activated:
        session.use_adapter(str(adapter.folder))
    return {
        "job_id": job_id,
        "adapter": adapter_json(adapter, session),
        "activated": activated,
        "cancelled": False,
    }


def _learn(
    session: Session, job_id: str, cases: list[StoredCase], output: Path, name: str, settings: AdaptSettings
) -> Adapter:
    """In a work folder of what is learnt, so that no other adaptation begins anew in it."""
    from progidiff.adaptation.adapt import adapt as run
    from progidiff.adaptation.work_folder import digest_of, seconds_of

    segmenter = session.segmenter()
    seconds = seconds_of(settings, segmenter.device)
    digest = digest_of(segmenter.model_hash, settings, seconds, cases)
    return run(
        segmenter,
        cases,
        output,
        name=name,
        settings=settings,
        work=output.parent / _WORK_FOLDER.format(digest[:16]),
        on_progress=lambda report: _tell(session, job_id, report),
        cancelled=lambda: session.jobs.is_cancelled(job_id),
    )


def _chosen_cases(library: str, ids: list | None) -> list[StoredCase]:
    from progidiff.adaptation.case_library import CaseLibrary

    cases = CaseLibrary(Path(library))
    if ids is None:
        return cases.cases()
    return [cases.case(str(case_id)) for case_id in dict.fromkeys(ids)]


def _adapters_folder(folder: str) -> Path:
    from progidiff.adaptation.adapter_store import user_adapters_folder

    return Path(folder).expanduser() if folder else user_adapters_folder()


def _free_folder(place: Path) -> Path:
    """A name nobody has yet."""
    stem = f"adapted-{datetime.now():%Y%m%d-%H%M%S}"
    candidates = [place / stem, *(place / f"{stem}-{n}" for n in range(2, 100))]
    return next(path for path in candidates if not path.exists())


def _tell(session: Session, job_id: str, report: AdaptProgress) -> None:
    told = {k: v if not isinstance(v, float) or isfinite(v) else None for k, v in asdict(report).items()}
    session.notify("adapt_progress", {"job_id": job_id, **told})


# -- adapters ----------------------------------------------------------------------------------------


@method("adapters_list")
def adapters_list(session: Session, *, folder: str = "") -> dict[str, Any]:
    """The adapters in a folder, newest first; with which one is active."""
    from progidiff.adaptation.adapter_store import AdapterStore

    place = _adapters_folder(folder)
    store = AdapterStore(place)
    return {
        "folder": str(place),
        "adapters": [adapter_json(adapter, session) for adapter in store.adapters()],
        "problems": store.problems(),
        "active": session.adapter_id,
    }


@method("adapters_compare")
def adapters_compare(session: Session, *, paths: list) -> dict[str, Any]:
    """Adapters side by side, with a sentence on whether their figures may be compared."""
    from progidiff.adaptation.comparison import compare

    return compare([_open(str(path)) for path in paths])


@method("adapter_activate")
def adapter_activate(session: Session, *, path: str = "") -> dict[str, Any]:
    """Puts an adapter on the warm model, in place of the present one; "" takes it off."""
    segmenter, seconds = session.use_adapter(path)
    return {"active": str(segmenter.adapter), "seconds": seconds}


@method("adapter_rename")
def adapter_rename(session: Session, *, path: str, name: str) -> dict[str, Any]:
    """Gives an adapter another name."""
    from progidiff.adaptation.adapter_store import rename

    return {"adapter": adapter_json(rename(_open(path), name), session)}


@method("adapter_export")
def adapter_export(session: Session, *, path: str, target: str) -> dict[str, Any]:
    """Writes an adapter to a .zip file or a new folder, without pictures of patients."""
    from progidiff.adaptation.adapter_store import export

    return {"target": str(export(_open(path), Path(target)))}


@method("adapter_import")
def adapter_import(session: Session, *, source: str, folder: str = "") -> dict[str, Any]:
    """Takes an exported adapter in, if it fits the present model. It is not activated."""
    from progidiff.adaptation.adapter_store import import_adapter

    base_hash = session.segmenter().model_hash
    return {
        "adapter": adapter_json(import_adapter(Path(source), _adapters_folder(folder), base_hash), session)
    }


@method("adapter_delete")
def adapter_delete(session: Session, *, path: str) -> dict[str, Any]:
    """Deletes an adapter; an active one is taken off first."""
    from progidiff.adaptation.adapter_store import delete

    adapter = _open(path)
    if _is_active(adapter, session):
        session.use_adapter("")
    delete(adapter)
    return {}


def _open(path: str) -> Adapter:
    """The adapter in a folder that an application named; "" is not this process's own folder."""
    from progidiff.adaptation.adapter import Adapter

    if not path:
        raise AdapterError("No adapter was named.", "Choose one of the list.")
    return Adapter.open(Path(path))


def _is_active(adapter: Adapter, session: Session) -> bool:
    active = session.adapter_path
    return bool(active) and Path(active).expanduser().resolve() == adapter.folder.resolve()


def adapter_json(adapter: Adapter, session: Session) -> dict[str, Any]:
    """ADAPTER of PROTOCOL.md."""
    from progidiff.adaptation.adapter import PICTURE

    facts, picture = adapter.facts, adapter.folder / PICTURE
    told = (
        "created",
        "base_model",
        "base_hash",
        "organs",
        "cases",
        "improved",
        "verdict",
        "measured",
        "forgetting",
    )
    fits = None if not session.model_hash else session.model_hash == facts["base_hash"]
    return {
        "adapter_id": adapter.id,
        "name": adapter.name,
        "path": str(adapter.folder),
        **{key: facts[key] for key in told},
        "minutes": facts["training"].get("minutes"),
        "fits": fits,
        "active": _is_active(adapter, session),
        "picture": str(picture) if picture.is_file() else "",
    }
