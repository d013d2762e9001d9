"""How much a fetch puts up with: its limits in one place. When it tries again is the rule in retry.py."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pod.net.http import Limits, RefusedError, TransientError
from pod.net.retry import LONGEST_TOTAL, LONGEST_WAIT, Backoff
from pod.util.dataclass import dataclass, field

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

MIB = 1 << 20


@dataclass(frozen=True)
class TransferPolicy:
    """Connections over all files, bytes per chunk, and seconds.

    A chunk is what a kill -9 costs each connection at most. A connection that gives fewer than `slowest`
    bytes a second for `stall` seconds is dropped; that is little, since sixteen may share a thin line.
    """

    connections: int = 16
    chunk: int = 8 * MIB
    slowest: int = 4 * 1024
    stall: float = 30.0
    tries: int = 8
    backoff: float = 1.0
    backoff_limit: float = 30.0
    retry_after_limit: float = LONGEST_WAIT
    wait_limit: float = LONGEST_TOTAL
    limits: Limits = field(default_factory=Limits)


class RetriesExhaustedError(RefusedError):
    """Nothing has moved for too many tries."""


class StalledError(TransientError):
    """A connection gave next to nothing for a while."""


class ThroughputMonitor:
    """Watches one connection; `fair` gives the bytes a second that one to the same file gave of late.

    Stalled is what gives next to nothing, or a tenth of what is fair: a new one will do better.
    """

    def __init__(self, policy: TransferPolicy, host: str, fair: Callable[[], float]) -> None:
        self._policy = policy
        self._host = host
        self._fair = fair
        self._since, self._bytes = time.monotonic(), 0
        self.steady = False

    def took(self, count: int) -> None:
        """Note bytes that came. Raises StalledError after `stall` seconds with too few."""
        self._bytes += count
        now = time.monotonic()
        if now - self._since < self._policy.stall:
            return
        rate = self._bytes / (now - self._since)
        if rate < max(self._policy.slowest, self._fair() / 10):
            raise StalledError(f"{self._host} gives {rate / 1000:.1f} kB/s on one connection")
        self.steady = True
        self._since, self._bytes = now, 0


class TransferBackoff:
    """Count failures in a row; any received byte resets the count."""

    def __init__(self, policy: TransferPolicy, halted: threading.Event, note: Callable[[str], None]) -> None:
        self._backoff = Backoff(
            policy.tries, policy.backoff, policy.backoff_limit, policy.retry_after_limit, policy.wait_limit
        )
        self._halted = halted
        self._note = note
        self._stalled = False

    def moved(self, *, steadily: bool = False) -> None:
        """Forget the failures: something arrived. After a stall a trickle is not enough."""
        if steadily or not self._stalled:
            self._backoff.succeeded()
            self._stalled = False

    def wait(self, error: TransientError) -> None:
        """Wait before the next try, as long as the server asked or twice as long as last time.

        Raises RetriesExhaustedError after `tries` failures in a row, or where `wait_limit` seconds of
        waiting would be exceeded. Returns at once when halted.
        """
        self._stalled = self._stalled or isinstance(error, StalledError)
        delay = self._backoff.failed(error.retry_after)
        if delay is None:
            tries = "1 try" if self._backoff.failures == 1 else f"{self._backoff.failures} tries"
            raise RetriesExhaustedError(f"did not come in {tries} ({error}); start the fetch again later")
        self._note(f"{error}; again in {delay:.0f} s")
        self._halted.wait(delay)
