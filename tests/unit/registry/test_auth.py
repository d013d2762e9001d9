"""Challenges are read as RFC 9110 has them, and no login goes where it could be overheard."""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from podkiln.errors import RegistryError
from podkiln.registry.auth import Auth, Challenge
from podkiln.registry.credentials import Credentials
from podkiln.registry.http_client import Response

if TYPE_CHECKING:
    from collections.abc import Callable

URL = "https://auth.example/token"
BEARER = 'Bearer realm="https://auth.example/token",service="registry.example"'


@pytest.mark.parametrize(
    ("header", "schemes"),
    [
        ("", {}),
        ("Negotiate", {}),
        ('Basic realm="x"', {"basic": {"realm": "x"}}),
        ("BASIC realm=x", {"basic": {"realm": "x"}}),
        ('Bearer realm="https://a/t",service="s",scope="repository:a:pull,push"',
         {"bearer": {"realm": "https://a/t", "service": "s", "scope": "repository:a:pull,push"}}),
        (r'Bearer realm="a \"b\""', {"bearer": {"realm": 'a "b"'}}),
        ('bearer  realm = "y" ,service=s', {"bearer": {"realm": "y", "service": "s"}}),
        ("Bearer realm=https://a/t?x=1 service=s", {"bearer": {"realm": "https://a/t?x=1", "service": "s"}}),
        ('Bearer realm="https://a/t', {"bearer": {"realm": "https://a/t"}}),
        ('Bearer realm="a, Basic realm=b"', {"bearer": {"realm": "a, Basic realm=b"}}),
        ('Negotiate, NTLM abc==, Basic realm="x"', {"basic": {"realm": "x"}}),
        ('Digest realm="d", nonce="n", Basic realm="x"', {"basic": {"realm": "x"}}),
        ('Bearer realm="first", Bearer realm="second"', {"bearer": {"realm": "first"}}),
        (',, Bearer,realm="y" ;;; "', {"bearer": {"realm": "y"}}),
        ("Bearer", {"bearer": {}}),
        ('Basic realm="x", Bearer realm="y", error="invalid_token"',
         {"basic": {"realm": "x"}, "bearer": {"realm": "y", "error": "invalid_token"}}),
    ],
)  # fmt: skip
def test_challenges(header: str, schemes: dict[str, dict[str, str]]) -> None:
    found = Challenge.parse(header)
    assert {scheme: challenge.parameters for scheme, challenge in found.items()} == schemes


def auth(answer: Response, *, plain_http: bool = False, asked: list[str] | None = None) -> Auth:
    def fetch(_method: str, url: str, authorization: str | None, _form: bytes | None) -> Response:
        (asked if asked is not None else []).append(f"{url} {authorization}")
        return answer

    scopes = ["repository:you/app:pull,push", "repository:you/other:pull"]
    return Auth("registry.example", scopes, lambda _: Credentials("me", "pw"), fetch, plain_http=plain_http)


def test_a_token_is_fetched_for_the_scopes_we_need() -> None:
    asked: list[str] = []
    it = auth(Response(200, {}, b'{"token":"t"}', URL), asked=asked)
    assert it.header() is None
    assert it.renew(BEARER, None)
    assert it.header() == "Bearer t"
    url, _, login = asked[0].partition(" ")
    assert login == "Basic bWU6cHc="
    assert parse_qs(urlsplit(url).query) == {
        "service": ["registry.example"],
        "scope": ["repository:you/app:pull,push", "repository:you/other:pull"],
    }


def test_a_bearer_challenge_without_a_realm_leaves_the_password() -> None:
    it = auth(Response(200, {}, b"", URL))
    assert it.renew("Bearer, Basic realm=x", None)
    assert it.header() == "Basic bWU6cHc="


def test_a_realm_in_capitals_is_https_too() -> None:
    it = auth(Response(200, {}, b'{"token":"t"}', URL))
    assert it.renew('Bearer realm="HTTPS://AUTH.example/token"', None)


@pytest.mark.parametrize("life", ["-1", "0", "9" * 400, '"300"', "null", "true", "[]"])
def test_an_odd_life_of_a_token_is_the_usual_one(life: str) -> None:
    it = auth(Response(200, {}, b'{"token":"t","expires_in":%s}' % life.encode(), URL))
    assert it.renew(BEARER, None)
    assert 0 < it._expires - time.monotonic() <= 48


