"""Ending the wait for an answer from another thread: by its connection.

httpx has no way to abort a request from outside; closing a socket does not wake a thread in `recv`, shutting
it down does. Source: httpcore, "Request extensions" (the `trace` extension tells of each connection made).
"""

from __future__ import annotations

import contextlib
import socket
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_MADE: Final = (".connect_tcp.complete", ".start_tls.complete")


class SocketRegistry:
    """The sockets that were added, and those that requests opened which were sent with `extensions`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._cut = False

    @property
    def extensions(self) -> dict[str, Any]:
        """What to give httpx with a request."""
        return {"trace": self._trace}

    def add(self, made: socket.socket) -> None:
        """Take one in."""
        with self._lock:
            self._open.add(made)
            if self._cut:
                _end(made)

    def cut(self) -> None:
        """End all connections, and those that are still being made as soon as they are."""
        with self._lock:
            self._cut = True
            for opened in list(self._open):
                _end(opened)

    def _trace(self, event: str, told: Mapping[str, Any]) -> None:
        if not event.endswith(_MADE):
            return
        self.add(told["return_value"].get_extra_info("socket"))


def _end(opened: socket.socket) -> None:
    """Shut a socket down beneath its TLS, which another thread is using."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(opened, socket.SHUT_RDWR)
