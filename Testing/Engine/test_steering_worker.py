"""`vary` and `constrain` of a worker in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from progidiff.volumes import Volume
from progidiff.worker.client import RemoteError
from worker_samples import AFFINE, Worker

SHAPE = (20, 18, 12)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker(PROGIDIFF_SEGMENTER="steering_fake:load") as started:
        yield started.ready()


def mask_of(box: tuple[slice, slice, slice]) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[box] = 255
    return mask


PARENT = mask_of((slice(4, 12), slice(4, 12), slice(2, 9)))


def parent(worker: Worker, **more: Any) -> dict[str, Any]:
    return {"array": worker.put(PARENT), "name": "my liver", **more}


def masks(worker: Worker, job_id: str) -> list[np.ndarray]:
    made = []
    for note in worker.of("proposal", job_id):
        proposal = note["proposal"]
        full = np.zeros(SHAPE, bool)
        place = tuple(slice(*side) for side in proposal["region"])
        full[place] = worker.take(proposal["probability"]) > proposal["threshold"] * 255
        made.append(full)
    return made


def refused(worker: Worker, method: str, **params: Any) -> RemoteError:
    request = {"job_id": "bad", "volume_id": "ct", "organ": "liver", **params}
    with pytest.raises(RemoteError) as caught:
        worker.call(method, **request)
    return caught.value


def ras(*index: int) -> list[float]:
    return (np.array(AFFINE) @ [*index, 1])[:3].tolist()


def test_variations_are_streamed_like_segments_proposals(worker: Worker) -> None:
    answer = worker.call(
        "vary", job_id="v1", volume_id="ct", organ="liver", parent=parent(worker), strength=0.25, proposals=2
    )
    streamed = [note["proposal"] for note in worker.of("proposal", "v1")]
    assert {p["proposal_id"] for p in streamed} == set(answer["sets"][0]["proposals"])
    assert answer["cancelled"] is False
    record = streamed[0]["provenance"]
    assert (record["method"], record["parent"], record["strength"]) == ("varied", "my liver", 0.25)
    progress = worker.of("progress", "v1")
    assert progress[-1]["fraction"] == 1.0
    assert progress[-1]["organ"] == "liver"


def test_varying_within_a_region_keeps_the_rest(worker: Worker) -> None:
    cropped = {"array": worker.put(PARENT[4:12, 4:12, 2:9]), "region": [[4, 12], [4, 12], [2, 9]]}
    order = {"volume_id": "ct", "organ": "liver", "parent": cropped, "proposals": 1}
    worker.call("vary", job_id="v2", **order, region={"box": [[0, 20], [0, 18], [4, 6]]})
    (mask,) = masks(worker, "v2")
    rest = np.r_[0:4, 6:12]
    assert np.array_equal(mask[:, :, rest], PARENT[:, :, rest] > 0)
    assert not np.array_equal(mask, PARENT > 0)


def test_every_kind_of_mark_is_kept(worker: Worker) -> None:
    scribble = mask_of((slice(15, 17), slice(3, 5), slice(8, 9)))
    worker.call(
        "constrain",
        job_id="c1",
        volume_id="ct",
        organ="liver",
        prompt="the liver",
        parent=parent(worker),
        inside=[{"points": [ras(1, 2, 3), ras(1, 16, 11)]}, {"array": worker.put(scribble)}],
        outside=[{"points": [ras(9, 9, 6)]}],
        fixed=[{"slices": [2, 2]}, {"roi": {"center": ras(4, 4, 3), "size": [0.5, 0.5, 0.5]}}],
        proposals=2,
    )
    for mask in masks(worker, "c1"):
        assert mask[1, 2, 3] and mask[1, 16, 11] and mask[scribble > 0].all()
        assert not mask[9, 9, 6]
        assert np.array_equal(mask[:, :, 2], PARENT[:, :, 2] > 0)
        assert mask[4, 4, 3]
    constraints = worker.of("proposal", "c1")[0]["proposal"]["provenance"]["constraints"]
    assert constraints == f"6 voxels inside, 1 voxel outside, {20 * 18 + 1} voxels fixed"


def test_a_threshold_cuts_the_parents_probability(worker: Worker) -> None:
    soft = np.where(PARENT > 0, 200, 100).astype(np.uint8)
    given = {"array": worker.put(soft), "threshold": 0.5}
    everything = [{"box": [[0, 20], [0, 18], [0, 12]]}]
    order = {"volume_id": "ct", "organ": "liver", "parent": given, "fixed": everything, "proposals": 1}
    worker.call("constrain", job_id="c2", **order)
    assert np.array_equal(masks(worker, "c2")[0], PARENT > 0)


def test_steering_can_be_cancelled() -> None:
    with Worker(PROGIDIFF_SEGMENTER="steering_fake:load") as slow:
        slow.ready("fake:slow")
        order = {"volume_id": "ct", "organ": "liver", "parent": parent(slow), "proposals": 50}
        pending = slow.request("vary", job_id="v3", **order)
        slow.wait_for("proposal", "v3")
        assert slow.call("cancel", job_id="v3") == {"cancelled": True}
        answer = pending.result(timeout=20)
    assert answer["cancelled"] is True
    assert answer["sets"][0]["proposals"]


@pytest.mark.parametrize(
    ("params", "code", "words"),
    [
        ({"inside": [{"points": [[0, 0, 9e6]]}]}, -32000, "outside the volume"),
        ({"inside": [{"box": [[0, 1]] * 3}], "outside": [{"box": [[0, 1]] * 3}]}, -32000, "both inside"),
        ({"fixed": [{"slices": [0, 2]}]}, -32000, "no mask to keep"),
        ({"inside": [{"slices": [0, 1]}], "organ": "tail"}, -32000, "no organ"),
        ({"inside": [{"slices": [0, 1]}], "strength": 1.5}, -32000, "between 0 and 1"),
        ({"inside": [{"slices": [0, 1]}], "proposals": 0}, -32000, "proposals"),
        ({"inside": [{"slices": [0, 1]}], "quality": "best"}, -32000, "quality"),
        ({"inside": [{"array": "../x.npy"}]}, -32000, "no array file"),
        ({"inside": [{"nothing": 1}]}, -32602, "one of: array"),
        ({"inside": [{"points": [], "box": []}]}, -32602, "one of: array"),
        ({"inside": ["liver"]}, -32602, "one of: array"),
        ({"inside": [{"box": [[0, 1], [0, 2.5], [0, 1]]}]}, -32602, "whole numbers"),
        ({"inside": [{"roi": {"center": [0, 0, 0]}}]}, -32602, "roi must be"),
        ({"inside": {"points": []}}, -32602, "inside must be a list or null"),
        ({"volume_id": "gone", "inside": [{"slices": [0, 1]}]}, -32000, "not open"),
    ],
)
def test_bad_requests_are_refused_in_words(
    worker: Worker, params: dict[str, Any], code: int, words: str
) -> None:
    error = refused(worker, "constrain", **params)
    assert error.code == code
    assert words in str(error)


@pytest.mark.parametrize("kind", ["U2", "c8", "V4"])
def test_an_array_that_is_no_mask_is_refused(worker: Worker, kind: str) -> None:
    error = refused(worker, "vary", parent={"array": worker.put(np.zeros((20, 18, 12), kind))})
    assert error.data["kind"] == "VolumeError"


def test_a_parent_must_fit_the_volume(worker: Worker) -> None:
    error = refused(worker, "vary", parent={"array": worker.put(np.ones((3, 3, 3), np.uint8))})
    assert "its region 20×18×12" in str(error)
    error = refused(worker, "vary", parent={})
    assert "one of: array" in str(error)


def test_the_real_segmenter_takes_what_the_worker_gives_it() -> None:
    """In this process, which has imported torch already."""
    from progidiff.worker.array_store import ArrayStore
    from progidiff.worker.session import Choice, Session
    from progidiff.worker.steer_methods import constrain
    from steering_samples import tiny_segmenter

    notes: list[tuple[str, dict[str, Any]]] = []
    store = ArrayStore()
    try:
        session = Session(lambda *_: tiny_segmenter(), store, lambda *note: notes.append(note), Choice())
        noise = np.random.default_rng(0).normal(40, 30, SHAPE).astype(np.float32)
        session.open_volume("ct", Volume(noise, np.array(AFFINE)), "CT")
        session.jobs.add("c1")
        order = {"job_id": "c1", "volume_id": "ct", "organ": "liver", "proposals": 1, "steps": 2}
        given = {"array": store.write(PARENT), "name": "my liver"}
        marks = {"inside": [{"points": [ras(2, 2, 2)]}], "region": {"slices": [0, 6]}}
        answer = constrain(session, **order, parent=given, **marks)
        (message,) = [params["proposal"] for method, params in notes if method == "proposal"]
        probability = np.load(store.directory / message["probability"])
    finally:
        store.close()
    assert answer["sets"][0]["proposals"] == [message["proposal_id"]]
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(*side) for side in message["region"])] = probability > message["threshold"] * 255
    assert mask[2, 2, 2]
    assert np.array_equal(mask[:, :, 7:], PARENT[:, :, 7:] > 0)
