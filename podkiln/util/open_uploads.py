"""Uploads that this process began at registries and that are neither committed nor deleted there.

What an interruption says of what it leaves behind is read from here. One for the process, since interruptions
end a process; safe for several threads.
"""

from __future__ import annotations

import itertools
import threading
from typing import Final


class Unfinished:
    """The uploads that are open, each with the host it was begun at."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal may be handled while this very thread holds it
        self._numbers = itertools.count()
        self._open: dict[int, str] = {}

    def begin(self, host: str) -> int:
        """Take note that a registry is about to be asked for an upload; return its number here."""
        with self._lock:
            number = next(self._numbers)
            self._open[number] = host
            return number

    def end(self, number: int | None) -> None:
        """Take note that an upload was committed or deleted, or never came to be."""
        with self._lock:
            if number is not None:
                self._open.pop(number, None)

    def hosts(self) -> dict[str, int]:
        """Return how many uploads are open at each host."""
        with self._lock:
            found = list(self._open.values())
        return {host: found.count(host) for host in dict.fromkeys(found)}


UPLOADS: Final = Unfinished()
