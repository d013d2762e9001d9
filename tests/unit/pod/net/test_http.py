"""Redirects, and who gets to see a token."""

from __future__ import annotations

from email.message import Message
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from servers.hub import Hub

from pod.net import http
from pod.net.http import Credential, Limits, RefusedError, TransientError, get, origin_of, public

if TYPE_CHECKING:
    from urllib.parse import SplitResult

CANARY = Credential("http://hub.test:80", "canary", "HF_TOKEN")


@pytest.fixture
def hops(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """Answer from a table of redirects instead of the network; records address and Authorization."""
    seen: list[tuple[str, str | None]] = []
    table = {
        "http://hub.test/to-cdn": "http://cdn.test/file?sig=1",
        "http://hub.test/relative": "/file",
        "http://hub.test/port": "http://hub.test:8080/file",
        "http://hub.test/there-and-back": "http://cdn.test/back",
        "http://cdn.test/back": "http://hub.test/file",
        "http://hub.test/suffix": "http://hub.test.evil.example/file",
        "http://hub.test/user": "http://hub.test@evil.example/file",
        "http://hub.test/loop": "/loop",
        "https://hub.test/down": "http://hub.test/file",
        "https://hub.test/DOWN": "HTTP://hub.test/file",
        "https://hub.test/Down": "hTTp:////hub.test/file",
        "https://hub.test/blank-down": " http://hub.test/file",
        "https://hub.test/tab-down": "ht\ttp://hub.test/file",
        "http://hub.test/bracket": "http://[::1",
        "http://hub.test/long-label": f"http://{'x' * 300}.test/",
        "http://hub.test/empty-label": "http://a..test/",
        "http://hub.test/far-port": "http://hub.test:99999999999/",
        "http://hub.test/digit-port": "http://hub.test:\u00b2/",
        "http://hub.test/nothing": "",
        "http://hub.test/letters": "http://cdn.test/\xe9?\xe9=\xe9&a b",
        "http://hub.test/file-scheme": "file:///etc/passwd",
        "http://hub.test/bad-port": "http://hub.test:x/",
    }

    class Connection:
        sock: object = None

        def __init__(self, url: str) -> None:
            self.url = url

        def connect(self) -> None:
            self.sock = self

        def settimeout(self, seconds: float) -> None:
            pass

        def close(self) -> None:
            pass

        def request(self, method: str, target: str, headers: dict[str, str]) -> None:
            seen.append((self.url, headers.get("Authorization")))

        def getresponse(self) -> object:
            headers = Message()
            status = 200
            if self.url in table:
                status, headers["Location"] = 302, table[self.url]
            return type("Response", (), {"status": status, "headers": headers, "close": self.close})

    monkeypatch.setattr(http, "connection_to", lambda parts, _proxy, _limits: Connection(parts.geturl()))
    return seen


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("to-cdn", [True, False]),
        ("relative", [True, True]),
        ("port", [True, False]),
        ("there-and-back", [True, False, True]),  # back at its own host is no leak
        ("suffix", [True, False]),
        ("user", [True, False]),
    ],
)
def test_a_token_is_sent_to_its_own_origin_only(
    hops: list[tuple[str, str | None]], path: str, expected: list[bool]
) -> None:
    get(f"http://hub.test/{path}", {}, CANARY, Limits())
    assert [authorization == "Bearer canary" for _, authorization in hops] == expected


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://hub.test/loop", "redirected in a loop"),
        ("https://hub.test/down", "redirected from https to http"),
        ("https://hub.test/DOWN", "redirected from https to http"),
        ("https://hub.test/Down", "redirected from https to http|no http or https address"),
        ("https://hub.test/blank-down", "redirected from https to http"),
        ("https://hub.test/tab-down", "redirected from https to http"),
        ("http://hub.test/bracket", "is redirected by hub.test to 'http://\\[::1', which is not an address"),
        ("http://hub.test/long-label", "no http or https address"),
        ("http://hub.test/empty-label", "no http or https address"),
        ("http://hub.test/far-port", "no http or https address"),
        ("http://hub.test/digit-port", "no http or https address"),
        ("http://hub.test/nothing", "redirected in a loop"),
        ("http://hub.test/file-scheme", "no http or https address"),
        ("http://hub.test/bad-port", "no http or https address"),
        ("ftp://hub.test/a", "no http or https address"),
        ("nonsense", "no http or https address"),
    ],
)
def test_redirects_that_are_not_followed(hops: list[tuple[str, str | None]], url: str, sentence: str) -> None:
    with pytest.raises(RefusedError, match=sentence):
        get(url, {}, CANARY, Limits())
    assert len(hops) <= http.MAX_REDIRECTS + 1


def test_the_hubs_headers_are_seen_through_the_redirect() -> None:
    with Hub() as hub:
        file = hub.add("org/repo", "a.safetensors", 2000)
        with get(f"{hub.url}/org/repo/resolve/main/a.safetensors", {}, None, Limits()) as answer:
            assert answer.first("X-Linked-Etag") == f'"{file.sha256}"'
            assert answer.headers["X-Linked-Etag"] is None
            assert answer.read(2000) == file.content


def test_a_body_that_does_not_end_is_refused() -> None:
    with Hub() as hub:
        hub.add_file("a", b"x" * 100_000)
        with get(f"{hub.url}/files/a", {}, None, Limits()) as answer, pytest.raises(RefusedError):
            answer.read(50_000)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "http://podkiln.invalid/"])
