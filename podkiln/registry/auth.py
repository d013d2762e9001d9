"""Answering a registry's challenges: basic, or a bearer token fetched for the scopes we need.

Sources: RFC 9110 section 11 (challenges), distribution/distribution docs/spec/auth/token.md (bearer tokens)
and oauth.md (trading an identity token).
"""

from __future__ import annotations

import base64
import contextlib
import logging
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from podkiln.errors import IntegrityError, RegistryError
from podkiln.oci import spec
from podkiln.registry.errors import words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from podkiln.registry.credentials import Credentials
    from podkiln.registry.http_client import Response

log = logging.getLogger(__name__)

_TOKEN: Final = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
_PARAMETER: Final = re.compile(
    r"""([\w!#$%&'*+.^`|~-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"?|([^\s,"]+))""", re.ASCII
)
_BETWEEN: Final = re.compile(r"[\s,]*")
_MOST_HEADER: Final = 8192  # characters of a challenge
_BEARER: Final = re.compile(r"[!-~]{1,65536}")  # a token as it can stand in a header
_LONGEST_LIFE: Final = 10**9  # seconds
_DEFAULT_LIFE: Final = 60  # seconds; token.md: "expires_in ... defaults to 60 seconds"
_REFUSED: Final = frozenset({400, 401, 403})  # by token services, for a login or a scope
_USED_LIFE: Final = 0.8  # of a token's life; what is left is for the request under way


@dataclass(frozen=True)
class Challenge:
    """One challenge of a WWW-Authenticate header (RFC 9110, 11.6.1)."""

    scheme: str
    parameters: dict[str, str]

    @classmethod
    def parse(cls, header: str) -> dict[str, Challenge]:
        """Read a header, which may hold several challenges; by scheme, those that we can answer.

        What stands before an `=` is a parameter, any other word a scheme; what is neither is passed over. Of
        several challenges of one scheme the first value of each parameter counts.
        """
        header, at = header[:_MOST_HEADER], 0
        found: dict[str, dict[str, str]] = {}
        parameters: dict[str, str] = {}
        while (between := _BETWEEN.match(header, at)) and (at := between.end()) < len(header):
            if match := _PARAMETER.match(header, at):
                value = re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
                parameters.setdefault(match[1].lower(), value)
            elif match := _TOKEN.match(header, at):
                parameters = found.setdefault(match[0].lower(), {})
            at = match.end() if match else at + 1
        return {scheme: cls(scheme, found[scheme]) for scheme in ("basic", "bearer") if scheme in found}


