"""Retries are bounded, and grow apart."""

from __future__ import annotations

import threading
import time

import pytest

from pod.net.http import TransientError
from pod.net.transfer_policy import (
    RetriesExhaustedError,
    StalledError,
    ThroughputMonitor,
    TransferBackoff,
    TransferPolicy,
)


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


def exhaust(patience: TransferBackoff, error: TransientError) -> None:
    for _ in range(7):
        patience.wait(error)
    with pytest.raises(RetriesExhaustedError, match=r"did not come in 8 tries \(cut\)"):
        patience.wait(error)


def test_waiting_doubles_up_to_a_limit(clock: Clock) -> None:
    exhaust(
        TransferBackoff(TransferPolicy(backoff=1, backoff_limit=10), clock, lambda _: None),
        TransientError("cut"),
    )
    assert len(clock.waits) == 7
    for wait, limit in zip(clock.waits, [1, 2, 4, 8, 10, 10, 10], strict=True):
        assert limit / 2 <= wait <= limit


def test_a_trickle_after_a_stall_does_not_start_the_count_anew(clock: Clock) -> None:
    """Else a server that gives a little and hangs would be asked for ever."""
    patience = TransferBackoff(TransferPolicy(tries=3), clock, lambda _: None)
    patience.wait(StalledError("slow"))
    patience.moved(steadily=True)
    for _ in range(2):
        patience.wait(StalledError("slow"))
        patience.moved()
    with pytest.raises(RetriesExhaustedError):
        patience.wait(TransientError("cut"))


@pytest.mark.parametrize(
    ("each", "fair", "stalled"),
    [
        (50_000, 0.0, False),
        (300, 0.0, True),  # 4 KiB/s is the least
        (50_000, 40_000.0, False),
        (50_000, 600_000.0, True),  # others get ten times as much
    ],
)
def test_a_connection_is_judged_at_the_end_of_each_window(
    monkeypatch: pytest.MonkeyPatch,
    each: int,
    fair: float,
    stalled: bool,
) -> None:
    clock = iter(range(100))
    monkeypatch.setattr("pod.net.transfer_policy.time.monotonic", lambda: next(clock))
    meter = ThroughputMonitor(TransferPolicy(stall=10), "hub.test", lambda: fair)
    for _ in range(9):
        meter.took(each)
    assert not meter.steady
    if stalled:
        with pytest.raises(StalledError, match=r"hub\.test gives .* kB/s on one connection"):
            meter.took(each)
        return
    meter.took(each)
    assert meter.steady


def test_the_server_decides_up_to_a_limit(clock: Clock) -> None:
    patience = TransferBackoff(TransferPolicy(retry_after_limit=60), clock, lambda _: None)
    for asked in (0.0, 7.0, 3600.0):
        patience.wait(TransientError("busy", retry_after=asked))
    assert clock.waits == [0, 7, 60]


def test_what_arrives_in_between_starts_the_count_anew(clock: Clock) -> None:
    notes: list[str] = []
    patience = TransferBackoff(TransferPolicy(tries=3), clock, notes.append)
    for _ in range(10):
        patience.wait(TransientError("cut", retry_after=4))
        patience.moved()
    assert notes == ["cut; again in 4 s"] * 10
    exhausted = TransferBackoff(TransferPolicy(tries=1), clock, notes.append)
    with pytest.raises(RetriesExhaustedError):
        exhausted.wait(TransientError("cut"))


def test_a_server_that_asks_for_more_waits_than_are_waited_in_all_is_given_up(clock: Clock) -> None:
    """What it was and what would help stand in one sentence."""
    notes: list[str] = []
    patience = TransferBackoff(TransferPolicy(), clock, notes.append)
    busy = TransientError("hub.test answers 429; a token in HF_TOKEN raises its limit", retry_after=400)
    for _ in range(3):
        patience.wait(busy)
    with pytest.raises(
        RetriesExhaustedError, match=r"in 4 tries \(hub.test answers 429; a token in HF_TOKEN"
    ):
        patience.wait(busy)
    assert clock.waits == [300, 300, 300]
    assert notes == ["hub.test answers 429; a token in HF_TOKEN raises its limit; again in 300 s"] * 3


def test_a_wait_ends_at_once_when_the_fetch_is_stopped() -> None:
    halted = threading.Event()
    threading.Timer(0.1, halted.set).start()
    begun = time.monotonic()
    TransferBackoff(TransferPolicy(), halted, lambda _: None).wait(TransientError("busy", retry_after=240))
    assert time.monotonic() - begun < 5
