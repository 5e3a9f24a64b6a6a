"""Worker processes for the tests that talk to one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from worker_samples import Worker


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """One worker for all tests that leave it as they found it."""
    with Worker() as started:
        yield started


@pytest.fixture
def start_worker() -> Iterator[Callable[..., Worker]]:
    """Starts workers that a test may kill."""
    started: list[Worker] = []

    def start_one(*arguments: str, **environment: str) -> Worker:
        started.append(Worker(*arguments, **environment))
        return started[-1]

    yield start_one
    for one in started:
        one.close()