class Auth:
    """The Authorization header for one registry; several threads may share it.

    Args:
        host: The registry, as the user wrote it.
        scopes: What tokens are to allow: `repository:you/app:pull,push`; the first is required.
        login: Finds the user's login for a host.
        fetch: Speaks to the token service: (method, url, authorization, form) -> response, retried.
        plain_http: Whether a token service may be without TLS, as the registry itself is.
    """

    def __init__(
        self,
        host: str,
        scopes: Sequence[str],
        login: Callable[[str], Credentials | None],
        fetch: Callable[[str, str, str | None, bytes | None], Response],
        *,
        plain_http: bool,
    ) -> None:
        self._host = host
        self._scopes = scopes
        self._login = login
        self._fetch = fetch
        self.plain_http = plain_http
        self._lock = threading.Lock()
        self._header: str | None = None
        self._bearer: Challenge | None = None
        self._expires = float("inf")
        self._credentials: Credentials | None = None
        self._looked = False

    @property
    def logged_in(self) -> bool:
        """Whether a login of the user is in play."""
        return self._credentials is not None

    def header(self) -> str | None:
        """Return the header to send; a token near its end is renewed first."""
        with self._lock:
            if self._bearer and time.monotonic() > self._expires:
                self._fetch_token(self._bearer)
            return self._header

    def renew(self, challenge: str, sent: str | None) -> bool:
        """Find a new header after a 401; False when there is none worth sending."""
        with self._lock:
            if self._header != sent:  # another thread was faster
                return True
            challenges = Challenge.parse(challenge)
            bearer = challenges.get("bearer")
            if bearer and ("realm" in bearer.parameters or "basic" not in challenges):
                self._bearer = bearer
                self._fetch_token(bearer)
                return True
            if "basic" not in challenges or (sent is not None and not self._has_new_login()):
                return False
            found = self._find_login()
            if found is None or not found.username:
                return False
            self._header = _basic(found)
            return True

    def _find_login(self) -> Credentials | None:
        """Look up the login once; a pull goes on without one where the credential helper is broken."""
        if not self._looked:
            try:
                self._credentials = self._login(self._host)
            except RegistryError as failed:
                if any(scope.endswith("push") for scope in self._scopes):
                    raise
                log.warning("%s Going on without a login.", failed)
            self._looked = True
        return self._credentials

    def _has_new_login(self) -> bool:
        """Ask the credential helper again after a refusal: an upload may outlive its token (an hour)."""
        if self._credentials is None:
            return False
        with contextlib.suppress(RegistryError):
            before, self._credentials = self._credentials, self._login(self._host) or self._credentials
            return self._credentials != before
        return False

    def _fetch_token(self, challenge: Challenge) -> None:
        """Fetch a token; without the right to mount where the full scope is refused."""
        answer = self._ask_for_token(challenge)
        if answer.status in _REFUSED and self._has_new_login():
            answer = self._ask_for_token(challenge)
        if answer.status in _REFUSED and len(self._scopes) > 1:
            own, *others = self._scopes
            self._scopes = [own]
            answer = self._ask_for_token(challenge)
            if answer.status not in _REFUSED:
                names = ", ".join(each.split(":")[1] for each in others)
                log.info("Nothing is mounted from %s at %s: no right to read it.", names, self._host)
        self._take(answer)

    def _ask_for_token(self, challenge: Challenge) -> Response:
        realm = challenge.parameters.get("realm", "")
        if not realm.lower().startswith(("https://", "http://") if self.plain_http else "https://"):
            raise RegistryError(
                f"Registry {self._host} sends logins to {realm.partition('?')[0][:80]!r}, which is not https."
            )
        service = challenge.parameters.get("service", "")
        found = self._find_login()
        fields = [("service", service)] if service else []
        if found and found.identity_token:
            form = [*fields, ("scope", " ".join(self._scopes)), ("grant_type", "refresh_token")]
            form += [("client_id", "podkiln"), ("refresh_token", found.identity_token)]
            return self._fetch("POST", realm, None, urlencode(form, errors="replace").encode())
        query = urlencode(fields + [("scope", scope) for scope in self._scopes], errors="replace")
        url = f"{realm}{'&' if '?' in realm else '?'}{query}"
        return self._fetch("GET", url, _basic(found) if found else None, None)

    def _take(self, answer: Response) -> None:
        service = answer.host
        if answer.status != 200:  # noqa: PLR2004 - the only good answer, token.md
            who = "this login" if self._credentials else "anyone without a login"
            raise RegistryError(
                f"The token service {service} of registry {self._host} refuses {who} ({words(answer)}).",
                hint=f"Run `docker login {self._host}`.",
            )
        try:
            body = spec.parse_json(answer.body, "x")
        except IntegrityError:
            body = {}
        token = body.get("token") or body.get("access_token")
        if not isinstance(token, str) or not _BEARER.fullmatch(token):
            raise RegistryError(f"The token service {service} of registry {self._host} gave no token.")
        life = body.get("expires_in")
        life = life if isinstance(life, int | float) and 0 < life < _LONGEST_LIFE else _DEFAULT_LIFE
        self._expires = time.monotonic() + life * _USED_LIFE
        self._header = f"Bearer {token}"


def _basic(found: Credentials) -> str:
    return "Basic " + base64.b64encode(f"{found.username}:{found.password}".encode(errors="replace")).decode()
