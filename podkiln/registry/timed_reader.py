"""Reading from a socket within a limit on all of it: a socket's own timeout begins anew with each byte."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Final

from pod.net.http import TransientError
from podkiln.registry.errors import EndlessAnswerError

if TYPE_CHECKING:
    import socket

    from _typeshed import WriteableBuffer

_HEADWAY: Final = 1 << 20  # bytes
_PARTS: Final = 32  # of what is smaller than that many of them

_SLOWEST: Final = 4 << 10  # bytes a second; little, since many connections may share a thin line
_WINDOW: Final = 30.0  # seconds of waiting over which that is measured


def headway(size: int) -> int:
    """Return how many bytes of `size` must have come for earlier failures to be forgotten.

    One alone does not do: a server that cuts after each would never be given up.
    """
    return min(_HEADWAY, size // _PARTS + 1)


class TimedReader(io.RawIOBase):
    """The bytes that come on a socket, until a time and up to a number that `limit` sets."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._deadline: float | None = None
        self._seconds = 0.0
        self._left: int | None = None
        self._begun = False

    def limit(self, seconds: float, most: int | None = None) -> None:
        """Allow so many seconds from now on, and so many bytes (None: any number)."""
        self._deadline, self._seconds, self._left = time.monotonic() + seconds, seconds, most
        self._begun = False

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        """Read what has come. Raises TimeoutError; EndlessAnswerError past a limit."""
        if self._deadline is not None:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise EndlessAnswerError(f"{self._seconds:g} s")
            self._socket.settimeout(left)
        try:
            count = self._raw.readinto(buffer)
        except TimeoutError as silent:
            if self._begun:  # it came, but not to its end
                raise EndlessAnswerError(f"{self._seconds:g} s") from silent
            raise
        self._begun = True
        if self._left is not None and count:
            self._left -= count
            if self._left < 0:
                raise EndlessAnswerError("its head has no end")
        return count

    def close(self) -> None:
        """Let go of the socket."""
        self._raw.close()
        super().close()


class LeastRate:
    """Watches how fast a body comes; only time spent waiting for it counts, not what its reader takes."""

    def __init__(self, host: str, slowest: float = _SLOWEST, window: float = _WINDOW) -> None:
        self._host, self._slowest, self._window = host, slowest, window
        self._bytes, self._waited = 0, 0.0

    def took(self, count: int, seconds: float) -> None:
        """Note bytes that were waited for. Raises the pod's TransientError for a trickle."""
        self._bytes += count
        self._waited += seconds
        if self._waited < self._window:
            return
        rate = self._bytes / self._waited
        if rate < self._slowest:
            raise TransientError(f"{self._host} gives {rate / 1000:.1f} kB/s on one connection")
        self._bytes, self._waited = 0, 0.0
