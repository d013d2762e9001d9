"""What a registry says is told on one line; what it asks us to wait is waited."""

from __future__ import annotations

import httpx
import pytest

from podkiln.registry.refusal import retry_after, words
from podkiln.registry.streaming import Answer

URL = httpx.URL("https://registry.example/v2/")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"errors":[{"code":"DENIED","message":"no"}]}', "HTTP 403 DENIED: no"),
        (b'{"errors":[{"code":"DENIED"}]}', "HTTP 403 DENIED"),
        (b'{"errors":[{"message":"a\\nb\\u001b[31m"}]}', "HTTP 403 a\\nb\\x1b[31m"),
        (b'{"errors":[]}', "HTTP 403"),
        (b'{"errors":["x"]}', "HTTP 403"),
        (b'{"errors":null}', "HTTP 403"),
        (b"<html>", "HTTP 403"),
        (b"\xff", "HTTP 403"),
        (b"[" * 100_000, "HTTP 403"),
    ],
)
def test_words(body: bytes, said: str) -> None:
    assert words(Answer(403, {}, body, URL)) == said


def test_words_are_cut() -> None:
    long = b'{"errors":[{"message":"' + b"x" * 5000 + b'"}]}'
    assert len(words(Answer(403, {}, long, URL))) < 250


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "99999"}, 120),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "Fri, 21 Nov 2025 10:00:30 GMT", "date": "Fri, 21 Nov 2025 10:00:00 GMT"}, 30),
        ({"retry-after": "Fri, 21 Nov 2025 10:00:00 GMT", "date": "Fri, 21 Nov 2025 10:00:30 GMT"}, 0),
        ({"retry-after": "Fri, 21 Nov 2025 10:00:00 GMT"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(Answer(429, headers, b"", URL)) == seconds
