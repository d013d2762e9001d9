"""One GET; redirects are followed by hand, so that a token reaches the host it belongs to and no other."""

from __future__ import annotations

import contextlib
import functools
import http.client
import socket
import ssl
from typing import TYPE_CHECKING, Self
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from pod.errors import PodError
from pod.net.proxies import PORTS, ProxyError, proxy_for
from pod.net.response_head import TimedResponse
from pod.util.dataclass import dataclass, field
from pod.util.masking import masked
from pod.util.printable import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from email.message import Message

    from pod.net.connection_pool import ConnectionPool
    from pod.net.proxies import Proxy

FETCH_FAILED = 1
MAX_REDIRECTS = 5
USER_AGENT = "podkiln-fetch/1"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SHORT = 64 * 1024
_SHORT_SECONDS = 60.0  # for an answer that is read whole: what a hub says, the head of a file
_QUERY = "/?:@!$&'()*+,;=~-._%"  # RFC 3986, 3.4, and what is quoted already


class RefusedError(PodError):
    """Trying again would not help. The message continues a sentence that begins with the file's name."""

    def __init__(self, message: str) -> None:
        super().__init__(message, FETCH_FAILED)


class NotFoundError(RefusedError):
    """What was asked for is not there: its name is wrong, or it was removed."""


class TransientError(Exception):
    """It may work in a moment: a reset, a time-out, a server that is busy.

    `retry_after` is what the server asked for, in seconds; `busy` means that it asked us to slow down,
    `connected` that there was a connection, and `redirected` that another server is at fault than was asked.
    """

    def __init__(
        self, reason: str, *, retry_after: float | None = None, busy: bool = False, connected: bool = True
    ) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.busy = busy
        self.connected = connected
        self.redirected = False


@dataclass(frozen=True)
class Credential:
    """A token, the variable it came in, and the one origin (scheme, host, port) that may see it."""

    origin: str
    token: str = field(repr=False)
    variable: str


@dataclass(frozen=True)
class Limits:
    """Seconds to wait for a connection, and for an answer's head, then each byte; `tls`: other CAs.

    `idle` keeps connections for the next request; without it each request makes one of its own.
    """

    connect: float = 10.0
    read: float = 30.0
    tls: ssl.SSLContext | None = None
    idle: ConnectionPool | None = None


@dataclass(eq=False)
class Answer:
    """The last hop's response; `close` ends the connection, or keeps it when the body was read to its end."""

    status: int
    headers: Message
    hops: list[Message]
    host: str
    response: http.client.HTTPResponse
    connection: http.client.HTTPConnection
    sock: socket.socket | None
    keep: Callable[[http.client.HTTPConnection], None] | None = None
    redirected: bool = False  # to another server than was asked

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def first(self, name: str) -> str | None:
        """Return a header from the first hop that has it: the hub knows what its CDN does not."""
        return next((value for hop in self.hops if (value := hop[name]) is not None), None)

    def receive(self, buffer: memoryview) -> int:
        """Read what has come of the body, without waiting until the buffer is full; 0: there is no more.

        Raises TransientError as `readinto` does.
        """
        response = self.response
        if response.length is None or response.chunked or response.isclosed():
            return self.readinto(buffer)
        try:
            count = response.fp.readinto1(buffer[: response.length])
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise TransientError(f"{self.host}: {_plain(error)}") from None
        response.length -= count
        if not response.length:
            response.close()
        return count

    def readinto(self, buffer: memoryview) -> int:
        """Read as much of the body as the buffer holds; 0 means that there is no more.

        Raises TransientError when the connection breaks or nothing comes for Limits.read seconds.
        """
        try:
            return self.response.readinto(buffer)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise TransientError(f"{self.host}: {_plain(error)}") from None

    def read(self, limit: int) -> bytes:
        """Read the whole body, at most `limit` bytes. Raises TransientError, RefusedError."""
        self.hurry()
        body = bytearray()
        buffer = memoryview(bytearray(1 << 16))
        while count := self.readinto(buffer):
            body += buffer[:count]
            if len(body) > limit:
                raise RefusedError(f"cannot be resolved: {self.host} does not stop answering")
        return bytes(body)

    def hurry(self, seconds: float | None = None) -> None:
        """Let the rest of the body come soon, or not at all: each byte that comes would buy more time."""
        if isinstance(self.response, TimedResponse):
            self.response.timed.limit(_SHORT_SECONDS if seconds is None else seconds)

    def drain(self) -> None:
        """Read and drop a short body, so that the connection can be reused."""
        if self.keep and self.response.length is not None and self.response.length <= _SHORT:
            self.hurry()
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                self.response.read()

    def abort(self) -> None:
        """End a blocked read of this response from another thread."""
        if self.sock is not None:
            with contextlib.suppress(OSError):  # closed already, which is as good
                self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Keep the connection for the next request when the body was read to its end, else end it."""
        complete = self.keep and self.response.isclosed() and not self.response.will_close
        self.response.close()
        if self.keep and complete:
            self.keep(self.connection)
        else:
            self.connection.close()


def origin_of(url: str) -> str:
    """Return scheme, host and port in one canonical form."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return f"{scheme}://{(parts.hostname or '').lower()}:{parts.port or PORTS.get(scheme, 0)}"


