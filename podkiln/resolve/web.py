"""One GET, with its failures as sentences."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from podkiln.resolve.answer import Found, RefusedError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

_SECONDS = 20.0


def get(url: str, headers: Mapping[str, str], *, body: bool = True) -> httpx.Response:
    """GET a small answer, or only its head. Raises UnreachableError when none comes, or only a `later`.

    Redirects are followed; httpx drops Authorization where one leaves the host.
    """
    import httpx  # noqa: PLC0415 - commands that ask nobody need not wait for it

    host = urlsplit(url).netloc
    try:
        with httpx.stream("GET", url, headers=headers, timeout=_SECONDS, follow_redirects=True) as answer:
            if body:
                answer.read()
    except (ImportError, ValueError) as wrong:  # what the proxy variables say is no proxy that httpx knows
        raise UnreachableError(
            host, f"the proxy of HTTPS_PROXY or ALL_PROXY cannot be used: {wrong}"
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL) as failed:
        raise UnreachableError(host, str(failed) or type(failed).__name__) from None
    if later(answer.status_code):
        raise UnreachableError(host, f"it answered {answer.status_code}")
    return answer


def later(status: int) -> bool:
    """Whether a status says nothing about what was asked, only that it cannot be answered now."""
    return status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS


def find(url: str) -> Found:
    """Return the size of a plain file. Raises UnreachableError, RefusedError.

    By a GET of its first byte: HEAD is refused by some that serve the file.
    """
    host = urlsplit(url).netloc
    answer = get(url, {"Range": "bytes=0-0", "Accept-Encoding": "identity"}, body=False)
    if answer.status_code == HTTPStatus.PARTIAL_CONTENT:
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
    elif answer.status_code == HTTPStatus.OK:
        total = answer.headers.get("Content-Length", "")
    else:
        raise RefusedError(f"{host} answered {answer.status_code}: the file is not there, or not public")
    if not total.isdigit():
        raise RefusedError(f"{host} does not tell the file's size: write it into the description")
    return Found(revision=None, size=int(total), sha256=None)
