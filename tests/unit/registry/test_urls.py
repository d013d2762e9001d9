"""Whatever a registry gives as a URL becomes one that can be compared and sent, or is refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podkiln.registry.urls import canonical, origin, place

BASE = "https://r.example/v2/a/"


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("HTTPS://R.Example:443", "https://r.example/"),
        ("http://r.example:80/x", "http://r.example/x"),
        ("http://r.example:443/x", "http://r.example:443/x"),
        ("https://[2001:DB8::1]:5000/x", "https://[2001:db8::1]:5000/x"),
        ("b c?d=e f%20g", "https://r.example/v2/a/b%20c?d=e%20f%20g"),
        ("../é?é", "https://r.example/v2/%C3%A9?%C3%A9"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("?sig=a%2Fb+c==&x=/:@", "https://r.example/v2/a/?sig=a%2Fb+c==&x=/:@"),
        ("https://me:pw@h.example/a;b=c/d,e?f#g", "https://h.example/a;b=c/d,e?f"),
    ],
)
def test_what_is_the_same_is_the_same_text(url: str, found: str) -> None:
    assert canonical(url, BASE) == found
    assert canonical(found) == found


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1",
        "http://h:x/",
        "http://h:99999/",
        "http://a b/",
        "/a\nb",
        "/a\x00",
        "/\ud800",
        "/" * 70_000,
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        canonical(url, BASE)


@settings(max_examples=300, deadline=5000)
@given(st.text(max_size=40) | st.from_regex(r"(https?:)?//[^/]{0,12}(:[0-9]{0,6})?/.{0,12}", fullmatch=True))
def test_any_text(text: str) -> None:
    try:
        found = canonical(text, BASE)
    except ValueError:
        return
    assert re.fullmatch(r"[!-~]*", found)
    assert "#" not in found
    assert "@" not in place(found)
    if found.startswith(("https://", "http://")):
        assert found.startswith(origin(found) + "/")
        assert canonical(found) == found
