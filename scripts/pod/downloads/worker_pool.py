"""The threads that hold connections: each helps the first file that can use one more, or begins the next.

So a large file gets all there are, many small ones get one each, and the first of a run is there soonest.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAUSE = 0.25  # seconds until an idle worker looks again by itself


class Divisible(Protocol):
    """A file that several connections can fetch."""

    def wants(self, helpers: int) -> bool:
        """Tell, without waiting, whether it can use another one besides the `helpers` that it has."""

    def help(self) -> None:
        """Fetch a span of it."""


class WorkerPool:
    """`count` threads; `begin` returns, without waiting, the next file's work when it may begin now."""

    def __init__(self, count: int, begin: Callable[[], Callable[[], None] | None] | None = None) -> None:
        self._changed = threading.Condition()
        self._works: dict[Divisible, int] = {}
        self._leaving: set[Divisible] = set()
        self._begin = begin
        self._ended = False
        self.threads = [threading.Thread(target=self._labour, daemon=True) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    @contextlib.contextmanager
    def on(self, work: Divisible) -> Iterator[None]:
        """Let workers help with a file; afterwards, wait until none of them is at it any more."""
        with self._changed:
            self._works[work] = 0
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._leaving.add(work)
                self._changed.wait_for(lambda: not self._works[work])
                self._leaving.remove(work)
                del self._works[work]

    def notify_workers(self) -> None:
        """Let idle workers look for work at once."""
        with self._changed:
            self._changed.notify_all()

    def end(self) -> None:
        """Let each worker go when it has finished what it is doing."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _labour(self) -> None:
        while (task := self._next()) is not None:
            task()

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._ended:
                for work, helpers in self._works.items():
                    if work not in self._leaving and work.wants(helpers):
                        self._works[work] += 1
                        return functools.partial(self._help, work)
                if self._begin and (task := self._begin()):
                    return task
                self._changed.wait(PAUSE)
        return None

    def _help(self, work: Divisible) -> None:
        try:
            work.help()
        finally:
            with self._changed:
                self._works[work] -= 1
                self._changed.notify_all()
