"""HTTP as registries need it: TLS, time limits, retries, redirects, and where Authorization may go.

One Transport speaks to one registry. Authorization is sent to the registry's own origin and to no other host,
whatever a Location or a redirect says; a https registry cannot send us on to plain http.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NoReturn, Self, TypeVar
from urllib.parse import urlsplit

from pod.net.retry import Backoff
from podkiln.errors import RegistryError
from podkiln.oci.reference import DOCKER_HUB
from podkiln.registry import urls
from podkiln.registry.auth import Auth
from podkiln.registry.cancellation import Cancellation, CancelledError
from podkiln.registry.errors import (
    TRANSIENT,
    ConnectError,
    ExchangeError,
    Settling,
    TransientError,
    given_up,
    refused,
    unreachable,
)
from podkiln.registry.http_client import MAX_ANSWER_BYTES, HttpClient, HttpRequest, Response, Timeouts
from podkiln.registry.tls import is_local, local_context, speaks_tls, tls_context

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence

    from podkiln.oci.tar_layer import Chunk
    from podkiln.registry.incoming import Incoming
    from podkiln.registry.options import RegistryOptions

T = TypeVar("T")
log = logging.getLogger(__name__)

_HUB_API: Final = "registry-1.docker.io"
_REDIRECTS: Final = 5
_PIECE: Final = 1 << 20  # bytes of a blob in memory at once
_CONNECT_SECONDS: Final = 15.0
_HANDSHAKE_SECONDS: Final = 3.0
_DROP_SECONDS: Final = 5.0  # somebody may have pressed Ctrl-C and be waiting
_GRACE_SECONDS: Final = 3.0  # for the answer to a body that was ended early: it names what to delete
_MAX_BACKOFF: Final = 30.0
_SAID_SECONDS: Final = 5.0  # a wait as long as this is announced
_GONE: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
_MOVED: Final = frozenset({301, 302, 303, 307, 308})


class Transport:
    """A connection pool to one registry; several threads may share it."""

    def __init__(self, host: str, scopes: Sequence[str], settings: RegistryOptions) -> None:
        self.host = host
        self.settings = settings
        self._reached = False
        self._origin: str | None = None
        self._finding = threading.Lock()
        self._cancellation = Cancellation(_GRACE_SECONDS)
        self.cancelled = self._cancellation.event
        lenient = settings.plain_http is None and is_local(host)
        tls = (local_context if lenient else tls_context)(host, settings.ca_bundle)
        self._client = HttpClient(host, tls, self._cancellation)
        self.auth = Auth(host, scopes, settings.login, self._fetch_token, plain_http=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cancellation.close()
        self._client.close()

    @property
    def origin(self) -> str:
        """Scheme, host and port of the registry. One on this machine is asked first whether it speaks TLS."""
        with self._finding:
            if self._origin is None:
                plain = self.settings.plain_http
                if plain is None:
                    seconds = min(self.settings.timeout, _HANDSHAKE_SECONDS)
                    plain = is_local(self.host) and not speaks_tls(self.host, seconds)
                api = _HUB_API if self.host == DOCKER_HUB else self.host
                self.auth.plain_http = plain
                self._origin = urls.origin(urls.canonical(f"{'http' if plain else 'https'}://{api}"))
            return self._origin

    def cancel(self) -> None:
        """End all requests, from another thread: each raises CancelledError. Only `drop` works from then on.

        Threads that send bodies end them early; the server gets a moment to answer.
        """
        self._cancellation.cancel()

    def refuse_cancelled(self) -> None:
        """Raise CancelledError after `cancel`."""
        self._cancellation.refuse()

    def ask(
        self,
        method: str,
        url: str,
        doing: str,
        *,
        expect: Container[int],
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        patience: float | None = None,
        settling: Settling | None = None,
    ) -> Response:
        """Send a request, log in where asked, follow redirects, try again what may pass.

        Args:
            method: HTTP method.
            url: Path at the registry, or a whole URL that it gave.
            doing: For errors, after "to": `read manifest v1 of you/app`.
            expect: Statuses that are an answer; any other is a RegistryError.
            headers: Headers beside the usual ones.
            content: The body.
            patience: Seconds to wait for the answer, if not the usual ones.
            settling: Answers that contradict what was confirmed in this run, and so may pass.
        """
        request = HttpRequest(method, self.absolute(url), headers or {}, content, patience)

        def once() -> Response:
            answer = self._receive(self._answered(request))
            if settling and settling.when(answer):
                raise settling.error(answer, self.host, doing)
            if answer.status not in expect:
                self.refuse(answer, doing)
            return answer

        return self.retrying(once)

    def stream(
        self, method: str, url: str, headers: Mapping[str, str], chunks: Iterable[Chunk], patience: float
    ) -> Response:
        """Send a body that cannot be sent twice: one attempt, no redirects.

        A login that ran out is renewed and reported as TransientError: the caller knows where to go on.
        """
        request = self._authorized(HttpRequest(method, self.absolute(url), headers, chunks, patience))
        answer = self._receive(self._send(request))
        if self._renewed(answer, request):
            raise TransientError(f"The login at {self.host} ran out during an upload.", wait=0)
        return answer

    def receive(self, url: str, offset: int, doing: str) -> Iterator[bytes]:
        """Yield the body of a GET from an offset on: one attempt, with login and redirects.

        Raises TransientError when it is cut: the caller knows where to go on.
        """
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        incoming = self._answered(HttpRequest("GET", self.absolute(url), headers))
        if incoming.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            self.refuse(self._receive(incoming), doing)
        with contextlib.closing(incoming), self._failing(incoming.url):
            yield from self._pieces(incoming, offset)

    def _pieces(self, incoming: Incoming, offset: int) -> Iterator[bytes]:
        """Yield a body from an offset on; a server may answer a range with all of it (RFC 9110, 14.2)."""
        skip = offset
        if incoming.status == HTTPStatus.PARTIAL_CONTENT:
            skip, said = 0, incoming.headers.get("content-range", "")
            if not said.startswith(f"bytes {offset}-"):
                raise RegistryError(
                    f"Registry {self.host} was asked for byte {offset}, and answers {said[:80]!r}."
                )
        for chunk in incoming.pieces(_PIECE):
            self.refuse_cancelled()
            if len(chunk) > skip:
                yield chunk[skip:]
            skip = max(0, skip - len(chunk))

    def drop(self, url: str, *, stale: bool = False) -> bool:
        """Send a DELETE, after `cancel` too; tell whether what it names is gone. Takes some seconds.

        `stale`: the URL may be an old one, of which a registry knows nothing though what it named is there.
        """
        with self._cancellation.shield(), contextlib.suppress(RegistryError):
            answer = self._receive(self._answered(HttpRequest("DELETE", self.absolute(url))))
            return answer.is_success or (answer.status in _GONE and not stale)
        return False

    def retrying(self, work: Callable[[], T]) -> T:
        """Do some work; do it again, after a pause that doubles, while it fails in a way that may pass.

        What still fails at the last attempt is a plain RegistryError: callers do not retry it.
        """
        backoff = self.backoff()
        while True:
            try:
                return work()
            except TransientError as failure:
                self.pause(backoff, failure)

    def backoff(self) -> Backoff:
        """Return the waits between the attempts at one thing."""
        return Backoff(self.settings.attempts, self.settings.backoff, _MAX_BACKOFF)

    def pause(self, backoff: Backoff, failure: TransientError) -> None:
        """Wait before another attempt: as long as the registry asks for, else longer each time.

        Raises the failure as a plain RegistryError where there is to be no other attempt; CancelledError.
        """
        delay = backoff.failed(failure.wait)
        if delay is None:
            raise given_up(failure) from failure
        if delay >= _SAID_SECONDS:
            log.info("%s It is tried again in %.0f s.", failure, delay)
        if self.cancelled.wait(delay):
            raise CancelledError("given up")

    def refuse(self, answer: Response, doing: str) -> NoReturn:
        """Raise the error for a refusal."""
        raise self.refusal(answer, doing)

    def refusal(self, answer: Response, doing: str) -> RegistryError:
        """Return the error for an answer that is a no; its host is the one that gave it."""
        host = self.host if self._is_ours(answer.url) else answer.host
        return refused(answer, host, doing, login=self.auth.logged_in)

    def absolute(self, url: str, base: str | None = None) -> str:
        """Return a URL that the registry gave, made whole. Raises RegistryError for a bad one."""
        origin = self.origin
        try:
            target = urls.canonical(url, base or origin)
        except ValueError as wrong:
            raise RegistryError(
                f"Registry {self.host} sent an address that is not a URL ({type(wrong).__name__})."
            ) from wrong
        parts = urlsplit(target)
        if parts.scheme not in ("https", origin.partition(":")[0]) or not parts.hostname:
            raise RegistryError(
                f"Registry {self.host} redirects to {parts.scheme}://{parts.hostname or ''}, "
                "which is not https.",
                hint="A registry behind a TLS proxy must be told its public address (X-Forwarded-Proto).",
            )
        return target

    def _answered(self, request: HttpRequest) -> Incoming:
        """Send a request, log in where asked, follow redirects; return the answer, which is to be closed."""
        for _ in range(_REDIRECTS + 1):
            incoming = self._send(sent := self._authorized(request))
            if incoming.status == HTTPStatus.UNAUTHORIZED:
                answer = self._receive(incoming)
                if not self._renewed(answer, sent):
                    return incoming
                incoming = self._send(self._authorized(request))
            location = incoming.headers.get("location")
            if request.method not in ("GET", "HEAD") or incoming.status not in _MOVED or not location:
                return incoming
            url = self._receive(incoming).url
            request = replace(request, url=self._redirected(url, location))
        raise RegistryError(f"Registry {self.host} redirects more than {_REDIRECTS} times.")

    def _redirected(self, url: str, location: str) -> str:
        try:
            urls.canonical(location, url)
        except ValueError as wrong:
            raise RegistryError(f"{self._name_of(url)} redirects to an address that is not a URL.") from wrong
        return self.absolute(location, url)

    def _is_ours(self, url: str) -> bool:
        return urls.origin(url) == self.origin

    def _name_of(self, url: str) -> str:
        """Return a host as a user knows it: the registry as it was written, or where it sent us."""
        return self.host if self._is_ours(url) else urls.place(url)[:200]

    def _authorized(self, request: HttpRequest) -> HttpRequest:
        """Return a request with the login, if it goes to the registry itself."""
        header = self.auth.header() if self._is_ours(request.url) else None
        return replace(request, headers={**request.headers, "Authorization": header}) if header else request

    def _renewed(self, answer: Response, request: HttpRequest) -> bool:
        """Tell whether a request is worth sending again because there is a new login for it."""
        if answer.status != HTTPStatus.UNAUTHORIZED or not self._is_ours(answer.url):
            return False
        sent = request.headers.get("Authorization")
        return self.auth.renew(answer.headers.get("www-authenticate", ""), sent)

    def _fetch_token(self, method: str, url: str, authorization: str | None, form: bytes | None) -> Response:
        headers = {"Authorization": authorization} if authorization else {}
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        request = HttpRequest(method, self.absolute(url), headers, form)

        def once() -> Response:
            answer = self._receive(self._send(request))
            if answer.status in TRANSIENT:
                raise refused(answer, answer.host, "give a token", login=authorization is not None)
            return answer

        return self.retrying(once)

    def _send(self, request: HttpRequest) -> Incoming:
        """Send one request and return its answer, whose body is still to come; to be closed."""
        read = _DROP_SECONDS if self._cancellation.shields else request.timeout or self.settings.timeout
        write = min(self.settings.timeout, read)
        self.refuse_cancelled()
        with self._failing(request.url):
            timeouts = Timeouts(min(write, _CONNECT_SECONDS), write, read, _GRACE_SECONDS)
            incoming = self._client.send(request, timeouts)
        self._reached = True
        return incoming

    def _receive(self, incoming: Incoming) -> Response:
        """Read an answer to its end, within limits of time and size, and close it."""
        with contextlib.closing(incoming), self._failing(incoming.url):
            body = incoming.read(MAX_ANSWER_BYTES + 1, self.settings.timeout)
        if len(body) > MAX_ANSWER_BYTES:
            raise RegistryError(f"Registry {self.host} answered with more than {MAX_ANSWER_BYTES} bytes.")
        return Response(incoming.status, incoming.headers, body, incoming.url)

    @contextlib.contextmanager
    def _failing(self, url: str) -> Iterator[None]:
        """Say what became of a request that brought no answer."""
        try:
            yield
        except ExchangeError as failed:
            self.refuse_cancelled()
            error = unreachable(failed, self._name_of(url))
            if isinstance(failed, ConnectError) and not self._reached:
                # A first connection that fails is a wrong name more often than a bad moment: do not retry.
                raise RegistryError(str(error), hint=error.hint) from failed
            raise error from failed
