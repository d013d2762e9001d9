"""Errors of registries and networks, each as one sentence."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from pod.net.response_head import UnfinishedError
from pod.net.retry import PASSING, asked_seconds
from pod.util.printable import printable, shown
from podkiln.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podkiln.registry.http_client import Response

TRANSIENT: Final = PASSING
"""Answers that may be another one a moment later."""

_LOST_CODES: Final = frozenset(
    {"BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "RANGE_INVALID", "SIZE_INVALID"}
)
_BLOB_UNKNOWN: Final = re.compile(r"BLOB_UNKNOWN|blob unknown|layers?.?not.?found", re.IGNORECASE)
_IMMUTABLE: Final = re.compile(r"immutab|already.?exists|overwrit", re.IGNORECASE)
_MOST_WORDS: Final = 2000  # characters of an error's message, or of a header, that are looked at
_MOST_BODY: Final = 256 << 10  # bytes of an answer that is an error; a larger one is a web page

_HINTS: Final = {
    403: "Ask for the right to; a token needs it in its scope (write:packages to push to GHCR).",
    404: "Check name and tag; at some registries (ECR, Artifactory) create the repository first.",
    405: "The registry is read-only, or a mirror.",
    409: "The tag may be immutable there: push under another one.",
    412: "The tag may be immutable there: push under another one.",
    413: "The limit is that of the registry or of a proxy before it; `plan` shows the size of each layer.",
    416: "This registry takes no single streamed upload of this size.",
    429: "Wait, log in, or lower the number of jobs.",
}
_MEANING: Final = {
    400: "calls the request malformed",
    403: "forbids it",
    404: "does not know it",
    405: "does not allow that",
    409: "sees a conflict with what it holds",
    412: "sees a conflict with what it holds",
    413: "says that it is too large",
    416: "does not take it in one piece",
    429: "says that there are too many requests",
}


class ExchangeError(Exception):
    """A request brought no answer: its cause is what a socket, TLS or http.client raised."""


class ConnectError(ExchangeError):
    """There was no connection to send it on."""


_NETWORK: Final[tuple[tuple[type[ExchangeError], type[Exception], str], ...]] = (
    (ExchangeError, socket.gaierror, "has a name that could not be resolved"),
    (ExchangeError, ConnectionRefusedError, "refuses connections"),
    (ExchangeError, UnfinishedError, "did not finish an answer in time"),
    (ConnectError, TimeoutError, "did not take a connection in time"),
    (ExchangeError, TimeoutError, "did not answer in time"),
    (ExchangeError, OSError, "cut the connection"),
    (ExchangeError, http.client.HTTPException, "cut the connection"),
)


class TransientError(RegistryError):
    """An exchange failed in a way that may pass; `wait` is what the registry asks for, in seconds."""

    def __init__(self, message: str, *, hint: str | None = None, wait: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.wait = wait


class UnsettledError(RegistryError):
    """A registry went on contradicting what it had confirmed in this run."""


class SettlingError(TransientError):
    """A registry contradicts what it has confirmed in this run: its machines may not all know of it yet."""


def given_up(failure: TransientError) -> RegistryError:
    """Return the error for what still fails at the last attempt: callers do not retry it."""
    kind = UnsettledError if isinstance(failure, SettlingError) else RegistryError
    return kind(str(failure), hint=failure.hint)


@dataclass(frozen=True)
class Settling:
    """Which answers contradict what a registry has confirmed, what they mean, and what is left to do."""

    when: Callable[[Response], bool]
    meaning: str
    hint: str

    def error(self, answer: Response, host: str, doing: str) -> SettlingError:
        """Return the error for such an answer."""
        what = f"Registry {host} was asked to {doing} and {self.meaning} ({words(answer)})."
        return SettlingError(what, hint=self.hint, wait=retry_after(answer))


def lacks_blob(answer: Response) -> bool:
    """Tell whether a manifest was refused because a blob of it is not known, or the repository is not."""
    if answer.status == HTTPStatus.NOT_FOUND:
        return True
    error = _first_error(answer)
    said = f"{error.get('code')} {error.get('message')}"
    return answer.status == HTTPStatus.BAD_REQUEST and bool(_BLOB_UNKNOWN.search(said[:_MOST_WORDS]))


def is_immutable(answer: Response) -> bool:
    """Tell whether a tag was refused because it is there and may not move (as ECR and Harbor say it)."""
    error = _first_error(answer)
    said = f"{error.get('code')} {error.get('message')}"
    return answer.status in (HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED) or bool(
        _IMMUTABLE.search(said[:_MOST_WORDS])
    )


def refuse_page(answer: Response, host: str, doing: str) -> None:
    """Raise RegistryError for a web page in the place of an answer."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "text/html" or answer.body[:64].lstrip()[:1] == b"<":
        raise RegistryError(
            f"Registry {host} was asked to {doing} and answered with a web page (HTTP {answer.status}).",
            hint="Is it a registry, or does a proxy or a login page stand before it?",
        )