def test_what_cannot_be_reached_may_be_later(url: str) -> None:
    """A closed port, a name that does not resolve: no traceback, another try."""
    with pytest.raises(TransientError, match=r"127\.0\.0\.1: connection refused|podkiln\.invalid: the name"):
        get(url, {}, None, Limits(1, 1))


def test_a_proxy_from_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """And NO_PROXY is heard; the hub plays the proxy here, which gets the absolute address."""
    with Hub() as proxy:
        proxy.add_file("a", b"by proxy")
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        with get("http://hub.invalid/files/a", {}, None, Limits()) as answer:
            assert answer.read(100) == b"by proxy"
        assert [hit.path for hit in proxy.hits] == ["http://hub.invalid/files/a"]
        monkeypatch.setenv("no_proxy", "hub.invalid")
        with pytest.raises(TransientError, match="the name cannot be resolved"):
            get("http://hub.invalid/files/a", {}, None, Limits())


def test_a_proxy_is_shown_its_login_and_a_server_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """On plain http too: there it once got none, and those that ask for one refused everything."""
    shown: list[object] = []
    request = HTTPConnection.request

    def watched(self: HTTPConnection, method: str, target: str, *, headers: dict[str, str]) -> None:
        shown.append(headers.get("Proxy-Authorization"))
        request(self, method, target, headers=headers)

    monkeypatch.setattr(HTTPConnection, "request", watched)
    with Hub() as hub:
        hub.add_file("a", b"by proxy")
        monkeypatch.setenv("all_proxy", hub.url.replace("//", "//you:secret@"))
        for url, no_proxy in (("http://hub.invalid", ""), (hub.url, hub.url.partition("//")[2])):
            monkeypatch.setenv("no_proxy", no_proxy)
            with get(f"{url}/files/a", {}, None, Limits()) as answer:
                assert answer.read(100) == b"by proxy"
    assert shown == ["Basic eW91OnNlY3JldA==", None]


def test_a_files_public_address_has_no_login_and_no_query() -> None:
    assert public("https://user:pass@hub.test:8443/a/b?token=secret#x") == "https://hub.test:8443/a/b"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://hub.test", "https://HUB.test:443/a", True),
        ("https://hub.test", "http://hub.test", False),
        ("https://hub.test", "https://hub.test:8443", False),
        ("https://hub.test", "https://cdn.hub.test", False),
    ],
)
def test_origins(one: str, other: str, same: bool) -> None:
    assert (origin_of(one) == origin_of(other)) is same


def test_letters_of_any_kind_in_a_redirect_are_quoted(hops: list[tuple[str, str | None]]) -> None:
    """An address of another alphabet once ended in a UnicodeEncodeError."""
    get("http://hub.test/letters", {}, CANARY, Limits())
    assert [url for url, _ in hops] == ["http://hub.test/letters", "http://cdn.test/\xe9?\xe9=\xe9&a b"]


def test_a_query_of_any_alphabet_is_sent_quoted() -> None:
    with Hub() as hub:
        hub.add_file("a", b"x")
        with get(f"{hub.url}/files/a?\xe9=\u4e2d b", {}, None, Limits()) as answer:
            assert answer.read(10) == b"x"
        assert hub.hits[-1].path == "/files/a?%C3%A9=%E4%B8%AD%20b"


def test_a_proxy_that_is_none_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.test:many")
    with pytest.raises(RefusedError, match="HTTP_PROXY is not the address of a proxy"):
        get("http://hub.test/a", {}, None, Limits())


LOCATIONS = st.text(max_size=60) | st.builds(
    "".join,
    st.lists(
        st.sampled_from(
            ["http:", "HTTPS:", "//", "/", "[", "]", "::1", "@", ":", "99999", "a.b", "..", "?", "#", "%"]
        ),
        max_size=8,
    ),
)


@settings(max_examples=150, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(location=LOCATIONS)
@example(location="http://[::1")
@example(location="HTTP://hub.test/")
@example(location="//[")
@example(location="http://\u2488com/")
@example(location="http://a\x00b/")
def test_any_location_is_followed_or_refused(monkeypatch: pytest.MonkeyPatch, location: str) -> None:
    reached: list[str] = []

    class OverError(Exception):
        pass

    def connection_to(parts: SplitResult, _proxy: object, _limits: Limits) -> object:
        reached.append(parts.geturl())
        if len(reached) > 1:
            raise OverError
        answer: Any = type("Response", (), {"status": 302, "headers": {"Location": location}, "close": int})
        no: Any = type("Connection", (), {"connect": int, "close": int})
        monkeypatch.setattr(
            http, "_answer", lambda *_: http.Answer(302, answer.headers, [], "hub.test", answer, no, None)
        )
        return no

    monkeypatch.setattr(http, "connection_to", connection_to)
    try:
        get("https://hub.test/a", {}, None, Limits())
    except RefusedError as refused:
        said = str(refused)
    except OverError:
        said = ""
    assert "\n" not in said
    assert all(url.startswith("https://") for url in reached)
    public(location)


def test_an_address_whose_host_has_blanks_is_none() -> None:
    """A redirect to one once ended in http.client's InvalidURL."""
    with pytest.raises(RefusedError, match="has no http or https address"):
        get("http://a b/", {}, None, Limits())
