"""What the servers of the tests share: threads that end with the tests, no log, bodies, cut connections."""

from __future__ import annotations

import socket
import struct
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 64 << 10


class CutError(ConnectionError):
    """The script cuts this connection, or the client has."""


class QuietServer(ThreadingHTTPServer):
    """A server that waits for no client when it ends."""

    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was cut is nothing to print a traceback for; anything else is."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class QuietHandler(BaseHTTPRequestHandler):
    """One connection; `body_read` is whether the body of the request that is being answered has been read."""

    protocol_version = "HTTP/1.1"
    body_read = False

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def finish(self) -> None:
        """Close both streams: where the first cannot be flushed, the second would keep the connection."""
        try:
            super().finish()
        finally:
            self.rfile.close()

    def reset(self) -> None:
        """Cut the connection: closing sends RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def blocks(self) -> Iterator[bytes]:
        """Yield the body of the request. Raises CutError when the client hangs up before its end."""
        self.body_read = True
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            yield from self._exactly(int(self.headers.get("Content-Length", 0)))
            return
        while size := int(self._line(), 16):
            yield from self._exactly(size)
            self._line()
        self._line()

    def _line(self) -> bytes:
        line = self.rfile.readline()
        if not line:
            raise CutError
        return line.strip()

    def _exactly(self, left: int) -> Iterator[bytes]:
        while left:
            block = self.rfile.read(min(left, _BLOCK))
            if not block:
                raise CutError
            left -= len(block)
            yield block
