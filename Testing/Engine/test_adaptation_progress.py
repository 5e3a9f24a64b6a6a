"""One bar over all stages: it never goes back, and believes the clock more than the plan."""

from __future__ import annotations

import pytest
from progidiff.adaptation import progress
from progidiff.adaptation.progress import STAGES, AdaptProgress, Meter
from progidiff.adaptation.settings import KINDS, TRAININGS


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_run_as_planned_counts_down_evenly(clock: Clock) -> None:
    reports: list[AdaptProgress] = []
    meter = Meter(reports.append, 100.0)
    for stage in STAGES:
        meter.begin(stage)
        seconds = meter.expected[stage]
        for n in range(1, 5):
            clock.now += seconds / 4
            meter.at(n / 4, n, 4, 0.5)
    assert [r.fraction for r in reports] == sorted(r.fraction for r in reports)
    assert reports[-1].fraction == pytest.approx(1.0)
    assert reports[-1].seconds_left == pytest.approx(0.0, abs=1e-6)
    for stage in ("see", "draw"):
        middle = next(r for r in reports if r.stage == stage and r.step == 2)
        assert middle.fraction + middle.seconds_left / 100 == pytest.approx(1.0)
    assert all(r.text == STAGES[r.stage] for r in reports)


def test_the_trainings_are_expected_to_take_their_shares(clock: Clock) -> None:
    expected = Meter(None, 100.0).expected
    assert list(STAGES) == ["read", "before", *KINDS, "after", *TRAININGS[len(KINDS) :], "check"]
    assert sum(expected.values()) == pytest.approx(100.0)
    assert expected["see"] == pytest.approx(12 * expected["find"])
    assert expected["draw"] == pytest.approx(7 * expected["find"])
    assert expected["see_all"] == pytest.approx(expected["see"] * 0.3 / 0.7)


def test_a_slow_stage_tells_its_own_time(clock: Clock) -> None:
    reports: list[AdaptProgress] = []
    meter = Meter(reports.append, 100.0)
    meter.begin("before")
    later = sum(meter.expected[s] for s in list(STAGES)[2:])
    clock.now += 60
    meter.at(0.5)
    assert reports[-1].seconds_left == pytest.approx(later + 60)
    assert reports[-1].fraction == pytest.approx(60 / (120 + later))


def test_nobody_has_to_listen(clock: Clock) -> None:
    meter = Meter(None, 100.0)
    meter.begin("draw")
    meter.at(0.5)
    assert meter.expected["read"] == 0.0
