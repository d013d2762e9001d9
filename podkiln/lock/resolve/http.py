"""HTTP requests to hubs: limited in time and size, retried, with failures as sentences.

Requests, redirects, tokens and the rule of retries are the pod's own code (http.py, hubs.py and retry.py in
scripts/pod/net/): a token goes to the origin that it belongs to, and no other.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import threading
import zlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from pod.net.http import Answer, Limits, TransientError, get, public
from pod.net.http import RefusedError as NotFollowedError
from pod.net.hubs import Request
from pod.net.retry import LONGEST_TOTAL, PASSING, Backoff, asked_seconds
from pod.util.printable import shown
from podkiln.config import messages
from podkiln.config.model import LARGEST_FILE
from podkiln.lock import validation
from podkiln.lock.resolve.errors import FileMetadata, RefusedError, UnclearError, UnreachableError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping
    from email.message import Message
    from pathlib import Path

T = TypeVar("T")
log = logging.getLogger(__name__)

MOST_BYTES: Final = 8 << 20  # of an answer; the listing of ten thousand files has 4 MB
_SAID_SECONDS: Final = 5.0  # a wait as long as this is announced
_MISSES: Final = 5  # questions in a row that a host did not answer: then it is left alone
_GZIP: Final = 1 << 10  # bytes by which what is compressed may be larger
_AUTHORITIES: Final = ("SSL_CERT_FILE", "GIT_SSL_CAINFO")  # what uv and Python, and git, trust
_TOTAL: Final = re.compile(r"(?:bytes [0-9]+-[0-9]+/)?([0-9]{1,15})")


@dataclass(frozen=True)
class Patience:
    """How hosts are asked. Seconds, but for `tries`.

    Attributes:
        tries: For each question; fewer once a host has failed to answer one.
        first: Before the second try; doubled for each further one.
        longest: What it doubles up to.
        total: Waited for one host in a whole run.
        connect: Until there is a connection.
        read: Until the next byte.
        whole: Until the last byte.
    """

    tries: int = 4
    first: float = 0.5
    longest: float = 10.0
    total: float = LONGEST_TOTAL
    connect: float = 10.0
    read: float = 20.0
    whole: float = 60.0


PATIENCE: Final = Patience()


class Shape(BaseModel):
    """Base of what hosts answer: no coercion; unknown keys are allowed."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


S = TypeVar("S", bound=Shape)


@dataclass(frozen=True)
class Reply:
    """An answer, read to its end."""

    host: str
    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        """Return the JSON in it. Raises UnclearError."""
        try:
            return validation.parse(self.body)
        except ValueError as broken:
            what = "a web page instead of JSON" if self._is_page else f"invalid JSON ({broken})"
            raise UnclearError(f"{self.host} answered {self.status} with {what}") from None

    @property
    def _is_page(self) -> bool:
        return self.body[:64].lstrip().lower().startswith((b"<!doctype", b"<html"))


class _BusyError(TransientError):
    """The host can be reached, but does not answer this now."""


class _ElsewhereError(TransientError):
    """The host answers, by sending us to another that does not: that says nothing of its other answers."""


