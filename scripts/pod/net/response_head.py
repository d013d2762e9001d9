"""HTTP answers that are read within a limit on all of a head or a body, past the interim answers before them.

http.client waits anew for each byte, and takes any status but 100 for the answer. So a server that sends a
byte now and then, or `100 Continue` without end, would hold a connection for ever, and `103 Early Hints`
(RFC 8297) would be taken for the file. Interim answers: RFC 9110, 15.2.
"""

from __future__ import annotations

import http.client
import io
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

_MOST_INTERIM = 16
_MOST_HEAD = 1 << 20  # bytes of a head, with those of the interim answers before it


class UnfinishedError(TimeoutError):
    """An answer came, but not to its end within its limit."""


class TimedReader(io.RawIOBase):
    """The bytes that come on a socket, each within its timeout; or all within what `limit` sets."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._socket = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._timeout = sock.gettimeout()
        self._end: float | None = None
        self._seconds = 0.0
        self._left: int | None = None
        self._begun = False

    def limit(self, seconds: float, most: int | None = None) -> None:
        """Allow so many seconds from now on, and so many bytes (None: any number)."""
        self._end, self._seconds, self._left = time.monotonic() + seconds, seconds, most
        self._begun = False

    def unlimited(self) -> None:
        """Give each read the socket's timeout again."""
        self._end = self._left = None
        self._socket.settimeout(self._timeout)

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read what has come. Raises TimeoutError, of which UnfinishedError where something had come."""
        if self._end is not None:
            left = self._end - time.monotonic()
            if left <= 0:
                raise UnfinishedError(f"{self._seconds:g} s")
            self._socket.settimeout(left if self._timeout is None else min(left, self._timeout))
        try:
            count = self._raw.readinto(buffer)
        except TimeoutError as silent:
            if self._begun and self._end is not None:
                raise UnfinishedError(f"{self._seconds:g} s") from silent
            raise
        self._begun = True
        if self._left is not None and count:
            self._left -= count
            if self._left < 0:
                raise UnfinishedError("its head has no end")
        return count

    def close(self) -> None:
        """Let go of the socket."""
        self._raw.close()
        super().close()


class TimedResponse(http.client.HTTPResponse):
    """An answer whose whole head must come within the socket's timeout, in seconds."""

    def __init__(self, sock: socket.socket, *args: Any, **named: Any) -> None:
        super().__init__(sock, *args, **named)
        self.fp.close()  # nothing has been read with it
        self.timed = TimedReader(sock)
        if (seconds := sock.gettimeout()) is not None:
            self.timed.limit(seconds, _MOST_HEAD)
        self.fp = io.BufferedReader(self.timed)

    def begin(self) -> None:
        """Read the head. Raises HTTPException, OSError, of which TimeoutError past a limit."""
        for _ in range(_MOST_INTERIM):
            super().begin()
            if not HTTPStatus.CONTINUE <= self.status < HTTPStatus.OK or (
                self.status == HTTPStatus.SWITCHING_PROTOCOLS
            ):
                self.timed.unlimited()
                return
            self.headers = self.msg = None  # type: ignore[assignment] # as before any answer was read
        raise UnfinishedError("interim answers without end")
