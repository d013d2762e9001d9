"""HTTP/1.1 for registries: one request, and what comes back.

By http.client, since HTTP libraries frame a body by copying it, and copy again what a socket did not take at
once: for weights, which are hashed twice on the way, that is a sixth of the processor's time (measured with
httpx). Here bodies are sent from the memory that they lie in.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import re
import select
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from pod.net.connection_pool import ConnectionPool
from pod.net.http import TransientError as SlowError
from pod.net.proxies import PORTS, ProxyError, proxy_for
from podkiln.errors import RegistryError
from podkiln.registry import urls
from podkiln.registry.errors import ConnectError, EndlessAnswerError, ExchangeError
from podkiln.registry.timed_reader import LeastRate, TimedReader
from podkiln.registry.tls import is_local

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pod.net.proxies import Proxy
    from podkiln.oci.tar_layer import Chunk
    from podkiln.registry.cancellation import Cancellation

MAX_ANSWER_BYTES: Final = 8 << 20  # of answers that are no blob; manifests have at most 4 MiB

_MOST_HEAD: Final = 1 << 20  # bytes of a head, with those of the answers that only announce it

_USUAL: Final = {
    "User-Agent": "podkiln",
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "Connection": "keep-alive",
}
_FOLD: Final = re.compile(r"\r?\n[ \t]+")  # a header on several lines (RFC 9112, 5.2)


class EndedEarlyError(Exception):
    """Raised by a request's body that ends before its time; the answer to it matters little."""


@dataclass(frozen=True)
class HttpRequest:
    """A request.

    Attributes:
        method: HTTP method.
        url: Whole and canonical (podkiln.registry.urls).
        headers: Headers beside the usual ones.
        body: Bytes; or pieces as they come, in the chunked coding (RFC 9112, 7.1) unless a Content-Length is
            among the headers.
        timeout: Seconds to wait for the answer, if not the usual ones.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Iterable[Chunk] | None = None
    timeout: float | None = None

    @property
    def begins_upload(self) -> bool:
        """Whether it may leave an upload behind that only its answer names: it is not to be cut at once."""
        return self.method == "POST" or not (self.body is None or isinstance(self.body, bytes))


@dataclass(frozen=True)
class Timeouts:
    """Seconds to wait: for a connection, for bytes to be taken, for the answer; and after an early end."""

    connect: float
    write: float
    read: float
    grace: float


@dataclass(frozen=True)
class Response:
    """What came back, all of it. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str

    @property
    def host(self) -> str:
        """Host and port that answered."""
        return urls.place(self.url)

    @property
    def is_success(self) -> bool:
        """Whether the status is one of those that mean success (2xx)."""
        return http.client.OK <= self.status < http.client.MULTIPLE_CHOICES


class HttpClient:
    """The connections to a registry, and to where that sends us on; several threads may share it.

    Args:
        host: The registry. To one on this machine there is no proxy.
        tls: Whom to trust.
        cancellation: Ends requests from another thread.
    """

    def __init__(self, host: str, tls: ssl.SSLContext, cancellation: Cancellation) -> None:
        tls.set_alpn_protocols(["http/1.1"])
        self._tls = tls
        self._cancellation = cancellation
        self._direct = is_local(host)
        self._idle = ConnectionPool()

    def close(self) -> None:
        """Close idle connections."""
        self._idle.close()

    def send(self, request: HttpRequest, timeouts: Timeouts) -> Incoming:
        """Send a request, and give out its answer, whose body is still to come; to be closed.

        Raises ExchangeError; RegistryError for a proxy that cannot be used.
        """
        proxy = self._proxy(request.url)
        connection = self._connected(request.url, proxy, timeouts.connect)
        opened = connection.sock
        self._cancellation.watch(opened, graceful=request.begins_upload)
        try:
            complete = _send(connection, request, proxy, timeouts.write)
            wait = timeouts.read if complete else min(timeouts.read, timeouts.grace)
            response = _answer(connection, wait)
        except BaseException:
            connection.close()
            raise

        def end(*, reusable: bool) -> None:
            self._cancellation.release(opened)
            if reusable and complete:
                self._idle.give(urls.origin(request.url), connection)
            else:
                connection.close()

        return Incoming(request.url, response, end, timeouts.read)

    def _proxy(self, url: str) -> Proxy | None:
        """Return the proxy on the way to a URL. Raises RegistryError for one that cannot be used."""
        if self._direct:
            return None
        try:
            return proxy_for(urlsplit(url))
        except ProxyError as wrong:
            place = urls.place(url)
            raise RegistryError(
                f"{place} cannot be reached: {wrong}.", hint=f"Correct it, or name {place} in NO_PROXY."
            ) from None

    def _connected(self, url: str, proxy: Proxy | None, seconds: float) -> http.client.HTTPConnection:
        """Return an open connection: one that is idle, or a new one. Raises ConnectError."""
        kept = self._idle.take(urls.origin(url))
        if kept and not _is_readable(kept):
            return kept
        if kept:  # the other end has closed it
            kept.close()
        parts = urlsplit(url)
        host, secure = parts.hostname or "", parts.scheme == "https"
        port = parts.port or PORTS[parts.scheme]
        with _failing(ConnectError):
            connection = _Connection(*((proxy.host, proxy.port) if proxy else (host, port)), timeout=seconds)
            try:
                if proxy and secure:
                    connection.set_tunnel(host, port, proxy.headers)
                connection.connect()
                if secure:
                    connection.sock = self._tls.wrap_socket(connection.sock, server_hostname=host)
            except BaseException:
                connection.close()
                raise
        return connection