class Web:
    """The hosts that one run asks; those that do not answer are not asked for ever."""

    def __init__(self, patience: Patience | None = None) -> None:
        self._patience = patience or PATIENCE
        self._silent: dict[str, str] = {}
        self._misses: Counter[str] = Counter()
        self._misled: Counter[str] = Counter()  # by host: redirects to others that did not answer
        self._waited: dict[str, float] = defaultdict(float)
        self._never = threading.Event()  # waited on: Ctrl-C and SIGTERM end that at once

    def ask(
        self,
        request: Request,
        use: Callable[[Reply], T],
        *,
        most: int | None = MOST_BYTES,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """Ask, and give the answer to `use`; again, after a pause, while that may help.

        Args:
            request: What to ask, and with which token.
            use: Makes something of the answer. May raise UnclearError, after which it is asked again, and
                anything else, after which it is not.
            most: Bytes that an answer of 200 may have; None: only its head is read, as of all others.
            headers: Headers beside the usual ones.

        Raises UnreachableError, UnclearError.
        """
        host = urlsplit(request.url).netloc.rpartition("@")[2]
        if host in self._silent:
            raise UnreachableError(host, self._silent[host])
        backoff = self._backoff(host)
        while True:
            try:
                found = use(self._reply(request, host, most, headers or {}))
            except (TransientError, UnclearError) as failure:
                self._pause(host, backoff, failure)
            else:
                self._misses[host] = 0
                return found

    def size(self, url: str) -> FileMetadata:
        """Return the size of a plain file. Raises UnreachableError, UnclearError, RefusedError.

        By a GET of its first byte: HEAD is refused by some that serve the file.
        """
        return self.ask(Request(url, public(url)), _size, most=None, headers={"Range": "bytes=0-0"})

    def _backoff(self, host: str) -> Backoff:
        patience = self._patience
        tries = max(1, patience.tries >> self._misses[host])
        left = patience.total - self._waited[host]
        return Backoff(tries, patience.first, patience.longest, total=left)

    def _pause(self, host: str, backoff: Backoff, failure: TransientError | UnclearError) -> None:
        """Wait before the next try. Raises what to tell when there is to be none."""
        asked = failure.retry_after if isinstance(failure, TransientError) else None
        delay = backoff.failed(asked)
        if isinstance(failure, _ElsewhereError) and (delay is None or self._misled[host] >= _MISSES):
            self._misled[host] += 1
            raise UnreachableError(host, str(failure)) from None
        if delay is None:
            self._misses[host] += 1
            if isinstance(failure, UnclearError):
                raise failure
            unreachable = UnreachableError(host, str(failure))
            spent = backoff.failures < backoff.tries  # the budget of retries is used up
            if not isinstance(failure, _BusyError) or spent or self._misses[host] >= _MISSES:
                self._silent[host] = unreachable.why
            raise unreachable from None
        if delay >= _SAID_SECONDS:
            log.info("%s: %s; it is asked again in %.0f s.", host, failure, delay)
        self._waited[host] += delay
        self._never.wait(delay)

    def _reply(self, request: Request, host: str, most: int | None, headers: Mapping[str, str]) -> Reply:
        """Ask once. Raises TransientError, UnclearError; UnreachableError for what stays as it is."""
        limits = Limits(self._patience.connect, self._patience.read, _trust())
        try:
            answer = get(request.url, headers, request.credential, limits)
        except NotFollowedError as refused:
            raise UnreachableError(host, f"it {refused}") from None
        except ValueError as malformed:  # an address that a redirect or a proxy variable gives
            raise UnreachableError(host, f"an address on the way to it is malformed: {malformed}") from None
        except TransientError as failed:
            raise _judged(failed, urlsplit(request.url).hostname) from None
        with answer:
            if answer.status in PASSING:
                if answer.redirected:
                    raise _ElsewhereError(f"it redirects to {answer.host}, which answered {answer.status}")
                said = f"it answered {answer.status}{request.higher_limit(answer)}"
                raise _BusyError(said, retry_after=asked_seconds(answer.headers))
            wanted = most is not None and answer.status == HTTPStatus.OK
            try:
                body = self._body(answer, host, most or 0) if wanted else b""
            except TransientError as failed:
                failed.redirected = answer.redirected
                raise _judged(failed, urlsplit(request.url).hostname) from None
            return Reply(host, answer.status, answer.headers, body)

    def _body(self, answer: Answer, host: str, most: int) -> bytes:
        """Read a body to its end. Raises TransientError, UnclearError."""
        late = threading.Timer(self._patience.whole, answer.abort)
        late.daemon = True
        late.start()
        body, buffer = bytearray(), memoryview(bytearray(1 << 16))
        try:
            while count := answer.receive(buffer):
                body += buffer[:count]
                if len(body) > most + _GZIP:
                    raise UnclearError(f"{host} answered with more than {most} bytes")
        finally:
            late.cancel()
        if answer.response.length:
            raise TransientError(f"{answer.host}: the connection closed before the end of the answer")
        return _decoded(bytes(body), answer.headers.get("Content-Encoding", ""), host, most)


def _judged(failed: TransientError, asked: str | None) -> TransientError:
    """Tell what a failure says of the host that was asked: nothing, that it is busy, or that it is away."""
    if failed.redirected:
        return _ElsewhereError(f"it redirects to {failed}")
    said = str(failed).removeprefix(f"{asked}: ")
    return _BusyError(said) if failed.connected else TransientError(said)


def _decoded(body: bytes, coding: str, host: str, most: int) -> bytes:
    """Decode a Content-Encoding that was not requested. Raises UnclearError."""
    coding = coding.strip().lower()
    if coding in {"", "identity"}:
        if len(body) > most:
            raise UnclearError(f"{host} answered with more than {most} bytes")
        return body
    if coding not in {"gzip", "x-gzip"}:
        raise UnclearError(f"{host} answered in the encoding {shown(coding, 40)}, which was not requested")
    decoder = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        plain = decoder.decompress(body, most + 1)
    except zlib.error:
        raise UnclearError(f"{host} answered with damaged gzip") from None
    if len(plain) > most:
        raise UnclearError(f"{host} answered with more than {most} bytes")
    if not decoder.eof:
        raise UnclearError(f"{host} answered with gzip that breaks off")
    return plain


def checked(shape: type[S], data: Any, what: str) -> S:
    """Return data as a shape.

    Args:
        shape: What it must be.
        data: Parsed JSON.
        what: What it is, for the sentence: `huggingface.co: the listing of org/repo`.

    Raises UnclearError, with the first key that is not as it must be.
    """
    try:
        return shape.model_validate(data)
    except ValidationError as invalid:
        error = invalid.errors(include_url=False)[0]
        key = ".".join(map(str, error["loc"])).encode("unicode_escape", "backslashreplace").decode("ascii")
        # Without the advice to put it in quotes: it is a host's JSON, not the user's YAML.
        said = messages.sentence(error, shape, error["loc"]).partition("; ")[0].rstrip(".")
        raise UnclearError(f"{what} is malformed: {key[:80] or 'all of it'}: {said}") from None


def _size(reply: Reply) -> FileMetadata:
    if reply.status == HTTPStatus.PARTIAL_CONTENT:
        total = reply.headers.get("Content-Range", "")
    elif reply.status == HTTPStatus.OK:
        total = reply.headers.get("Content-Length", "")
    else:
        raise RefusedError(f"{reply.host} answered {reply.status}: the file is not there, or not public")
    if reply.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        total = ""  # the size of something else
    size = _TOTAL.fullmatch(total.strip())
    if size is None or not 0 < int(size[1]) <= LARGEST_FILE:
        raise RefusedError(f"{reply.host} does not give the file's size: write it into the description")
    return FileMetadata(revision=None, size=int(size[1]), sha256=None)


@contextlib.contextmanager
def trusting(ca_bundle: Path | None) -> Iterator[None]:
    """Trust a PEM file of authorities meanwhile, and have uv and git do so, as the steps of a build do."""
    before = {name: os.environ.get(name) for name in _AUTHORITIES} if ca_bundle else {}
    os.environ |= dict.fromkeys(before, str(ca_bundle and ca_bundle.resolve()))
    _trust.cache_clear()
    try:
        yield
    finally:
        _trust.cache_clear()
        for name, value in before.items():
            del os.environ[name]
            os.environ |= {name: value} if value is not None else {}


def limits() -> Limits:
    """Return how long one connection of such a question may take, and whom it trusts."""
    return Limits(PATIENCE.connect, PATIENCE.read, _trust())


@functools.cache
def _trust() -> ssl.SSLContext:
    from podkiln.registry.tls import tls_context  # noqa: PLC0415 - commands without network start faster

    return tls_context("", None)
