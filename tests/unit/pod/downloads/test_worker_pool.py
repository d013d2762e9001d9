"""The first file gets all the workers that it can use, the next one the rest, and nobody is forgotten."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from pod.downloads.worker_pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COUNT = 4


class File:
    """Work that wants so many helpers, who stay until they are let go."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.open = threading.Event()
        self.helped = 0
        self.most = 0
        self._lock = threading.Lock()

    def wants(self, helpers: int) -> bool:
        return helpers < self.wanted and not self.open.is_set()

    def help(self) -> None:
        with self._lock:
            self.helped += 1
            self.most = max(self.most, self.helped)
        self.open.wait(5)
        with self._lock:
            self.helped -= 1


@pytest.fixture
def workers() -> Iterator[WorkerPool]:
    crowd = WorkerPool(COUNT)
    yield crowd
    crowd.end()
    for thread in crowd.threads:
        thread.join(2)
        assert not thread.is_alive()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 2
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_file_gets_all_it_wants_and_the_next_one_the_rest(workers: WorkerPool) -> None:
    first, second = File(3), File(3)
    with workers.on(first), workers.on(second):
        until(lambda: first.helped == 3 and second.helped == 1)
        first.open.set()
        until(lambda: second.helped == 3)
        second.open.set()
    assert (first.most, second.most) == (3, 3)


def test_a_file_is_over_only_when_nobody_is_at_it_any_more(workers: WorkerPool) -> None:
    """What it wrote to may be removed then."""
    file = File(COUNT)
    with workers.on(file):
        until(lambda: file.helped == COUNT)
        threading.Timer(0.1, file.open.set).start()
    assert file.helped == 0


def test_a_file_that_is_over_gets_no_new_helpers(
    workers: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much it still seems to want: else it would never be over."""
    file = File(COUNT)
    monkeypatch.setattr(file, "help", lambda: time.sleep(0.02))
    with workers.on(file):
        time.sleep(0.05)
        over = time.monotonic()
    assert time.monotonic() - over < 0.05


def test_files_in_work_come_before_the_next_one() -> None:
    begun = threading.Event()
    waiting: list[Callable[[], None]] = [begun.set]
    file = File(0)
    crowd = WorkerPool(COUNT, lambda: waiting.pop() if waiting and file.open.is_set() else None)
    with crowd.on(file):
        assert not begun.wait(0.05)
        file.open.set()
        crowd.notify_workers()
        assert begun.wait(0.2)  # at once, not at the next look
    crowd.end()


def test_a_helper_that_fails_is_not_counted_for_ever(
    workers: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    file = File(1)

    def fail() -> None:
        file.open.set()
        raise RuntimeError

    monkeypatch.setattr(file, "help", fail)
    with workers.on(file):
        assert file.open.wait(2)
