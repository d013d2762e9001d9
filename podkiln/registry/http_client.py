"""HTTP/1.1 for registries: one request, and what comes back.

By http.client, since HTTP libraries frame a body by copying it, and copy again what a socket did not take at
once: for weights, which are hashed twice on the way, that is a sixth of the processor's time (measured with
httpx). Here bodies are sent from the memory that they lie in.
"""

from __future__ import annotations

import http.client
import select
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from pod.net.connection_pool import ConnectionPool
from pod.net.proxies import PORTS, ProxyError, proxy_for
from pod.net.response_head import TimedResponse
from podkiln.errors import RegistryError
from podkiln.registry import urls
from podkiln.registry.errors import ConnectError, ExchangeError
from podkiln.registry.incoming import Incoming, failing
from podkiln.registry.tls import is_local

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Iterator, Mapping

    from pod.net.proxies import Proxy
    from podkiln.oci.tar_layer import Chunk
    from podkiln.registry.cancellation import Cancellation

MAX_ANSWER_BYTES: Final = 8 << 20  # of answers that are no blob; manifests have at most 4 MiB

_USUAL: Final = {
    "User-Agent": "podkiln",
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "Connection": "keep-alive",
}


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
        with failing(ConnectError):
            place = (proxy.host, proxy.port) if proxy else (host, port)
            connection = http.client.HTTPConnection(*place, timeout=seconds)
            try:
                connection.response_class = TimedResponse
                if proxy and secure:
                    connection.set_tunnel(host, port, proxy.headers)
                connection.connect()
                if secure:
                    connection.sock = self._tls.wrap_socket(connection.sock, server_hostname=host)
            except BaseException:
                connection.close()
                raise
        return connection


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
    with failing(ExchangeError):
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


def _answer(connection: http.client.HTTPConnection, seconds: float) -> TimedResponse:
    connection.sock.settimeout(seconds)
    with failing(ExchangeError):
        response = connection.getresponse()
    assert isinstance(response, TimedResponse)  # noqa: S101 - the connection's class of answers
    return response


def _is_readable(connection: http.client.HTTPConnection) -> bool:
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))
