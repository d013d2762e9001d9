"""Retries are bounded, and grow apart."""

from __future__ import annotations

import threading

import pytest

from pod.patience import Patience, Policy, SpentError
from pod.web import TransientError


class Clock(threading.Event):
    """Notes how long it was asked to wait, and does not."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0)
        return False


@pytest.fixture
def clock() -> Clock:
    return Clock()


def exhaust(patience: Patience, error: TransientError) -> None:
    for _ in range(7):
        patience.wait(error)
    with pytest.raises(SpentError, match=r"did not come in 8 tries \(cut\)"):
        patience.wait(error)


def test_waiting_doubles_up_to_a_limit(clock: Clock) -> None:
    exhaust(Patience(Policy(backoff=1, backoff_limit=10), clock, lambda _: None), TransientError("cut"))
    assert len(clock.waits) == 7
    for wait, limit in zip(clock.waits, [1, 2, 4, 8, 10, 10, 10], strict=True):
        assert limit / 2 <= wait <= limit


def test_the_server_decides_up_to_a_limit(clock: Clock) -> None:
    patience = Patience(Policy(retry_after_limit=60), clock, lambda _: None)
    for asked in (0.0, 7.0, 3600.0):
        patience.wait(TransientError("busy", retry_after=asked))
    assert clock.waits == [0, 7, 60]


def test_what_arrives_in_between_starts_the_count_anew(clock: Clock) -> None:
    notes: list[str] = []
    patience = Patience(Policy(tries=3), clock, notes.append)
    for _ in range(10):
        patience.wait(TransientError("cut", retry_after=4))
        patience.moved()
    assert notes == ["cut; again in 4 s"] * 10
    exhausted = Patience(Policy(tries=1), clock, notes.append)
    with pytest.raises(SpentError):
        exhausted.wait(TransientError("cut"))