class Incoming:
    """An answer whose body is still to come. Names of headers are in lower case."""

    def __init__(self, url: str, response: _Response, end: Callable[..., None], seconds: float) -> None:
        self.url = url
        self.status = response.status
        self.headers = _headers(response.msg)
        self._response = response
        self._end: Callable[..., None] | None = end
        self._seconds = seconds  # for the next bytes of a body
        self._body: bytes | None = None

    def close(self) -> None:
        """Keep the connection for another request if the body was read to its end, else end it."""
        end, self._end = self._end, None
        if end:
            reusable = self._response.isclosed() and not self._response.will_close
            self._response.close()
            end(reusable=reusable)

    def read(self, limit: int, seconds: float) -> bytes:
        """Return the body, of a larger one the beginning; once more what was read. Raises ExchangeError."""
        if self._body is None:
            self._body = self._read(limit, seconds)
        return self._body

    def _read(self, limit: int, seconds: float) -> bytes:
        body, deadline = bytearray(), time.monotonic() + seconds
        self._response.timed.limit(seconds)
        with _failing(ExchangeError):
            while len(body) < limit and (piece := self._response.read1(limit - len(body))):
                body += piece
                if time.monotonic() > deadline:
                    raise EndlessAnswerError(f"{seconds:g} s")
            if len(body) < limit:
                self._refuse_cut()
        return bytes(body)

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the body in pieces of at most `size` bytes. Raises ExchangeError, for a trickle too."""
        rate = LeastRate(urls.place(self.url))
        while True:
            begun = time.monotonic()
            self._response.timed.limit(self._seconds)
            with _failing(ExchangeError):
                if not (piece := self._response.read1(size)):
                    self._refuse_cut()
                    return
                try:
                    rate.took(len(piece), time.monotonic() - begun)
                except SlowError as slow:
                    raise EndlessAnswerError(str(slow)) from None
            yield piece

    def _refuse_cut(self) -> None:
        """Raise ConnectionError where a body has ended before its time; `read1` and `readinto` do not."""
        if self._response.length:
            raise ConnectionAbortedError(f"{self._response.length} bytes before the end of an answer")
        self._response.close()  # `read1` does not notice that this was the end


class _Response(http.client.HTTPResponse):
    """An answer, past those that only announce it (RFC 9110, 15.2; http.client knows 100 alone)."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.timed = TimedReader(sock)
        self.timed.limit(sock.gettimeout() or 0, _MOST_HEAD)
        self.fp = io.BufferedReader(self.timed)

    def begin(self) -> None:
        super().begin()
        while http.client.CONTINUE <= self.status < http.client.OK:
            self.headers = None  # type: ignore[assignment]  # `begin` then reads the next one
            super().begin()


class _Connection(http.client.HTTPConnection):
    response_class = _Response


def _send(
    connection: http.client.HTTPConnection, request: HttpRequest, proxy: Proxy | None, seconds: float
) -> bool:
    """Send a request; False when it went out in part only, which its answer may give the reason for."""
    connection.sock.settimeout(seconds)
    headers = {"Host": urls.place(request.url), **_USUAL, **request.headers}
    target = request.url.removeprefix(urls.origin(request.url))
    if proxy and request.url.startswith("http://"):
        headers |= proxy.headers
        target = request.url
    chunks: Iterable[Chunk] = ()
    if isinstance(request.body, bytes):
        headers["Content-Length"] = str(len(request.body))
        chunks = (request.body,)
    elif request.body is not None:
        chunks = request.body
        if "Content-Length" not in headers:
            headers["Transfer-Encoding"] = "chunked"
            chunks = _framed(chunks)
    with _failing(ExchangeError):
        try:
            connection.putrequest(request.method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            for chunk in chunks:
                connection.sock.sendall(chunk)
        except (BrokenPipeError, ConnectionResetError):
            return False
        except EndedEarlyError as ended:
            if "Content-Length" in headers:  # the other end would wait for the rest
                raise ConnectionAbortedError("ended early") from ended
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


def _answer(connection: http.client.HTTPConnection, seconds: float) -> _Response:
    connection.sock.settimeout(seconds)
    with _failing(ExchangeError):
        response = connection.getresponse()
    assert isinstance(response, _Response)  # noqa: S101 - the connection's class of answers
    return response


def _headers(message: http.client.HTTPMessage) -> dict[str, str]:
    """Return headers by name in lower case; several of one name are one list (RFC 9110, 5.3)."""
    found: dict[str, str] = {}
    for name, value in message.items():
        key, text = name.lower(), _FOLD.sub(" ", value)
        with contextlib.suppress(UnicodeError):  # http.client takes all for Latin-1
            text = text.encode("latin-1").decode()
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


@contextlib.contextmanager
def _failing(kind: type[ExchangeError]) -> Iterator[None]:
    """Raise what sockets, TLS and http.client raise as one kind of error, with that as its cause."""
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: no host's name, no HTTP
        raise kind(str(error)) from error


def _is_readable(connection: http.client.HTTPConnection) -> bool:
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))
