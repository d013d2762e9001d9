"""Requests whose bodies are sent as they come, from the memory that they lie in.

httpx frames a body by copying it, and copies again what a socket did not take at once: for weights, which are
hashed twice on the way, that is a sixth of the processor's time. Everything else goes through httpx.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
from httpx import codes

from pod.net.connection_pool import ConnectionPool
from pod.net.http import Limits, connection_to, unconnected

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Iterator, Mapping

    from podkiln.oci.tar_layer import Chunk
    from podkiln.registry.cancellation import SocketRegistry


class EndedEarlyError(Exception):
    """Raised by a request's body that ends before its time; the answer to it matters little."""


@dataclass(frozen=True)
class Timeouts:
    """Seconds to wait: for a connection, for bytes to be taken, for the answer; and after an early end."""

    connect: float
    write: float
    read: float
    grace: float


@dataclass(frozen=True)
class Response:
    """What came back: all of it, since registries answer little but blobs."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: httpx.URL

    @property
    def host(self) -> str:
        """Host and port that answered."""
        return self.url.netloc.decode()

    @property
    def is_success(self) -> bool:
        """Whether the status is one of those that mean success (2xx)."""
        return codes.is_success(self.status)


class StreamingConnection:
    """Connections for bodies that are streamed; several threads may share it.

    Args:
        tls: Whom to trust.
        sockets: Gets each connection, so that another thread can shut it down.
        direct: Use no proxy.
    """

    def __init__(self, tls: ssl.SSLContext, sockets: SocketRegistry, *, direct: bool) -> None:
        self._tls = tls
        self._sockets = sockets
        self._direct = direct
        self._idle = ConnectionPool()

    def close(self) -> None:
        """Close idle connections."""
        self._idle.close()

    def send(
        self,
        method: str,
        url: httpx.URL,
        headers: Mapping[str, str],
        chunks: Iterable[Chunk],
        patience: Timeouts,
        limit: int,
    ) -> Response:
        """Send a body: chunked (RFC 9112, 7.1), unless a Content-Length is among the headers.

        Returns:
            The answer, with at most `limit` bytes of its body.

        Raises:
            httpx.TransportError: The exchange came to nothing.
        """
        origin = f"{url.scheme}://{url.netloc.decode()}"
        connection, target = self._connected(origin, url, patience)
        try:
            whole = _sent(connection, method, target, headers, chunks, patience)
            got = _answer(connection, patience.read if whole else min(patience.read, patience.grace))
            body = _read(got, limit, patience.write)
        except BaseException:
            connection.close()
            raise
        if whole and got.isclosed() and not got.will_close:
            self._idle.give(origin, connection)
        else:
            got.close()
            connection.close()
        return Response(got.status, httpx.Headers(got.getheaders()), body, url)

    def _connected(
        self, origin: str, url: httpx.URL, patience: Timeouts
    ) -> tuple[http.client.HTTPConnection, str]:
        """Return a connection, and the target to ask it for."""
        limits = Limits(connect=patience.connect, tls=self._tls)
        try:
            parts, target = urlsplit(str(url)), url.raw_path.decode()
            if self._direct:
                host, secure = parts.hostname or "", parts.scheme == "https"
                connection = unconnected(host, parts.port, limits, secure=secure)
            else:
                connection, target = connection_to(parts, target, limits)
        except (ValueError, http.client.HTTPException) as wrong:  # not said: a proxy's may hold a password
            raise httpx.ProxyError(f"an address that is not a URL ({type(wrong).__name__})") from None
        kept = self._idle.take(origin)
        if kept and not _is_readable(kept):
            return kept, target
        if kept:  # the other end has closed it
            kept.close()
        with _as_httpx(httpx.ConnectError, httpx.ConnectTimeout):
            connection.connect()
        self._sockets.add(connection.sock)
        return connection, target


def _sent(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    headers: Mapping[str, str],
    chunks: Iterable[Chunk],
    patience: Timeouts,
) -> bool:
    """Send a request; False when it went out in part only, which its answer may give the reason for."""
    connection.sock.settimeout(patience.write)
    with _as_httpx(httpx.WriteError, httpx.WriteTimeout):
        try:
            connection.putrequest(method, target)
            for name, value in headers.items():
                connection.putheader(name, value)
            if "Content-Length" not in headers:
                connection.putheader("Transfer-Encoding", "chunked")
                chunks = _framed(chunks)
            connection.endheaders()
            for chunk in chunks:
                connection.sock.sendall(chunk)
        except (BrokenPipeError, ConnectionResetError):
            return False
        except EndedEarlyError as ended:
            if "Content-Length" in headers:  # the other end would wait for the rest
                raise httpx.WriteError("ended early") from ended
            return False
    return True


def _framed(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """Yield a body in the chunked coding: between the lengths, each chunk as it is."""
    before = b""
    try:
        for chunk in chunks:
            yield b"%s%x\r\n" % (before, len(chunk))
            yield chunk
            before = b"\r\n"
    except EndedEarlyError:
        yield before + b"0\r\n\r\n"
        raise
    yield before + b"0\r\n\r\n"


def _answer(connection: http.client.HTTPConnection, seconds: float) -> http.client.HTTPResponse:
    connection.sock.settimeout(seconds)
    with _as_httpx(httpx.ReadError, httpx.ReadTimeout):
        return connection.getresponse()


def _read(answer: http.client.HTTPResponse, limit: int, seconds: float) -> bytes:
    body, deadline = bytearray(), time.monotonic() + seconds
    with _as_httpx(httpx.ReadError, httpx.ReadTimeout):
        while len(body) < limit and (piece := answer.read1(limit - len(body))):
            body += piece
            if time.monotonic() > deadline:
                raise TimeoutError("the answer did not come to its end")
    if answer.length == 0:  # `read1` does not notice that this was the end
        answer.close()
    return bytes(body)


@contextlib.contextmanager
def _as_httpx(failed: type[httpx.TransportError], late: type[httpx.TransportError]) -> Iterator[None]:
    """Raise what sockets and http.client raise as what httpx would."""
    try:
        yield
    except TimeoutError as error:
        raise late(str(error)) from error
    except (OSError, UnicodeError) as error:
        raise failed(str(error)) from error
    except http.client.HTTPException as error:
        raise httpx.RemoteProtocolError(str(error)) from error


def _is_readable(connection: http.client.HTTPConnection) -> bool:
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))
