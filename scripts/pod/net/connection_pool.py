"""Connections that stay open between requests: small files and spans then cost no handshake."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import http.client

LONGEST = 10.0  # seconds: servers close what is idle for longer, some after 15 s


class ConnectionPool:
    """Idle connections by origin, shared by threads."""

    def __init__(self, most: int = 64) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._kept: list[tuple[str, float, http.client.HTTPConnection]] = []

    def take(self, origin: str) -> http.client.HTTPConnection | None:
        """Return the connection to an origin that was used last, if any, for the caller alone."""
        with self._lock:
            self._kept, old = self._fresh()
            index = next((n for n in reversed(range(len(self._kept))) if self._kept[n][0] == origin), None)
            taken = None if index is None else self._kept.pop(index)[2]
        for _, _, connection in old:
            connection.close()
        return taken

    def give(self, origin: str, connection: http.client.HTTPConnection) -> None:
        """Keep a connection whose last answer was read to its end."""
        with self._lock:
            if len(self._kept) < self._most:
                self._kept.append((origin, time.monotonic(), connection))
                return
        connection.close()

    def close(self) -> None:
        """Close them all; what is still in use is closed by its user."""
        with self._lock:
            kept, self._kept, self._most = self._kept, [], 0
        for _, _, connection in kept:
            connection.close()

    def _fresh(self) -> tuple[list[tuple[str, float, http.client.HTTPConnection]], ...]:
        oldest = time.monotonic() - LONGEST
        fresh = [row for row in self._kept if row[1] >= oldest]
        return fresh, [row for row in self._kept if row[1] < oldest]
