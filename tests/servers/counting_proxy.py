"""A proxy before a registry that counts what passes, request by request.

It listens on a port, or on a Unix socket: that one is reached from other network namespaces too.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socketserver
import threading
from collections import Counter
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote

from servers.base import QuietHandler, QuietServer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from io import BufferedIOBase
    from pathlib import Path

_PIECE = 1 << 20
_TLS_HANDSHAKE = b"\x16"  # content type of a record (RFC 8446, 5.1)
# Of one connection only (RFC 9110, 7.6.1); lengths and codings are set anew.
_HOPS = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


@dataclass
class Passed:
    """One request, and the bytes of both bodies, which grow as they go."""

    method: str
    path: str
    up: int = 0
    down: int = 0


class Counts:
    """All requests since the last `clear`."""

    def __init__(self) -> None:
        self._passed: list[Passed] = []
        self._lock = threading.Lock()

    def note(self, passed: Passed) -> None:
        """Remember one."""
        with self._lock:
            self._passed.append(passed)

    def clear(self) -> None:
        """Forget all so far."""
        with self._lock:
            self._passed.clear()

    def pulled(self) -> dict[str, int]:
        """Return the bytes of blobs that were read, by digest."""
        found: Counter[str] = Counter()
        for each in self._all():
            blob = re.search(r"/blobs/(sha256:[0-9a-f]{64})$", each.path)
            if blob and each.method == "GET":
                found[blob[1]] += each.down
        return dict(found)

    def pushed(self) -> dict[str, int]:
        """Return the bytes that uploads brought, by digest; "" stands for those that were not committed."""
        brought: Counter[str] = Counter()
        became: dict[str, str] = {}
        for each in self._all():
            if upload := re.search(r"/blobs/uploads/([^/?]+)", each.path):
                brought[upload[1]] += each.up
                if digest := re.search(r"[?&]digest=([^&]+)", each.path):
                    became[upload[1]] = unquote(digest[1])
        found: Counter[str] = Counter()
        for upload_id, count in brought.items():
            found[became.get(upload_id, "")] += count
        return dict(found)

    def _all(self) -> list[Passed]:
        with self._lock:
            return list(self._passed)


@contextlib.contextmanager
def serve(registry: str, counts: Counts) -> Iterator[str]:
    """Pass on to a registry (host:port); yield the proxy's own host:port."""
    with _running(_Port(("127.0.0.1", 0), _Handler), registry, counts) as server:
        yield f"127.0.0.1:{server.server_address[1]}"


@contextlib.contextmanager
def serve_socket(registry: str, counts: Counts, path: Path) -> Iterator[None]:
    """Pass on to a registry (host:port) what comes through a Unix socket."""
    with _running(_Socket(str(path), _Handler), registry, counts):
        yield


class _Port(QuietServer):
    registry: str
    counts: Counts


class _Socket(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    registry: str
    counts: Counts


Server = TypeVar("Server", _Port, _Socket)


@contextlib.contextmanager
def _running(server: Server, registry: str, counts: Counts) -> Iterator[Server]:
    server.registry, server.counts = registry, counts
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class _Handler(QuietHandler):
    server: _Port | _Socket

    def address_string(self) -> str:
        return "client"  # a Unix socket's has no address

    def handle_one_request(self) -> None:
        """Tell a client that tries TLS first what it takes for "speak plain http": an answer in http."""
        if self.rfile.peek(1)[:1] == _TLS_HANDSHAKE:  # type: ignore[attr-defined]  # it is a BufferedReader
            self.wfile.write(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            self.close_connection = True
        else:
            super().handle_one_request()

    def _pass(self) -> None:
        passed = Passed(self.command, self.path)
        self.server.counts.note(passed)
        onward = http.client.HTTPConnection(self.server.registry, timeout=600)
        with contextlib.closing(onward):
            try:
                self._ask(onward, passed)
                with onward.getresponse() as answer:
                    self._answer(answer, passed)
            except OSError:  # one of both has gone
                self.close_connection = True

    do_HEAD = do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass  # noqa: N815 - the base class's

    def _ask(self, onward: http.client.HTTPConnection, passed: Passed) -> None:
        """Send a request on."""
        onward.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _HOPS:
                onward.putheader(name, value)
        length = self.headers["Content-Length"]
        if length is None and "chunked" in self.headers.get("Transfer-Encoding", ""):
            onward.putheader("Transfer-Encoding", "chunked")
            onward.endheaders()
            self._send_chunks(onward, passed)
            return
        onward.putheader("Content-Length", length or "0")
        onward.endheaders()
        for piece in _exactly(self.rfile, int(length or 0)):
            passed.up += len(piece)
            onward.send(piece)

    def _send_chunks(self, onward: http.client.HTTPConnection, passed: Passed) -> None:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            onward.send(b"%x\r\n" % size)
            for piece in _exactly(self.rfile, size):
                passed.up += len(piece)
                onward.send(piece)
            onward.send(b"\r\n")
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass
        onward.send(b"0\r\n\r\n")

    def _answer(self, answer: http.client.HTTPResponse, passed: Passed) -> None:
        """Send an answer back."""
        length = answer.getheader("Content-Length")
        body: Iterable[bytes]
        if length is None:
            whole = answer.read()
            length, body = str(len(whole)), [whole]
        else:
            body = iter(lambda: answer.read(_PIECE), b"")
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOPS:
                self.send_header(name, value)
        if answer.status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", length)
        self.end_headers()
        for piece in body:
            passed.down += len(piece)
            self.wfile.write(piece)


def _exactly(stream: BufferedIOBase, size: int) -> Iterator[bytes]:
    """Yield `size` bytes. Raises OSError when there are fewer."""
    while size:
        piece = stream.read(min(size, _PIECE))
        if not piece:
            raise ConnectionError("the body ended early")
        size -= len(piece)
        yield piece