def test_one_renewal_serves_all_threads() -> None:
    asked: list[str] = []
    it = auth(Response(200, {}, b'{"access_token":"t"}', URL), asked=asked)
    assert it.renew(BEARER, None)
    assert it.renew(BEARER, None)  # its request went out before the first renewal
    assert len(asked) == 1


def test_a_refused_password_is_not_sent_again() -> None:
    it = auth(Response(200, {}, b"", URL))
    assert it.renew("Basic realm=x", None)
    assert it.header() == "Basic bWU6cHc="
    assert not it.renew("Basic realm=x", it.header())


@pytest.mark.parametrize("realm", ["http://auth.example/token", "ftp://x", "", "//x"])
def test_logins_are_not_sent_in_the_clear(realm: str) -> None:
    asked: list[str] = []
    it = auth(Response(200, {}, b'{"token":"t"}', URL), asked=asked)
    with pytest.raises(RegistryError, match="which is not https"):
        it.renew(f'Bearer realm="{realm}"', None)
    assert asked == []


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"token":5}', b'{"token":"a\\r\\nb"}'])
def test_an_answer_without_a_token_is_one_sentence(body: bytes) -> None:
    with pytest.raises(
        RegistryError, match=r"token service auth.example of registry registry.example gave no"
    ):
        auth(Response(200, {}, body, URL)).renew(BEARER, None)


def test_an_unknown_scheme_is_no_way_in() -> None:
    assert not auth(Response(200, {}, b"", URL)).renew("Negotiate", None)


def test_a_repository_that_may_not_be_read_costs_its_mounts_and_not_the_push(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Some token services refuse all scopes when they refuse one."""
    asked: list[list[str]] = []

    def fetch(_method: str, url: str, _authorization: str | None, _form: bytes | None) -> Response:
        asked.append(parse_qs(urlsplit(url).query)["scope"])
        return Response(403, {}, b"", URL) if len(asked[-1]) > 1 else Response(200, {}, b'{"token":"t"}', URL)

    own, other = "repository:you/app:pull,push", "repository:alice/app:pull"
    it = Auth("registry.example", [own, other], lambda _: Credentials("me", "pw"), fetch, plain_http=False)
    with caplog.at_level("INFO", "podkiln"):
        assert it.renew(BEARER, None)
        assert it.renew(BEARER, it.header())
    assert it.header() == "Bearer t"
    assert asked == [[own, other], [own], [own]]
    assert [record.message for record in caplog.records] == [
        "Nothing is mounted from alice/app at registry.example: no right to read it."
    ]


def helper(*passwords: str) -> Callable[[str], Credentials | None]:
    """A credential helper whose passwords run out."""
    left = list(passwords)
    return lambda _: Credentials("me", left.pop(0) if len(left) > 1 else left[0])


def test_a_login_that_has_run_out_is_looked_up_again() -> None:
    def fetch(_method: str, _url: str, authorization: str | None, _form: bytes | None) -> Response:
        sent.append(base64.b64decode((authorization or "").removeprefix("Basic ")).decode())
        good = sent[-1] == "me:new"
        return Response(200 if good else 401, {}, b'{"token":"t"}', URL)

    sent: list[str] = []
    it = Auth("registry.example", ["repository:a:pull"], helper("old", "new"), fetch, plain_http=False)
    assert it.renew(BEARER, None)
    assert sent == ["me:old", "me:new"]
    sent.clear()
    it = Auth("registry.example", ["repository:a:pull"], helper("old"), fetch, plain_http=False)
    with pytest.raises(RegistryError, match="refuses this login"):
        it.renew(BEARER, None)
    assert sent == ["me:old"]


def unasked(*_: object) -> Response:
    pytest.fail("there is no token service")


def test_a_password_that_has_run_out_is_looked_up_again() -> None:
    it = Auth("r.example", ["repository:a:pull"], helper("old", "new"), unasked, plain_http=False)
    assert it.renew("Basic realm=x", None)
    old = it.header()
    assert it.renew("Basic realm=x", old)
    assert it.header() == "Basic " + base64.b64encode(b"me:new").decode()
    assert not it.renew("Basic realm=x", it.header())
