"""Whom `serve` lets in: tokens, pages of other sites, and how many requests a second."""

from __future__ import annotations

import hmac
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from worker.http_errors import HttpError
from worker.serve_settings import is_loopback

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest

    from worker.serve_settings import Settings

_BURST: Final = 2.0  # seconds whose requests may come at once


class Access:
    """Who may come in."""

    def __init__(self, settings: Settings) -> None:
        self._token = settings.token.encode() if settings.token else None
        self._loopback = settings.loopback
        self._rate = settings.rate
        self._left = _BURST * settings.rate
        self._counted = time.monotonic()

    def check(self, request: BaseRequest) -> None:
        """Let a request in. Raises HttpError."""
        self.check_origin(request)
        if self._token is not None and not self._is_known(request, self._token):
            raise HttpError(
                401,
                "The token is missing or wrong: send Authorization: Bearer API_TOKEN.",
                {"WWW-Authenticate": "Bearer"},
            )
        self._count()

    def check_origin(self, request: BaseRequest) -> None:
        """Refuse what a page of another site asks for (fetch.spec.whatwg.org). Raises HttpError.

        A browser can be made to send a request here by any page, and on a machine of its own it reaches what
        nobody else does. There a page may also have its own name lead here (DNS rebinding).
        """
        origin, host = request.headers.get("Origin"), request.headers.get("Host", "")
        foreign = origin is not None and _place(origin) != host.lower()
        if foreign or request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
            raise HttpError(403, "Pages of other sites may not ask this server.")
        if self._loopback and self._token is None and not is_loopback(_name(host)):
            raise HttpError(403, "Without a token this server is asked by localhost or 127.0.0.1 alone.")

    @staticmethod
    def _is_known(request: BaseRequest, token: bytes) -> bool:
        """Tell whether a request shows the token, in a time that says nothing of how much of it is right.

        X-API-Key: on RunPod its own key stands in Authorization. That may come without Bearer there.
        """
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        shown = given if kind.lower() == "bearer" else kind
        keys = (shown.strip(), request.headers.get("X-API-Key", ""))
        right = [hmac.compare_digest(key.encode("utf-8", "surrogateescape"), token) for key in keys]
        return any(right)

    def _count(self) -> None:
        now = time.monotonic()
        self._left = min(_BURST * self._rate, self._left + (now - self._counted) * self._rate)
        self._counted = now
        if self._left < 1:
            raise HttpError(
                429, "More requests come than are answered here: try again.", headers={"Retry-After": "1"}
            )
        self._left -= 1


def _place(origin: str) -> str:
    """Return the host and port of an origin; "/", which no Host is, for what is none."""
    try:
        return urlsplit(origin).netloc.lower() or "/"
    except ValueError:
        return "/"


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
