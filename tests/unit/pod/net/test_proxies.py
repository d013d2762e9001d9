"""Which proxy stands on the way to an address: one rule for the pod and for the builder."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from pod.net.proxies import Proxy, ProxyError, proxy_for

ALL = "http://all.test:1"
PLAIN = "http://plain.test:2"
SECURE = "http://secure.test:3"
SOCKS = "socks5://me:s3cret@socks.test:4"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("url", "variables", "port"),
    [
        ("https://a.test/", {}, None),
        ("https://a.test/", {"ALL_PROXY": ALL}, 1),
        ("http://a.test/", {"all_proxy": ALL}, 1),
        ("http://a.test/", {"ALL_PROXY": ALL, "HTTP_PROXY": PLAIN}, 2),
        ("https://a.test/", {"ALL_PROXY": ALL, "HTTP_PROXY": PLAIN}, 1),
        ("https://a.test/", {"ALL_PROXY": SOCKS, "HTTPS_PROXY": SECURE}, 3),
        ("https://a.test/", {"HTTPS_PROXY": SECURE, "NO_PROXY": "b.test"}, 3),
        ("https://a.test/", {"HTTPS_PROXY": SECURE, "NO_PROXY": "a.test"}, None),
        ("https://sub.a.test/", {"HTTPS_PROXY": SECURE, "NO_PROXY": "b.test, .a.test"}, None),
        ("https://a.test:8443/", {"HTTPS_PROXY": SECURE, "NO_PROXY": "a.test:8443"}, None),
        ("https://a.test:9443/", {"HTTPS_PROXY": SECURE, "NO_PROXY": "a.test:8443"}, 3),
        ("https://a.test/", {"HTTPS_PROXY": SECURE, "NO_PROXY": "a.test:443"}, None),
        ("https://[::1]:8443/", {"HTTPS_PROXY": SECURE, "NO_PROXY": "::1"}, None),
        ("https://[::1]:8443/", {"HTTPS_PROXY": SECURE, "NO_PROXY": "[::1]"}, None),
        ("https://a.test/", {"HTTPS_PROXY": SECURE, "NO_PROXY": "b.test, *"}, None),
        ("https://a.test/", {"ALL_PROXY": SOCKS, "NO_PROXY": "a.test"}, None),
        ("https://a.test/", {"ALL_PROXY": SOCKS, "NO_PROXY": "*"}, None),
        ("https://you@a.test/", {"ALL_PROXY": SOCKS, "NO_PROXY": "a.test"}, None),
    ],
)
def test_which_proxy_is_used(
    url: str, variables: dict[str, str], port: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    proxy = proxy_for(urlsplit(url))
    assert (proxy.port if proxy else None) == port


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("p.test", Proxy("p.test", 80, {})),
        ("p.test:3128", Proxy("p.test", 3128, {})),
        ("//p.test:3128", Proxy("p.test", 3128, {})),
        ("HTTP://[::1]:3128/", Proxy("::1", 3128, {})),
        (
            "http://you:se%3Acret@p.test",
            Proxy("p.test", 80, {"Proxy-Authorization": "Basic eW91OnNlOmNyZXQ="}),
        ),
    ],
)
def test_how_a_proxy_is_written(text: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", text)
    assert proxy_for(urlsplit("http://a.test/")) == proxy


@pytest.mark.parametrize("text", [SOCKS, "me:s3cret@p.test:port", "https://p.test", "http://", "http://[p"])
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
def test_what_is_no_proxy_is_said_without_what_it_holds(
    text: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(ProxyError) as said:
        proxy_for(urlsplit("https://a.test/"))
    assert str(said.value) == f"{variable} is not the address of a proxy, http://HOST:PORT"
    assert said.value.__cause__ is None
    assert said.value.__suppress_context__
