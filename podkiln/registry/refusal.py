"""What registries say no with, and what networks do, each as one plain sentence."""

from __future__ import annotations

import json
import socket
import ssl
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

import httpx
from httpx import codes

from pod.printable import printable
from podkiln.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podkiln.registry.streaming import Answer

TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that may be another one a moment later."""

_LOST_CODES: Final = frozenset(
    {"BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "RANGE_INVALID", "SIZE_INVALID"}
)
_MAX_WAIT: Final = 120.0  # seconds; a Retry-After beyond it is cut to this

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

_NETWORK: Final[tuple[tuple[type[Exception], str], ...]] = (
    (socket.gaierror, "has a name that could not be resolved"),
    (ConnectionRefusedError, "refuses connections"),
    (httpx.ConnectTimeout, "did not take a connection in time"),
    (httpx.TimeoutException, "did not answer in time"),
    (httpx.RemoteProtocolError, "cut the connection"),
    (httpx.NetworkError, "cut the connection"),
)


class TransientError(RegistryError):
    """An exchange failed in a way that may pass; `wait` is what the registry asks for, in seconds."""

    def __init__(self, message: str, *, hint: str | None = None, wait: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.wait = wait


def refused(answer: Answer, host: str, doing: str, *, login: bool) -> RegistryError:
    """Return the error for an answer that is a no.

    Args:
        answer: What the registry said.
        host: Which registry, as the user wrote it.
        doing: What was asked of it, after "to": `push blob sha256:0123 to you/app`.
        login: Whether a login was sent with the question.
    """
    said = words(answer)
    if answer.status == codes.UNAUTHORIZED:
        verb = "does not let this login" if login else "wants a login to"
        return RegistryError(f"Registry {host} {verb} {doing} ({said}).", hint=f"Run `docker login {host}`.")
    otherwise = "failed" if answer.status in TRANSIENT else "answered what was not expected"
    meaning = _MEANING.get(answer.status, otherwise)
    message = f"Registry {host} was asked to {doing} and {meaning} ({said})."
    if answer.status in TRANSIENT:
        return TransientError(message, hint=_HINTS.get(answer.status), wait=retry_after(answer))
    return RegistryError(message, hint=_HINTS.get(answer.status))


def words(answer: Answer) -> str:
    """Return status, code and message of an answer, on one line."""
    error = _first_error(answer)
    detail = ": ".join(str(error[key]) for key in ("code", "message") if error.get(key))
    detail = printable(detail)
    return f"HTTP {answer.status}{' ' + detail if detail else ''}"


def is_lost_upload(answer: Answer) -> bool:
    """Tell whether an answer means that this upload cannot go on, though another one may."""
    if answer.status == codes.BAD_REQUEST:
        return str(_first_error(answer).get("code")) in _LOST_CODES
    return answer.status == codes.NOT_FOUND


def _first_error(answer: Answer) -> dict[str, Any]:
    """Return the first error of an answer's body (distribution-spec, Error Codes)."""
    try:
        first = json.loads(answer.body)["errors"][0]
    except (ValueError, LookupError, TypeError, RecursionError):
        return {}
    return first if isinstance(first, dict) else {}


def retry_after(answer: Answer) -> float | None:
    """Return for how many seconds an answer asks us to wait (RFC 9110, 10.2.3: seconds or a date)."""
    value = answer.headers.get("retry-after", "")
    if value.isdecimal():
        return min(float(value), _MAX_WAIT)
    try:
        then, now = parsedate_to_datetime(value), parsedate_to_datetime(answer.headers.get("date", ""))
        return min(max((then - now).total_seconds(), 0.0), _MAX_WAIT)
    except (ValueError, TypeError):
        return None


def unreachable(error: httpx.TransportError, host: str) -> RegistryError:
    """Return the error for an exchange that brought no answer."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return RegistryError(
                f"The certificate of {host} is not trusted: {cause.verify_message}.",
                hint="Give the CA that signed it with --ca-bundle FILE.",
            )
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            return RegistryError(
                f"{host} does not speak TLS as it should ({cause.reason or 'handshake failed'}).",
                hint="Only registries on this machine (localhost) are spoken to without TLS.",
            )
    for kind, what in _NETWORK:
        if any(isinstance(cause, kind) for cause in causes):
            return TransientError(f"{host} {what} ({causes[-1] or type(causes[-1]).__name__}).")
    return RegistryError(f"{host} could not be spoken to: {error}.")


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
