"""HTTP as registries need it: TLS, time limits, retries, redirects, and where Authorization may go.

One Transport speaks to one registry. Authorization is sent to the registry's own origin and to no other host,
whatever a Location or a redirect says; a https registry cannot send us on to plain http.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Final, NoReturn, Self, TypeVar

import httpx
from httpx import codes

from pod.net.retry import LONGEST_TOTAL, backoff_seconds
from podkiln.errors import RegistryError
from podkiln.oci.reference import DOCKER_HUB
from podkiln.registry.auth import Auth
from podkiln.registry.cancellation import SocketRegistry
from podkiln.registry.errors import TRANSIENT, Settling, TransientError, given_up, refused, unreachable
from podkiln.registry.http_client import AGENT, MAX_ANSWER_BYTES, open_client, read_body
from podkiln.registry.streaming_http import Response, StreamingConnection, Timeouts
from podkiln.registry.tls import is_local, local_context, speaks_tls, tls_context

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence

    from podkiln.oci.tar_layer import Chunk
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
_GONE: Final = frozenset({codes.NOT_FOUND, codes.GONE})
_MOVED: Final = frozenset({301, 302, 303, 307, 308})

# They log URLs and headers, and those of uploads and of redirects carry signatures.
for _chatty in ("httpx", "httpcore"):
    logging.getLogger(_chatty).setLevel(logging.WARNING)


class CancelledError(RegistryError):
    """Work given up because other work failed; never what a user sees."""


class Transport:
    """A connection pool to one registry; several threads may share it."""

    def __init__(self, host: str, scopes: Sequence[str], settings: RegistryOptions) -> None:
        self.host = host
        self.settings = settings
        self.cancelled = threading.Event()
        self._reached = False
        self._origin: httpx.URL | None = None
        self._finding = threading.Lock()
        lenient = settings.plain_http is None and is_local(host)
        tls = (local_context if lenient else tls_context)(host, settings.ca_bundle)
        # Those that delete are apart: what `cancel` ends may be in the middle of that.
        self._http, self._deleting = open_client(host, tls), open_client(host, tls)
        self._sockets, self._streams = SocketRegistry(), SocketRegistry()
        self._streaming = StreamingConnection(tls, self._streams, direct=is_local(host))
        self._grace = threading.Timer(_GRACE_SECONDS, self._streams.cut)
        self._grace.daemon = True
        self._once = threading.Lock()
        self._thread = threading.local()
        self.auth = Auth(host, scopes, settings.login, self._fetch_token, plain_http=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._grace.cancel()
        self._http.close()
        self._deleting.close()
        self._streaming.close()

    @property
    def origin(self) -> httpx.URL:
        """Scheme, host and port of the registry. One on this machine is asked first whether it speaks TLS."""
        with self._finding:
            if self._origin is None:
                plain = self.settings.plain_http
                if plain is None:
                    seconds = min(self.settings.timeout, _HANDSHAKE_SECONDS)
                    plain = is_local(self.host) and not speaks_tls(self.host, seconds)
                api = _HUB_API if self.host == DOCKER_HUB else self.host
                self.auth.plain_http = plain
                self._origin = httpx.URL(f"{'http' if plain else 'https'}://{api}")
            return self._origin

    def cancel(self) -> None:
        """End all requests, from another thread: each raises CancelledError. Only `drop` works from then on.

        Threads that send bodies end them early; the server gets a moment to answer.
        """
        if self._once.acquire(blocking=False):
            self.cancelled.set()
            self._sockets.cut()
            self._grace.start()

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

        def once() -> Response:
            answer = self._with_login(method, self.absolute(url), headers or {}, content, patience)
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
        target = self.absolute(url)
        sent = self._authorization(target)
        answer = self._send(method, target, headers, chunks, sent, patience)
        if self._renewed(answer, sent):
            raise TransientError(f"The login at {self.host} ran out during an upload.", wait=0)
        return answer

    def receive(self, url: str, offset: int, doing: str) -> Iterator[bytes]:
        """Yield the body of a GET from an offset on: one attempt, with login and redirects.

        Raises TransientError when it is cut: the caller knows where to go on.
        """
        target = self.absolute(url)
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        for _ in range(_REDIRECTS + 2):  # a renewed login takes one
            sent = self._authorization(target)
            with self._open("GET", target, headers, None, sent, None) as got:
                if got.status_code in (codes.OK, codes.PARTIAL_CONTENT):
                    yield from self._pieces(got, offset)
                    return
                answer = Response(
                    got.status_code, got.headers, read_body(got, self.host, self.settings.timeout), target
                )
            location = answer.headers.get("location")
            if answer.status in _MOVED and location:
                target = self.absolute(location, target)
            elif not self._renewed(answer, sent):
                self.refuse(answer, doing)
        raise RegistryError(f"Registry {self.host} redirects more than {_REDIRECTS} times.")

    def _pieces(self, response: httpx.Response, offset: int) -> Iterator[bytes]:
        """Yield a body from an offset on; a server may answer a range with all of it (RFC 9110, 14.2)."""
        skip = offset
        if response.status_code == codes.PARTIAL_CONTENT:
            skip, said = 0, response.headers.get("content-range", "")
            if not said.startswith(f"bytes {offset}-"):
                raise RegistryError(
                    f"Registry {self.host} was asked for byte {offset}, and answers {said[:80]!r}."
                )
        for chunk in response.iter_raw(_PIECE):
            self.refuse_cancelled()
            if len(chunk) > skip:
                yield chunk[skip:]
            skip = max(0, skip - len(chunk))

    def drop(self, url: str) -> bool:
        """Send a DELETE, after `cancel` too; tell whether what it names is gone. Takes some seconds."""
        self._thread.drops = True
        try:
            with contextlib.suppress(RegistryError):
                answer = self._with_login("DELETE", self.absolute(url), {}, None, _DROP_SECONDS)
                return answer.is_success or answer.status in _GONE
        finally:
            self._thread.drops = False
        return False

    def retrying(self, work: Callable[[], T]) -> T:
        """Do some work; do it again, after a pause that doubles, while it fails in a way that may pass.

        What still fails at the last attempt is a plain RegistryError: callers do not retry it.
        """
        failures = 0
        while True:
            try:
                return work()
            except TransientError as failure:
                failures += 1
                if failures >= self.settings.attempts:
                    raise given_up(failure) from failure
                self.pause(failures, failure)

    def pause(self, failures: int, failure: TransientError) -> None:
        """Wait before another attempt: as long as the registry asks for, else longer each time.

        Raises RegistryError where that would be more than is waited in all, CancelledError.
        """
        delay = failure.wait
        if delay is None:
            delay = backoff_seconds(failures, self.settings.backoff, _MAX_BACKOFF)
        if failures * delay > LONGEST_TOTAL:
            raise RegistryError(str(failure), hint=failure.hint) from failure
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

    def absolute(self, url: str, base: httpx.URL | None = None) -> httpx.URL:
        """Return a URL that the registry gave, made whole. Raises RegistryError for a bad one."""
        origin = self.origin
        try:
            # Neither a fragment nor a login belongs to what is asked for (RFC 9110, 7.1 and 4.2.4).
            target = (base or origin).join(url).copy_with(fragment=None, userinfo=b"")
        except (httpx.InvalidURL, ValueError, TypeError) as wrong:
            raise RegistryError(
                f"Registry {self.host} sent an address that is not a URL ({type(wrong).__name__})."
            ) from wrong
        if target.scheme not in ("https", origin.scheme) or not target.host:
            raise RegistryError(
                f"Registry {self.host} redirects to {target.scheme}://{target.host}, which is not https.",
                hint="A registry behind a TLS proxy must be told its public address (X-Forwarded-Proto).",
            )
        return target

    def _with_login(
        self,
        method: str,
        url: httpx.URL,
        headers: Mapping[str, str],
        content: bytes | None,
        patience: float | None,
    ) -> Response:
        for _ in range(_REDIRECTS + 1):
            sent = self._authorization(url)
            answer = self._exchange(method, url, headers, content, sent, patience)
            if self._renewed(answer, sent):
                answer = self._exchange(method, url, headers, content, self._authorization(url), patience)
            location = answer.headers.get("location")
            if method not in ("GET", "HEAD") or answer.status not in _MOVED or not location:
                return answer
            url = self.absolute(location, url)
        raise RegistryError(f"Registry {self.host} redirects more than {_REDIRECTS} times.")

    def _is_ours(self, url: httpx.URL) -> bool:
        return (url.scheme, url.host, url.port) == (self.origin.scheme, self.origin.host, self.origin.port)

    def _authorization(self, url: httpx.URL) -> str | None:
        return self.auth.header() if self._is_ours(url) else None

    def _renewed(self, answer: Response, sent: str | None) -> bool:
        """Tell whether a request is worth sending again because there is a new login for it."""
        if answer.status != codes.UNAUTHORIZED or not self._is_ours(answer.url):
            return False
        return self.auth.renew(answer.headers.get("www-authenticate", ""), sent)

    def _fetch_token(self, method: str, url: str, authorization: str | None, form: bytes | None) -> Response:
        kind = {"Content-Type": "application/x-www-form-urlencoded"} if form is not None else {}

        def once() -> Response:
            answer = self._exchange(method, self.absolute(url), kind, form, authorization, None)
            if answer.status in TRANSIENT:
                raise refused(answer, answer.host, "give a token", login=authorization is not None)
            return answer

        return self.retrying(once)

    def _exchange(
        self,
        method: str,
        url: httpx.URL,
        headers: Mapping[str, str],
        content: bytes | None,
        authorization: str | None,
        patience: float | None,
    ) -> Response:
        """Send one request and read its whole answer, within limits of time and size."""
        if method == "POST":  # it may begin an upload, which only its answer names: not to be cut at once
            body = content or b""
            headers = {**headers, "Content-Length": str(len(body))}
            return self._send(method, url, headers, (body,), authorization, patience)
        with self._open(method, url, headers, content, authorization, patience) as got:
            return Response(
                got.status_code, got.headers, read_body(got, self.host, self.settings.timeout), url
            )

    def _send(
        self,
        method: str,
        url: httpx.URL,
        headers: Mapping[str, str],
        chunks: Iterable[Chunk],
        authorization: str | None,
        patience: float | None,
    ) -> Response:
        """Send one request as its body comes; `cancel` leaves its answer a moment to come."""
        told = {**AGENT, **headers, **({"Authorization": authorization} if authorization else {})}
        seconds = self._timeout(patience)
        waits = Timeouts(seconds["connect"], seconds["write"], seconds["read"], _GRACE_SECONDS)
        with self._failing(url):
            answer = self._streaming.send(method, url, told, chunks, waits, MAX_ANSWER_BYTES + 1)
        self._reached = True
        if len(answer.body) > MAX_ANSWER_BYTES:
            raise RegistryError(f"Registry {self.host} answered with more than {MAX_ANSWER_BYTES} bytes.")
        return answer

    @contextlib.contextmanager
    def _open(
        self,
        method: str,
        url: httpx.URL,
        headers: Mapping[str, str],
        content: bytes | None,
        authorization: str | None,
        patience: float | None,
    ) -> Iterator[httpx.Response]:
        """Send one request and give out its answer while its body is still to come."""
        all_headers = {**headers, **({"Authorization": authorization} if authorization else {})}
        http, cut = (self._deleting, {}) if self._drops else (self._http, self._sockets.extensions)
        extensions = {"timeout": self._timeout(patience), **cut}
        request = http.build_request(method, url, headers=all_headers, content=content, extensions=extensions)
        with self._failing(url), contextlib.closing(http.send(request, stream=True)) as got:
            self._reached = True
            yield got

    @contextlib.contextmanager
    def _failing(self, url: httpx.URL) -> Iterator[None]:
        """Say what became of a request that brought no answer."""
        self.refuse_cancelled()
        try:
            yield
        except (UnicodeError, httpx.InvalidURL) as odd:  # a host's name that no resolver takes
            host = self.host if self._is_ours(url) else url.netloc.decode(errors="replace")[:200]
            raise RegistryError(f"{host} could not be reached ({type(odd).__name__}).") from odd
        except httpx.TransportError as failed:
            self.refuse_cancelled()
            error = unreachable(failed, self.host if self._is_ours(url) else url.netloc.decode())
            if isinstance(failed, httpx.ConnectError | httpx.ConnectTimeout) and not self._reached:
                # A first connection that fails is a wrong name more often than a bad moment: do not retry.
                raise RegistryError(str(error), hint=error.hint) from failed
            raise error from failed

    def _timeout(self, patience: float | None) -> dict[str, float]:
        read = _DROP_SECONDS if self._drops else patience or self.settings.timeout
        write = min(self.settings.timeout, read)
        return {"connect": min(write, _CONNECT_SECONDS), "write": write, "pool": write, "read": read}

    @property
    def _drops(self) -> bool:
        """Whether this thread is in `drop`, whose requests go out after `cancel` too."""
        return bool(getattr(self._thread, "drops", False))

    def refuse_cancelled(self) -> None:
        """Raise CancelledError after `cancel`."""
        if self.cancelled.is_set() and not self._drops:
            raise CancelledError("given up")
