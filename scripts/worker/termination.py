"""SIGTERM while jobs run: they may end by themselves for a while, and are ended then, with that reason.

A platform that takes a worker away sends SIGTERM and, some seconds later, SIGKILL. What a job has not
answered by then is lost without a word, so jobs are ended a little before.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GRACE: Final = 7.0
"""Seconds between SIGTERM and the end of what still runs: Docker gives a container ten."""


class Termination:
    """What SIGTERM does to the jobs of this process. `grace`: seconds that they may go on."""

    def __init__(self, grace: float = GRACE) -> None:
        self._grace = grace
        self._ends: list[Callable[[], None]] = []
        self._before: Any = None
        self._told = False
        self._over = False

    @contextmanager
    def ends(self, end: Callable[[], None]) -> Iterator[None]:
        """Call `end` when the grace is over, as long as the block lasts; in an event loop.

        At once where it is over already: the SDK begins the jobs that it took before SIGTERM.
        """
        self._listen(asyncio.get_running_loop())
        self._ends.append(end)
        if self._over:
            end()
        try:
            yield
        finally:
            self._ends.remove(end)

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take SIGTERM from whoever has it, once; that one is still called.

        The SDK sets its own when its loop begins, and starts no further job after it. Where nobody has it, it
        ends the process at once, as it should.
        """
        before = signal.getsignal(signal.SIGTERM)
        ours = threading.current_thread() is threading.main_thread()
        if not ours or before == self._arrived or not callable(before):
            return
        self._before, self._loop = before, loop
        signal.signal(signal.SIGTERM, self._arrived)

    def _arrived(self, number: int, frame: Any) -> None:
        if not self._told:
            self._told = True
            self._loop.call_soon_threadsafe(self._loop.call_later, self._grace, self._end_all)
        self._before(number, frame)

    def _end_all(self) -> None:
        self._over = True
        for end in list(self._ends):
            end()
