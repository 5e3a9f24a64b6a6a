"""Jobs of a worker process: what is streamed, cancelling, and models that fail."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from worker_samples import Worker, refused

# -- segmenting ---------------------------------------------------------------------------------------


def test_proposals_are_streamed_and_summed_up(worker: Worker) -> None:
    worker.ready()
    result = worker.segment("job", seed=7).result(20)
    (found,) = result["sets"]
    streamed = {p["proposal"]["proposal_id"]: p["proposal"] for p in worker.of("proposal", "job")}
    assert sorted(found["proposals"]) == sorted(streamed)
    assert len(streamed) == 3
    assert [row["proposal_id"] for row in found["ranking"]] == found["proposals"]
    assert np.array(found["pairwise_dice"]).shape == (3, 3)
    assert (found["organ"], found["found"], result["cancelled"]) == ("liver", True, False)
    assert {p["provenance"]["seed"] for p in streamed.values()} == {7, 8, 9}
    assert all(p["label"] == 6 and p["organ_name"] == "liver" for p in streamed.values())
    assert 0 < result["seconds"]["first_proposal"] <= result["seconds"]["total"]


def test_arrays_have_the_shape_of_their_region_and_the_announced_volume(worker: Worker) -> None:
    worker.ready()
    (found,) = worker.segment("arrays").result(20)["sets"]
    for proposal in [found["consensus"], worker.of("proposal", "arrays")[0]["proposal"]]:
        array = worker.take(proposal["probability"])
        assert array.dtype == np.uint8
        assert list(array.shape) == [stop - begin for begin, stop in proposal["region"]]
        voxels = np.count_nonzero(array > proposal["threshold"] * 255)
        assert voxels * 2.0 * 2.0 * 5.0 / 1000 == pytest.approx(proposal["volume_ml"])
    agreement = worker.take(found["agreement"]["array"])
    assert list(agreement.shape) == [b - a for a, b in found["agreement"]["region"]]
    assert agreement.max() == 255


def test_progress_rises_to_the_end_over_all_organs(worker: Worker) -> None:
    worker.ready()
    result = worker.segment("two organs", prompt="liver and spleen").result(20)
    assert [found["organ"] for found in result["sets"]] == ["liver", "spleen"]
    fractions = [p["fraction"] for p in worker.of("progress", "two organs")]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    assert len(fractions) == 2 * 3 * 4


@pytest.mark.parametrize(
    ("order", "steps"), [({"quality": "draft"}, 1), ({"quality": "fine"}, 8), ({"steps": 3}, 3)]
)
def test_quality_becomes_steps(worker: Worker, order: dict[str, Any], steps: int) -> None:
    worker.ready()
    job = f"steps {order}"
    worker.segment(job, proposals=1, **order).result(20)
    assert worker.of("proposal", job)[0]["proposal"]["provenance"]["steps"] == steps


def test_two_volumes_are_kept_apart(worker: Worker) -> None:
    worker.ready()
    worker.open("other", (10, 30, 20), modality="MR", name="second")
    worker.segment("a", volume_id="ct").result(20)
    worker.segment("b", volume_id="other").result(20)
    regions = [worker.of("proposal", job)[0]["proposal"]["region"] for job in ("a", "b")]
    assert regions == [[[1, 19], [1, 17], [1, 11]], [[1, 9], [1, 29], [1, 19]]]
    worker.call("close_volume", volume_id="other")
    assert "not open" in str(refused(worker, "segment", job_id="c", volume_id="other", prompt="liver"))
    assert worker.segment("d").result(20)["sets"]


def test_another_model_sees_the_volumes_that_are_open(worker: Worker) -> None:
    worker.ready()
    loaded = worker.call("load_model", model="fake:slow", adapter="")
    assert loaded["default_steps"] == 4
    assert worker.segment("after", proposals=1, steps=1).result(20)["sets"]


def test_a_proposal_that_was_not_streamed_is_sent_before_the_result(worker: Worker) -> None:
    worker.ready("fake:late")
    (found,) = worker.segment("late").result(20)["sets"]
    sent = [p["proposal"]["proposal_id"] for p in worker.of("proposal", "late")]
    assert sorted(sent) == sorted(found["proposals"])


# -- cancelling ---------------------------------------------------------------------------------------


def test_cancel_keeps_what_there_is_and_the_next_job_runs(worker: Worker) -> None:
    worker.ready("fake:slow")
    running = worker.segment("long", proposals=50, prompt="liver and spleen")
    worker.wait_for("proposal", "long")
    begin = time.monotonic()
    assert worker.call("cancel", job_id="long") == {"cancelled": True}
    assert time.monotonic() - begin < 0.5
    result = running.result(20)
    assert time.monotonic() - begin < 2
    assert result["cancelled"] is True
    (found,) = result["sets"]
    assert found["organ"] == "liver"
    assert 1 <= len(found["proposals"]) < 50
    assert worker.segment("next", proposals=1, steps=1).result(20)["cancelled"] is False
    assert worker.call("cancel", job_id="long") == {"cancelled": False}


def test_a_waiting_job_can_be_cancelled(worker: Worker) -> None:
    worker.ready("fake:slow")
    running, waiting = worker.segment("first", proposals=50), worker.segment("second")
    worker.wait_for("progress", "first")
    assert worker.call("cancel", job_id="second") == {"cancelled": True}
    assert worker.call("cancel", job_id="first") == {"cancelled": True}
    running.result(20)
    assert waiting.result(20) == {**waiting.result(), "sets": [], "cancelled": True}


def test_the_id_of_a_running_job_cannot_be_used_again(worker: Worker) -> None:
    worker.ready("fake:slow")
    running = worker.segment("same", proposals=50)
    assert "still running" in str(refused(worker, "segment", job_id="same", volume_id="ct", prompt="liver"))
    worker.call("cancel", job_id="same")
    assert running.result(20)["cancelled"] is True


# -- failures of the model ----------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "word"), [("fake:bug", "a bug"), ("fake:exit", "a library gives up")])
def test_an_unforeseen_exception_is_reported_with_its_traceback(
    worker: Worker, model: str, word: str
) -> None:
    worker.ready(model)
    error = refused(worker, "segment", job_id="bug", volume_id="ct", prompt="liver")
    assert (error.code, error.data["kind"]) == (-32603, "InternalError")
    assert word in str(error)
    assert "_misbehave" in error.data["traceback"]
    assert worker.of("proposal", "bug")
    assert worker.ready().segment("bug", proposals=1).result(20)["sets"]


def test_without_memory_anywhere_the_error_says_so(worker: Worker) -> None:
    worker.ready("fake:no_memory")
    error = refused(worker, "segment", job_id="memory", volume_id="ct", prompt="liver")
    assert (error.code, error.data["kind"]) == (-32000, "DeviceError")
    assert "memory" in str(error)
    assert worker.call("ping") == {}


@pytest.mark.parametrize(
    ("model", "device", "said"),
    [
        ("fake:oom,small_batches", "cuda:0", ["smaller batches"]),
        ("fake:oom", "cpu", ["CPU"]),
    ],
)
def test_a_full_gpu_means_smaller_batches_then_the_cpu(
    worker: Worker, model: str, device: str, said: list[str]
) -> None:
    worker.ready(model)
    job = f"full {model}"
    (found,) = worker.segment(job).result(20)["sets"]
    messages = worker.of("message", job)
    assert [word in message["text"] for word, message in zip(said, messages, strict=True)] == [True]
    assert messages[0]["level"] == "warning"
    final = {p["proposal"]["proposal_id"]: p["proposal"] for p in worker.of("proposal", job)}
    assert sorted(final) == sorted(found["proposals"])  # the repeated ones replaced the first ones
    assert {p["provenance"]["device"] for p in final.values()} == {device}
    assert worker.call("load_model", model=model)["device"] == device


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sets another process's limit")
def test_a_full_disk_is_a_typed_error(start_worker: Callable[..., Worker]) -> None:
    import resource

    worker = start_worker().ready(shape=(60, 60, 60))
    _, hard = resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE)  # type: ignore[attr-defined]
    resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, (10_000, hard))  # type: ignore[attr-defined]
    error = refused(worker, "segment", job_id="full", volume_id="ct", prompt="liver")
    assert error.data["kind"] == "OutputError"
    assert "space" in error.data["remedy"]
    assert list(worker.directory.iterdir()) == []
    resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, (hard, hard))  # type: ignore[attr-defined]
    assert worker.segment("again").result(20)["sets"]
