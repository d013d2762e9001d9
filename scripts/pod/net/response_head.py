"""The head of an HTTP answer, read within a deadline, and past the interim answers before it.

http.client waits anew for each byte, and takes any status but 100 for the answer. So a server that sends a
byte now and then, or `100 Continue` without end, would hold a connection for ever, and `103 Early Hints`
(RFC 8297) would be taken for the file. Interim answers: RFC 9110, 15.2.
"""

from __future__ import annotations

import errno
import http.client
import io
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

_MOST_INTERIM = 16


class TimedResponse(http.client.HTTPResponse):
    """An answer whose whole head must come within the socket's timeout, in seconds."""

    def __init__(self, sock: socket.socket, *args: Any, **named: Any) -> None:
        super().__init__(sock, *args, **named)
        self.fp.close()  # nothing has been read with it
        self._reader = _TimedReader(sock)
        self.fp = io.BufferedReader(self._reader)

    def begin(self) -> None:
        """Read the head. Raises HTTPException, OSError, of which TimeoutError past the deadline."""
        for _ in range(_MOST_INTERIM):
            super().begin()
            if not 100 <= self.status < 200 or self.status == HTTPStatus.SWITCHING_PROTOCOLS:  # noqa: PLR2004
                self._reader.end = None
                return
            self.headers = self.msg = None  # type: ignore[assignment] # as before any answer was read
        raise OSError(errno.EPROTO, "interim answers without end")

    def end_within(self, seconds: float) -> None:
        """Let reads of the rest fail with TimeoutError once so many seconds have passed."""
        self._reader.end = time.monotonic() + seconds


class _TimedReader(io.RawIOBase):
    """Reads from a socket until `end`, a moment of time.monotonic(); None: only each read has a limit."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._timeout = sock.gettimeout()
        self.end = None if self._timeout is None else time.monotonic() + self._timeout

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self.end is None:
            return self._raw.readinto(buffer)
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left if self._timeout is None else min(left, self._timeout))
        try:
            return self._raw.readinto(buffer)
        finally:
            self._sock.settimeout(self._timeout)

    def close(self) -> None:
        self._raw.close()
        super().close()
