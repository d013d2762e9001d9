"""What headers say of the bytes that follow them, read strictly."""

from __future__ import annotations

from email.message import Message
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pod.net import content_range
from pod.net.http import RefusedError
from pod.resolve import hub_client

if TYPE_CHECKING:
    from pod.net.http import Answer


def answer(headers: dict[str, str], status: int = 206, linked: str | None = None) -> Answer:
    message = Message()
    for name, value in headers.items():
        message[name] = value
    return cast("Answer", SimpleNamespace(status=status, headers=message, first=lambda _: linked))


@pytest.mark.parametrize(
    ("headers", "size", "start"),
    [
        ({"Content-Range": "bytes 100-199/1000"}, 1000, 100),
        ({"Content-Range": "bytes 0-0/1"}, 1, 0),
        ({"Content-Range": "bytes 100-199/*"}, None, 100),
        ({"Content-Range": "nonsense"}, None, None),
        ({"Content-Length": "1000"}, None, None),
        ({"Content-Range": "bytes 0-1/" + "9" * 6000}, None, 0),
        ({"Content-Range": "bytes " + "9" * 6000 + "-1/2"}, 2, None),
        ({"Content-Range": "bytes 0-1/\u0662"}, None, None),
        ({"Content-Range": "bytes 0-1/2 and more"}, None, None),
    ],
)
def test_a_part_names_the_whole(headers: dict[str, str], size: int | None, start: int | None) -> None:
    """Content-Length is that of the part, which was not requested."""
    assert content_range.size(answer(headers)) == size
    assert content_range.start(answer(headers)) == start


@pytest.mark.parametrize(
    ("length", "size"),
    [
        ("1000", 1000),
        ("", None),
        ("-1", None),
        ("1e3", None),
        ("9" * 6000, None),
        ("\u00b2", None),
        ("\u0662", None),
        ("1_0", None),
    ],
)
def test_the_whole_has_a_length(length: str, size: int | None) -> None:
    assert content_range.size(answer({"Content-Length": length}, 200)) == size


@pytest.mark.parametrize(
    ("linked", "headers", "identity"),
    [
        ('"sha"', {"ETag": '"cdn"'}, 'linked:"sha"'),
        (None, {"ETag": '"cdn"', "Last-Modified": "then"}, '"cdn"'),
        (None, {"Last-Modified": "then"}, "then"),
        (None, {}, ""),
    ],
)
def test_the_hubs_own_hash_names_the_bytes_best(
    linked: str | None, headers: dict[str, str], identity: str
) -> None:
    assert content_range.identity(answer(headers, 200, linked)) == identity


def test_what_is_not_listed_is_refused_with_both_names() -> None:
    content_range.compare("5 bytes", "5 bytes")
    with pytest.raises(RefusedError, match="has 6 bytes at its source, but 5 bytes is listed"):
        content_range.compare("6 bytes", "5 bytes")


@settings(max_examples=200, deadline=500)
@given(value=st.text(max_size=80) | st.from_regex(r"bytes [0-9]*-[0-9]*/[0-9*]*", fullmatch=True))
@example(value="bytes 0-0/" + "9" * 6000)
@example(value="\u00b2")
@example(value="attachment; filename*0*=" + "9" * 5000)
@example(value='attachment; filename="a\\')
@example(value="attachment; filename*=no-such-charset''x")
@example(value="attachment; filename*" + "9" * 5000 + "=x")
def test_any_header_gives_a_value_or_nothing(value: str) -> None:
    headers = {"Content-Range": value, "Content-Length": value, "ETag": value}
    value = value.replace("\r", "").replace("\n", "")
    for status in (200, 206):
        found = answer(dict.fromkeys(headers, value), status)
        for read in (content_range.size, content_range.start):
            number = read(found)
            assert number is None or 0 <= number < 10**19
        content_range.identity(found)
    called = hub_client.called(value)
    assert called is None or isinstance(called, str)
