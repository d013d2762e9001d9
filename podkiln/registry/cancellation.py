"""Ending requests from another thread: by their connections, at once or after a moment of grace.

Closing a socket does not wake who waits in `recv`; shutting it down does.
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
        self._once = threading.Lock()
        self._abrupt, self._graceful = _Sockets(), _Sockets()
        self._timer = threading.Timer(grace, self._graceful.cut)
        self._timer.daemon = True
        self._thread = threading.local()

    def close(self) -> None:
        """Forget the moment of grace: nothing is under way any more."""
        self._timer.cancel()

    def cancel(self) -> None:
        """End all that is watched and not shielded, now and from now on."""
        if self._once.acquire(blocking=False):
            self.event.set()
            self._abrupt.cut()
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
        if not self.shields:
            (self._graceful if graceful else self._abrupt).add(connection)

    def release(self, connection: socket.socket) -> None:
        """Let a connection be: its request is at its end."""
        self._graceful.discard(connection)
        self._abrupt.discard(connection)


class _Sockets:
    """Sockets that end together; several threads may share them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._cut = False

    def add(self, opened: socket.socket) -> None:
        """Take one in; after `cut` it ends at once."""
        with self._lock:
            self._open.add(opened)
            if self._cut:
                _end(opened)

    def discard(self, opened: socket.socket) -> None:
        """Forget one."""
        with self._lock:
            self._open.discard(opened)

    def cut(self) -> None:
        """End them all, now and from now on."""
        with self._lock:
            self._cut = True
            for opened in list(self._open):
                _end(opened)


def _end(opened: socket.socket) -> None:
    """Shut a socket down beneath its TLS, which another thread is using."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(opened, socket.SHUT_RDWR)
