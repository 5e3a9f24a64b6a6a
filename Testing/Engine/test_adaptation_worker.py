"""Cases, adaptation and adapters through the worker, as a real process where that matters."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adaptation_samples import SETTINGS, library, scan, tiny_segmenter
from progidiff.adaptation import adapt as adapt_file
from progidiff.adaptation import settings as settings_file
from progidiff.adaptation.before_after import Measured
from progidiff.adaptation.case_library import CaseLibrary
from progidiff.errors import AdapterError, UsageError
from progidiff.worker.array_store import ArrayStore
from progidiff.worker.client import RemoteError, WorkerGone
from progidiff.worker.protocol import Request, notification_line
from progidiff.worker.registry import METHODS, check_params
from progidiff.worker.session import Choice, Session
from worker_samples import Worker

BALL = scan()[1]


class Desk:
    """A session without the process around it; every message must survive the trip as JSON."""

    def __init__(self) -> None:
        from progidiff.worker import adapt_methods, methods  # noqa: F401

        self.store, self.notes = ArrayStore(), []  # type: ignore[var-annotated]
        self.loads = 0
        self.session = Session(self._load, self.store, self._note, Choice())

    def _load(self, model: str, device: str, adapter: str) -> Any:
        self.loads += 1
        segmenter = tiny_segmenter()
        if adapter:
            segmenter.load_adapter(Path(adapter))
        return segmenter

    def _note(self, name: str, params: dict[str, Any]) -> None:
        assert notification_line(name, params)
        self.notes.append((name, params))

    def call(self, name: str, /, **params: Any) -> dict[str, Any]:
        method = METHODS[name]
        result = method.call(self.session, **check_params(method, Request(method=name, params=params, id=1)))
        assert notification_line("result", result)
        return result

    def open(self, volume_id: str = "mr") -> None:
        image, _ = scan()
        array = self.store.write(image.array)
        self.call(
            "open_volume", volume_id=volume_id, array=array, affine=image.affine.tolist(), modality="MR"
        )


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Any:
    dice = {"": 0.5, "adapter-in-training": 0.8}
    monkeypatch.setattr(settings_file, "AdaptSettings", lambda **_: SETTINGS)
    monkeypatch.setattr(adapt_file, "measure_cases", lambda s, *_: Measured({"liver": dice[s.adapter]}, []))
    monkeypatch.setattr(adapt_file, "measure_phantom", lambda *_: Measured({"spleen": 0.9}, []))
    monkeypatch.setattr(adapt_file, "make_phantom", lambda *_: (None, None))
    desk = Desk()
    desk.dice = dice
    yield desk
    desk.store.close()


def test_adapt_activates_what_got_better_and_manages_it(desk: Any, tmp_path: Path) -> None:
    library(tmp_path / "cases", 2)
    folder = str(tmp_path / "adapters")
    desk.open()
    done = desk.call("adapt", job_id="j", library=str(tmp_path / "cases"), folder=folder, name="ours")
    adapter = done["adapter"]
    assert done["activated"]
    assert adapter["active"]
    assert adapter["fits"]
    assert adapter["measured"]["organs"]["liver"] == {"before": 0.5, "after": 0.8}
    reports = [p for n, p in desk.notes if n == "adapt_progress"]
    assert {"job_id", "stage", "text", "fraction", "seconds_left", "step", "steps", "loss"} <= set(reports[0])
    assert desk.loads == 1
    listed = desk.call("adapters_list", folder=folder)
    assert listed["active"] == adapter["adapter_id"]
    assert [a["name"] for a in listed["adapters"]] == ["ours"]
    assert desk.call("adapter_activate")["active"] == ""
    assert desk.call("adapter_activate", path=adapter["path"])["active"] == adapter["adapter_id"]
    assert desk.loads == 1
    assert desk.call("adapter_rename", path=adapter["path"], name="new")["adapter"]["name"] == "new"
    target = str(tmp_path / "a.zip")
    desk.call("adapter_export", path=adapter["path"], target=target)
    with pytest.raises(UsageError):
        desk.call("adapters_compare", paths=[adapter["path"]])
    came = desk.call("adapter_import", source=target, folder=str(tmp_path / "other"))["adapter"]
    assert came["adapter_id"] == adapter["adapter_id"]
    assert not came["active"]
    compared = desk.call("adapters_compare", paths=[adapter["path"], came["path"]])
    assert compared["comparable"]
    assert [a["path"] for a in compared["adapters"]] == [adapter["path"], came["path"]]
    assert compared["adapters"][1]["mean"] == {"before": 0.5, "after": 0.8}
    desk.call("adapter_delete", path=adapter["path"])
    assert desk.call("adapters_list", folder=folder) == {
        "folder": folder,
        "adapters": [],
        "problems": [],
        "active": "",
    }
    assert desk.session.segmenter().adapter == ""


def test_what_did_not_get_better_is_not_activated(desk: Any, tmp_path: Path) -> None:
    desk.dice["adapter-in-training"] = 0.4
    library(tmp_path / "cases", 2)
    done = desk.call("adapt", job_id="j", library=str(tmp_path / "cases"), folder=str(tmp_path / "a"))
    assert not done["activated"]
    assert not done["adapter"]["improved"]
    assert desk.session.segmenter().adapter == ""


def test_a_cancelled_adaptation_is_told_and_continues(desk: Any, tmp_path: Path) -> None:
    library(tmp_path / "cases", 2)
    order = {"job_id": "j", "library": str(tmp_path / "cases"), "folder": str(tmp_path / "a")}
    desk.session.jobs.add("j")
    desk.session.jobs.cancel("j")
    done = desk.call("adapt", **order)
    assert done == {"job_id": "j", "adapter": None, "activated": False, "cancelled": True}
    (plan,) = (tmp_path / "a").glob(".training-*/plan.json")
    desk.session.jobs.finish("j")
    assert desk.call("adapt", **order)["adapter"]["improved"]
    assert not plan.parent.exists()
    with pytest.raises(UsageError):
        desk.call("adapt", **order, minutes=0.0)


def test_a_damaged_case_is_named_and_can_be_removed_and_added_again(desk: Any, tmp_path: Path) -> None:
    where = {"library": str(tmp_path)}
    (case,) = library(tmp_path, 1).cases()
    (case.folder / "case.json").write_text("{")
    listed = desk.call("cases_list", **where)
    assert (listed["cases"], listed["damaged"], len(listed["problems"])) == ([], [case.id], 1)
    desk.call("cases_remove", case_id=case.id, **where)
    assert desk.call("cases_list", **where)["damaged"] == []
    desk.open()
    added = desk.call("cases_add", volume_id="mr", organ="liver", mask={"slices": [0, 9]}, **where)
    assert (added["outcome"], added["case"]["case_id"]) == ("added", case.id)


def test_another_adaptation_leaves_a_cancelled_one_as_it_is(
    desk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library(tmp_path / "cases", 2)
    library(tmp_path / "others", 3)
    order = {"library": str(tmp_path / "cases"), "folder": str(tmp_path / "a")}
    desk.session.jobs.add("j")
    monkeypatch.setattr(
        desk, "notes", Telltale(lambda n, p: p.get("stage") == "after" and desk.session.jobs.cancel("j"))
    )
    assert desk.call("adapt", job_id="j", **order)["cancelled"]
    (plan,) = (tmp_path / "a").glob(".training-*/plan.json")
    kept = plan.read_text(encoding="utf-8")
    desk.notes = []
    other = desk.call("adapt", job_id="k", **{**order, "library": str(tmp_path / "others")})
    assert other["adapter"]["improved"]
    assert plan.read_text(encoding="utf-8") == kept
    desk.call("adapt", job_id="l", **order)
    stages = {p["stage"] for n, p in desk.notes if n == "adapt_progress" and p["job_id"] == "l" and p["step"]}
    assert not stages & {"find", "see", "draw"}  # what had been learnt was not learnt again
    assert not plan.parent.exists()


class Telltale(list):
    """Notes that tell on themselves."""

    def __init__(self, tell: Callable[[str, dict[str, Any]], Any]) -> None:
        super().__init__()
        self._tell = tell

    def append(self, note: Any) -> None:
        super().append(note)
        self._tell(*note)


def test_an_adapter_that_cannot_be_loaded_leaves_none_active(desk: Any, tmp_path: Path) -> None:
    desk.open()
    for path in (str(tmp_path), str(tmp_path / "nothing")):
        with pytest.raises(AdapterError):
            desk.call("adapter_activate", path=path)
    with pytest.raises(AdapterError):
        desk.call("adapter_delete", path="")
    assert desk.session.adapter_path == ""
    assert desk.loads == 1


def test_a_cold_worker_goes_on_without_an_adapter_that_cannot_be_loaded(desk: Any, tmp_path: Path) -> None:
    with pytest.raises(AdapterError):
        desk.call("load_model", adapter=str(tmp_path / "nothing"))
    assert desk.session.adapter_path == ""
    desk.open()
    assert desk.session.segmenter().adapter == ""


# -- as a process ------------------------------------------------------------------------------------


def _open(worker: Worker) -> None:
    image, _ = scan()
    worker.call("load_model", model="fake:")
    worker.call(
        "open_volume",
        volume_id="mr",
        array=worker.put(image.array),
        affine=image.affine.tolist(),
        modality="MR",
        name="knee",
    )


def test_cases_are_kept_by_the_worker_and_survive_its_death(tmp_path: Path) -> None:
    where = {"library": str(tmp_path / "cases")}
    with Worker() as worker:
        _open(worker)
        mask = {"array": worker.put(BALL[4:20].astype(np.uint8)), "region": [[4, 20], [0, 24], [0, 12]]}
        order = {"volume_id": "mr", "organ": "liver", **where}
        added = worker.call("cases_add", mask=mask, slices=[[2, 10]], by="me", **order)
        assert added["outcome"] == "added"
        assert added["case"]["organs"][0]["slices"] == [[2, 10]]
        assert added["case"]["source"] == "knee"
        with pytest.raises(RemoteError) as refused:
            worker.call("cases_add", mask={"box": [[0, 0], [0, 0], [0, 0]]}, **order)
        assert refused.value.data["kind"] in ("CasesError", "UsageError")
        pending = worker.request(
            "cases_add", mask={"array": worker.put(BALL.astype(np.uint8))}, **{**order, "organ": "spleen"}
        )
        os.kill(worker.process.pid, signal.SIGKILL)
        with pytest.raises(WorkerGone):
            pending.result(20)
    (case,) = CaseLibrary(tmp_path / "cases").cases()
    wanted = BALL.copy()
    wanted[:4], wanted[20:] = False, False
    np.testing.assert_array_equal(case.load_mask("liver"), wanted)
    with Worker() as worker:
        listed = worker.call("cases_list", **where)
        assert listed["organs"]["liver"] == 1
        assert listed["problems"] == []
        worker.call("cases_remove", case_id=case.id, **where)
        assert worker.call("cases_list", **where)["cases"] == []


def test_the_warm_model_changes_its_adapter_without_loading_again() -> None:
    with Worker() as worker:
        _open(worker)
        assert worker.call("adapter_activate", path="somewhere")["active"] == "somewhere"  # it takes any
        found = worker.request("segment", job_id="s", volume_id="mr", prompt="liver", proposals=1).result(30)
        assert found["sets"][0]["found"]
        assert worker.call("adapter_activate")["active"] == ""