def public(url: str) -> str:
    """Return the address of the same file without login, query and fragment, where secrets travel."""
    try:
        parts = urlsplit(masked(url))
    except ValueError:  # brackets that do not close
        return "a malformed address"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def get(url: str, headers: Mapping[str, str], credential: Credential | None, limits: Limits) -> Answer:
    """Send GET, following redirects; any status that is not a redirect is returned, not raised.

    Raises TransientError for what a later try may cure, RefusedError for what it may not.
    """
    hops: list[Message] = []
    first = url
    for _ in range(MAX_REDIRECTS + 1):
        try:
            answer = _hop(url, headers, credential, limits)
        except TransientError as failed:
            failed.redirected = bool(hops) and origin_of(url) != origin_of(first)
            raise
        hops.append(answer.headers)
        if answer.status not in _REDIRECTS:
            answer.hops = hops
            answer.redirected = len(hops) > 1 and origin_of(url) != origin_of(first)
            return answer
        answer.drain()
        answer.close()
        url = _redirected(url, answer)
    raise RefusedError(f"is redirected in a loop, last to {shown(url)}")


def _redirected(url: str, answer: Answer) -> str:
    """Return the address that an answer redirects to. Raises RefusedError."""
    location = answer.headers["Location"] or ""
    try:
        target = urlsplit(urljoin(url, location))
    except ValueError:  # brackets that do not close
        raise RefusedError(
            f"is redirected by {answer.host} to {shown(location.partition('?')[0], 80)!r}, "
            "which is not an address; correct its source"
        ) from None
    if urlsplit(url).scheme == "https" and target.scheme == "http":  # both in lower case here
        raise RefusedError(f"is redirected from https to http by {answer.host}, which is not followed")
    return str(target.geturl())


def _host(parts: SplitResult) -> bytes:
    """Return the host of an address as it is asked for. Raises ValueError for none that can be."""
    host = (parts.hostname or "").encode("idna")
    if any(byte <= ord(" ") for byte in host):
        raise ValueError("a host has no blanks")
    return host


def _hop(url: str, headers: Mapping[str, str], credential: Credential | None, limits: Limits) -> Answer:
    try:
        parts = urlsplit(url)
        origin = origin_of(url)
        host = _host(parts)
    except ValueError:  # an invalid port, unclosed brackets, an impossible host name
        raise RefusedError(f"has no http or https address: {shown(url)}") from None
    if parts.scheme not in PORTS or not host:
        raise RefusedError(f"has no http or https address: {shown(url)}")
    sent = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers}
    if credential and credential.origin == origin:
        sent["Authorization"] = f"Bearer {credential.token}"
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._") + (
        f"?{quote(parts.query, safe=_QUERY)}" if parts.query else ""
    )
    proxy = _proxy(parts)
    if proxy and parts.scheme == "http":
        sent |= proxy.headers
        target = f"http://{parts.netloc.rpartition('@')[2]}{target}"
    connection = connection_to(parts, proxy, limits)
    connection.response_class = TimedResponse
    if kept := limits.idle.take(origin) if limits.idle else None:
        try:
            return _answer(kept, origin, target, sent, limits)
        except TimeoutError as error:
            kept.close()
            raise TransientError(f"{parts.hostname}: {_plain(error)}") from None
        except (OSError, http.client.HTTPException, ValueError):
            kept.close()  # the server closed the idle connection; a new one may work
    connected = False
    try:
        connection.connect()
        connected = True
        return _answer(connection, origin, target, sent, limits)
    except ssl.SSLCertVerificationError as error:
        connection.close()
        raise RefusedError(
            f"is not fetched: the certificate of {parts.hostname} is not trusted ({error.verify_message}); "
            "behind a company proxy, set SSL_CERT_FILE to its CA bundle"
        ) from None
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: not HTTP
        connection.close()
        raise TransientError(f"{parts.hostname}: {_plain(error)}", connected=connected) from None


def _proxy(parts: SplitResult) -> Proxy | None:
    try:
        return proxy_for(parts)
    except ProxyError as wrong:
        raise RefusedError(f"is not fetched: {wrong}; correct it") from None


def _answer(
    connection: http.client.HTTPConnection,
    origin: str,
    target: str,
    headers: Mapping[str, str],
    limits: Limits,
) -> Answer:
    """Ask on an open connection. Raises OSError, HTTPException."""
    sock = connection.sock
    sock.settimeout(limits.read)
    connection.request("GET", target, headers=dict(headers))
    response = connection.getresponse()
    keep = functools.partial(limits.idle.give, origin) if limits.idle else None
    host = urlsplit(origin).hostname or ""
    return Answer(response.status, response.headers, [], host, response, connection, sock, keep)


def connection_to(parts: SplitResult, proxy: Proxy | None, limits: Limits) -> http.client.HTTPConnection:
    """Return a connection that is still to be made, through a proxy where there is one."""
    secure = parts.scheme == "https"
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    if proxy is None:
        return unconnected(host, port, limits, secure=secure)
    connection = unconnected(proxy.host, proxy.port, limits, secure=secure)
    if secure:
        connection.set_tunnel(host, port, proxy.headers)
    return connection


def unconnected(host: str, port: int | None, limits: Limits, *, secure: bool) -> http.client.HTTPConnection:
    """Return a connection that is still to be made, past all proxies."""
    if secure:
        tls = limits.tls or _trust()
        return http.client.HTTPSConnection(host, port, timeout=limits.connect, context=tls)
    return http.client.HTTPConnection(host, port, timeout=limits.connect)


@functools.cache
def _trust() -> ssl.SSLContext:
    """Load the trusted authorities (SSL_CERT_FILE's, if set) once: that takes longer than a handshake."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _plain(error: Exception) -> str:
    """Say in a few words what happened on a connection."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return f"the name cannot be resolved ({error.strerror})"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection closed before the end"
    if isinstance(error, http.client.RemoteDisconnected | ConnectionResetError | BrokenPipeError):
        return "the connection was reset"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return type(error).__name__
