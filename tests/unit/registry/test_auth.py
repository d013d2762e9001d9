"""Challenges are read as RFC 9110 has them, and no login goes where it could be overheard."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from podkiln.credentials import Credentials
from podkiln.errors import RegistryError
from podkiln.registry.auth import Auth, Challenge
from podkiln.registry.streaming import Answer

URL = httpx.URL("https://auth.example/token")
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
        ('Basic realm="x", Bearer realm="y", error="invalid_token"',
         {"basic": {"realm": "x"}, "bearer": {"realm": "y", "error": "invalid_token"}}),
    ],
)  # fmt: skip
def test_challenges(header: str, schemes: dict[str, dict[str, str]]) -> None:
    found = Challenge.parse(header)
    assert {scheme: challenge.parameters for scheme, challenge in found.items()} == schemes


def auth(answer: Answer, *, plain_http: bool = False, asked: list[str] | None = None) -> Auth:
    def fetch(_method: str, url: str, authorization: str | None, _form: bytes | None) -> Answer:
        (asked if asked is not None else []).append(f"{url} {authorization}")
        return answer

    scopes = ["repository:you/app:pull,push", "repository:you/other:pull"]
    return Auth("registry.example", scopes, lambda _: Credentials("me", "pw"), fetch, plain_http=plain_http)


def test_a_token_is_fetched_for_the_scopes_we_need() -> None:
    asked: list[str] = []
    it = auth(Answer(200, {}, b'{"token":"t"}', URL), asked=asked)
    assert it.header() is None
    assert it.renew(BEARER, None)
    assert it.header() == "Bearer t"
    url, _, login = asked[0].partition(" ")
    assert login == "Basic bWU6cHc="
    assert parse_qs(urlsplit(url).query) == {
        "service": ["registry.example"],
        "scope": ["repository:you/app:pull,push", "repository:you/other:pull"],
    }


def test_one_renewal_serves_all_threads() -> None:
    asked: list[str] = []
    it = auth(Answer(200, {}, b'{"access_token":"t"}', URL), asked=asked)
    assert it.renew(BEARER, None)
    assert it.renew(BEARER, None)  # its request went out before the first renewal
    assert len(asked) == 1


def test_a_refused_password_is_not_sent_again() -> None:
    it = auth(Answer(200, {}, b"", URL))
    assert it.renew("Basic realm=x", None)
    assert it.header() == "Basic bWU6cHc="
    assert not it.renew("Basic realm=x", it.header())


@pytest.mark.parametrize("realm", ["http://auth.example/token", "ftp://x", "", "//x"])
def test_logins_are_not_sent_in_the_clear(realm: str) -> None:
    asked: list[str] = []
    it = auth(Answer(200, {}, b'{"token":"t"}', URL), asked=asked)
    with pytest.raises(RegistryError, match="which is not https"):
        it.renew(f'Bearer realm="{realm}"', None)
    assert asked == []


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"token":5}', b'{"token":"a\\r\\nb"}'])
def test_an_answer_without_a_token_is_one_sentence(body: bytes) -> None:
    with pytest.raises(
        RegistryError, match=r"token service auth.example of registry registry.example gave no"
    ):
        auth(Answer(200, {}, body, URL)).renew(BEARER, None)


def test_an_unknown_scheme_is_no_way_in() -> None:
    assert not auth(Answer(200, {}, b"", URL)).renew("Negotiate", None)
