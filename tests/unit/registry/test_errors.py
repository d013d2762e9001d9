"""What a registry says is told on one line; what it asks us to wait is waited."""

from __future__ import annotations

import pytest

from podkiln.registry.errors import TransientError, refused, words
from podkiln.registry.http_client import Response

URL = "https://registry.example/v2/"


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
    assert words(Response(403, {}, body, URL)) == said


def test_words_are_cut() -> None:
    long = b'{"errors":[{"message":"' + b"x" * 5000 + b'"}]}'
    assert len(words(Response(403, {}, long, URL))) < 250


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "99999"}, 300),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "Fri, 21 Nov 2025 10:00:30 GMT", "date": "Fri, 21 Nov 2025 10:00:00 GMT"}, 30),
        ({"retry-after": "Fri, 21 Nov 2025 10:00:00 GMT", "date": "Fri, 21 Nov 2025 10:00:30 GMT"}, 0),
        ({"retry-after": "Fri, 21 Nov 2025 10:00:00 GMT"}, 0),
        ({"retry-after": "²"}, None),
        ({"ratelimit": '"pulls";r=0;t=42'}, 42),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "17"}, 17),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_what_a_registry_asks_to_wait_is_what_is_waited(
    status: int, headers: dict[str, str], seconds: float | None
) -> None:
    error = refused(Response(status, headers, b"", URL), "registry.example", "be asked", login=False)
    assert isinstance(error, TransientError)
    assert error.wait == seconds
