"""Work in a process of its own: answers, silence, and its end."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from pod.volume.timed_subprocess import LateError, LostError, TimedSubprocess

if TYPE_CHECKING:
    from collections.abc import Callable


def test_values_come_in_order() -> None:
    def work(report: Callable[[Any], None]) -> None:
        report({"pid": os.getpid()})
        report(None)
        report(["x" * 200_000])  # more than a pipe holds

    with TimedSubprocess(work, 10) as beside:
        assert beside.answer()["pid"] != os.getpid()
        assert beside.answer() is None
        assert beside.answer() == ["x" * 200_000]


def test_silence_ends_at_the_limit_and_what_came_before_it_counts() -> None:
    def work(report: Callable[[Any], None]) -> None:
        report("first")
        time.sleep(60)

    begun = time.monotonic()
    with TimedSubprocess(work, 0.3) as beside:
        assert beside.answer() == "first"
        with pytest.raises(LateError):
            beside.answer()
    assert 0.25 < time.monotonic() - begun < 5


def test_an_answer_that_is_there_is_taken_however_late_it_is_asked_for() -> None:
    with TimedSubprocess(lambda report: report(1), 0.2) as beside:
        time.sleep(0.5)
        assert beside.answer() == 1


def die(_report: Callable[[Any], None]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail(_report: Callable[[Any], None]) -> None:
    raise ValueError("no such thing")


ENDS: list[tuple[Callable[[Callable[[Any], None]], None], str]] = [
    (die, "without a word"),
    (fail, "ValueError: no such thing"),
    (lambda _report: None, "without a word"),
]


@pytest.mark.parametrize(("work", "says"), ENDS, ids=["killed", "failed", "nothing said"])
def test_an_end_without_an_answer_is_told(work: Callable[[Callable[[Any], None]], None], says: str) -> None:
    with TimedSubprocess(work, 10) as beside, pytest.raises(LostError, match=says):
        beside.answer()


def test_leaving_ends_the_work() -> None:
    def work(report: Callable[[Any], None]) -> None:
        report(os.getpid())
        time.sleep(60)

    with TimedSubprocess(work, 10) as beside:
        process = beside.answer()
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            os.waitpid(process, os.WNOHANG)
        except ChildProcessError:
            return
        time.sleep(0.01)
    pytest.fail(f"{process} lives on")
