"""Ending requests from another thread: by their connections, at once or after a moment of grace.

Closing a socket does not wake a thread in `recv`; shutting it down does.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import weakref
from typing import TYPE_CHECKING

from podkiln.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterator


class CancelledError(RegistryError):
    """Work given up because other work failed; never what a user sees."""


class Cancellation:
    """Whether the requests of a transport are given up, and the connections that they are waiting for.

    Args:
        grace: Seconds after which those end, too, whose answers get a moment to come.
    """

    def __init__(self, grace: float) -> None:
        self.event = threading.Event()
        self._once, self._lock = threading.Lock(), threading.Lock()
        self._watched: weakref.WeakKeyDictionary[socket.socket, bool] = weakref.WeakKeyDictionary()
        self._cut: set[bool] = set()  # of those that get no moment, and of those that do
        self._timer = threading.Timer(grace, self._end_all, [True])
        self._timer.daemon = True
        self._thread = threading.local()

    def close(self) -> None:
        """Forget the moment of grace: nothing is under way any more."""
        self._timer.cancel()

    def cancel(self) -> None:
        """End all that is watched and not shielded, now and from now on."""
        if self._once.acquire(blocking=False):
            self.event.set()
            self._end_all(False)
            self._timer.start()

    def refuse(self) -> None:
        """Raise CancelledError after `cancel`, unless this thread is shielded."""
        if self.event.is_set() and not self.shields:
            raise CancelledError("given up")

    @property
    def shields(self) -> bool:
        """Whether this thread is in `shield`."""
        return bool(getattr(self._thread, "shielded", False))

    @contextlib.contextmanager
    def shield(self) -> Iterator[None]:
        """Let the requests of this thread go on, cancelled or not; also those for a login that they need."""
        self._thread.shielded = True
        try:
            yield
        finally:
            self._thread.shielded = False

    def watch(self, connection: socket.socket, *, graceful: bool) -> None:
        """Have `cancel` end a connection until `release`."""
        if self.shields:
            return
        with self._lock:
            self._watched[connection] = graceful
            if graceful in self._cut:
                _end(connection)

    def release(self, connection: socket.socket) -> None:
        """Let a connection be: its request is at its end."""
        with self._lock:
            self._watched.pop(connection, None)

    def _end_all(self, graceful: bool) -> None:
        with self._lock:
            self._cut.add(graceful)
            for connection, gets_moment in list(self._watched.items()):
                if gets_moment is graceful:
                    _end(connection)


def _end(opened: socket.socket) -> None:
    """Shut a socket down beneath its TLS, which another thread is using."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(opened, socket.SHUT_RDWR)
