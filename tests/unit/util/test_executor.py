"""Work begins when all of it is known to who must end it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from podkiln.util.executor import run_all, submit_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def test_all_is_done_in_order() -> None:
    with ThreadPoolExecutor(2) as pool:
        futures = submit_all(pool, str, range(5))
        assert [future.result() for future in futures] == ["0", "1", "2", "3", "4"]


def test_nothing_begins_before_all_is_submitted() -> None:
    happened: list[str] = []

    def things() -> Iterator[str]:
        yield "first"
        time.sleep(0.1)
        happened.append("last submitted")
        yield "last"

    with ThreadPoolExecutor(2) as pool:
        submit_all(pool, happened.append, things())
    assert happened[0] == "last submitted"
    assert sorted(happened[1:]) == ["first", "last"]


def test_nothing_begins_where_that_is_broken_off() -> None:
    begun: list[int] = []

    def things() -> Iterator[int]:
        yield 0
        time.sleep(0.1)
        raise KeyboardInterrupt

    with ThreadPoolExecutor(2) as pool, pytest.raises(KeyboardInterrupt):
        submit_all(pool, begun.append, things())
    assert begun == []


def test_a_failure_is_the_future_s_own() -> None:
    with ThreadPoolExecutor(2) as pool:
        good, bad = submit_all(pool, int, ["1", "one"])
        assert good.result() == 1
        assert isinstance(bad.exception(), ValueError)


class StoppedError(Exception):
    pass


def run(work: Callable[[int], int], things: Iterable[int], stop: threading.Event) -> list[int]:
    with ThreadPoolExecutor(2) as pool:
        return run_all(pool, work, things, cancel=stop.set, cancelled=StoppedError)


def test_the_first_failure_is_told_and_nothing_is_begun_after_it() -> None:
    stop, begun = threading.Event(), []

    def work(number: int) -> int:
        begun.append(number)
        if number == 0:
            stop.wait(10)
            raise OSError("only because it was stopped")
        if number == 1:
            time.sleep(0.1)
            raise ValueError("the first")
        return number

    with pytest.raises(ValueError, match="the first"):
        run(work, range(9), stop)
    assert sorted(begun) == [0, 1]


def test_an_interruption_stops_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    stop = threading.Event()
    monkeypatch.setattr("podkiln.util.executor.wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(lambda _: stop.wait(10), range(2), stop)
    assert stop.is_set()