def refused(answer: Response, host: str, doing: str, *, login: bool) -> RegistryError:
    """Return the error for a refusal.

    Args:
        answer: What the registry said.
        host: Which registry, as the user wrote it.
        doing: What was asked of it, after "to": `push blob sha256:0123 to you/app`.
        login: Whether a login was sent with the question.
    """
    said = words(answer)
    if answer.status == HTTPStatus.UNAUTHORIZED:
        verb = "does not let this login" if login else "requires a login to"
        return RegistryError(f"Registry {host} {verb} {doing} ({said}).", hint=f"Run `docker login {host}`.")
    otherwise = "failed" if answer.status in TRANSIENT else "gave an unexpected answer"
    meaning = _MEANING.get(answer.status, otherwise)
    message = f"Registry {host} was asked to {doing} and {meaning} ({said})."
    if answer.status in TRANSIENT:
        return TransientError(message, hint=_HINTS.get(answer.status), wait=retry_after(answer))
    return RegistryError(message, hint=_HINTS.get(answer.status))


def words(answer: Response) -> str:
    """Return status, code and message of an answer, on one line."""
    error = _first_error(answer)
    detail = ": ".join(error[key][:_MOST_WORDS] for key in ("code", "message") if error.get(key))
    detail = printable(detail)
    return f"HTTP {answer.status}{' ' + detail if detail else ''}"


def is_lost_upload(answer: Response) -> bool:
    """Tell whether an answer means that this upload cannot go on, though another one may."""
    if answer.status == HTTPStatus.BAD_REQUEST:
        return _first_error(answer).get("code") in _LOST_CODES
    return answer.status == HTTPStatus.NOT_FOUND


def _first_error(answer: Response) -> dict[str, str]:
    """Return the first error of an answer's body (distribution-spec, Error Codes): what of it is text."""
    if len(answer.body) > _MOST_BODY:
        return {}
    try:
        first = json.loads(answer.body)["errors"][0]
    except (ValueError, LookupError, TypeError, RecursionError):
        return {}
    fields = first.items() if isinstance(first, dict) else ()
    return {key: value for key, value in fields if isinstance(value, str)}


def retry_after(answer: Response) -> float | None:
    """Return for how many seconds an answer asks us to wait, by whichever header it says so."""
    return asked_seconds(answer.headers)


def unreachable(error: ExchangeError, host: str) -> RegistryError:
    """Return the error for an exchange that brought no answer."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return RegistryError(
                f"The certificate of {host} is not trusted: {cause.verify_message.rstrip('.')}.",
                hint="Give the CA that signed it with --ca-bundle FILE.",
            )
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            return RegistryError(
                f"{host} failed the TLS handshake ({cause.reason or 'handshake failed'}).",
                hint="podkiln speaks plain http only to registries on this machine (localhost).",
            )
    root = causes[-1]
    said = shown(root) or type(root).__name__
    by_proxy = type(root) is OSError and root.errno is None  # so http.client says that one refuses
    for kind, cause_kind, what in () if by_proxy else _NETWORK:
        if isinstance(error, kind) and any(isinstance(cause, cause_kind) for cause in causes):
            return TransientError(f"{host} {what} ({said}).")
    if isinstance(root, UnicodeError):  # a host's name that no resolver takes
        return RegistryError(f"{host} could not be reached ({type(root).__name__}).")
    return RegistryError(f"{host} could not be reached: {said}.")


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
