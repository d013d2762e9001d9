"""When to try again: what servers ask for in any of their headers, and waits that are bounded."""

from __future__ import annotations

import time
from email.message import Message
from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pod.net.retry import LONGEST_WAIT, Backoff, asked_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = (
    "date",
    "retry-after",
    "ratelimit",
    "ratelimit-reset",
    "ratelimit-remaining",
    "x-ratelimit-reset",
    "x-ratelimit-remaining",
    "x-rate-limit-reset",
)
NOW = "Fri, 21 Nov 2025 10:00:00 GMT"
THEN = 1763719200  # the same moment


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        # Retry-After
        ({"retry-after": "0"}, 0),
        ({"retry-after": " 120 "}, 120),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "86400"}, 300),
        ({"retry-after": "9" * 4000}, None),  # no number that anybody means
        ({"retry-after": "²"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"date": NOW, "retry-after": "Fri, 21 Nov 2025 10:00:50 GMT"}, 50),
        ({"date": NOW, "retry-after": "Fri, 21 Nov 2025 11:00:30 +0100"}, 30),
        ({"date": NOW, "retry-after": "Fri, 21 Nov 2025 10:00:30 -0000"}, 30),
        ({"date": NOW, "retry-after": "Fri, 21 Nov 2025 09:00:00 GMT"}, 0),
        ({"date": "yesterday", "retry-after": "Fri, 21 Nov 2025 10:00:50 GMT"}, 0),
        # RateLimit, draft 10: Hugging Face
        ({"ratelimit": '"api";r=0;t=240'}, 240),
        ({"ratelimit": '"api";r=0;t=100000'}, 300),
        ({"ratelimit": '"api|pages, all; t=9";r=0;t=240'}, 240),
        ({"ratelimit": '"api";t=240;r=0'}, 240),
        ({"ratelimit": '"api"; r=0; t=240'}, 240),
        ({"ratelimit": "api;r=0;t=240"}, 240),
        ({"ratelimit": '"burst";r=9;t=290, "api";r=0;t=30, "day";r=0;t=60'}, 60),
        ({"ratelimit": '"api";r=7;t=240'}, None),  # another limit was hit
        ({"ratelimit": '"api";t=12'}, 12),
        ({"ratelimit": '"api";r=0'}, None),
        ({"ratelimit": '"api";r=0;t=-1'}, None),
        ({"ratelimit": '"api";r=0;t=x'}, None),
        ({"ratelimit": '"api;r=0;t=240'}, 240),
        ({"ratelimit": '"api";r=0;t=240', "retry-after": "5"}, 5),
        # its older drafts
        ({"ratelimit": "limit=100, remaining=0, reset=50"}, 50),
        ({"ratelimit": "limit=100, remaining=3, reset=50"}, None),
        ({"ratelimit-limit": "100", "ratelimit-remaining": "0", "ratelimit-reset": "55"}, 55),
        ({"ratelimit-remaining": "3", "ratelimit-reset": "55"}, None),
        ({"ratelimit-reset": "55"}, 55),
        # what everybody did before
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "33"}, 33),
        ({"date": NOW, "x-ratelimit-reset": str(THEN + 77)}, 77),
        ({"date": NOW, "x-ratelimit-reset": str((THEN + 77) * 1000)}, 77),
        ({"date": NOW, "x-ratelimit-reset": "Fri, 21 Nov 2025 10:01:00 GMT"}, 60),
        ({"date": NOW, "x-rate-limit-reset": str(THEN + 44)}, 44),
        ({"x-ratelimit-remaining": "12", "x-ratelimit-reset": "33"}, None),
    ],
)
def test_what_a_server_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    message = Message()
    for name, value in headers.items():
        message[name.title()] = value
    found = [asked_seconds(headers), asked_seconds(message)]
    assert found == [seconds] * len(found)


def test_limits_on_several_lines_are_read_together() -> None:
    message = Message()
    message["RateLimit"] = '"burst";r=3;t=10'
    message["RateLimit"] = '"api";r=0;t=200'
    assert asked_seconds(message) == 200


def test_a_date_is_compared_with_the_servers_clock_or_else_with_ours() -> None:
    ahead = time.time() + 50
    assert 45 <= (asked_seconds({"retry-after": formatdate(ahead, usegmt=True)}) or 0) <= 50
    wrong = {"date": formatdate(ahead, usegmt=True), "retry-after": formatdate(ahead + 7, usegmt=True)}
    assert asked_seconds(wrong) == 7


VALUES = st.one_of(
    st.text(max_size=200),
    st.from_regex(r'("[a-z|]*";r=-?\d*;t=-?\d*(, )?){0,5}', fullmatch=True),
    st.from_regex(
        r"(Mon|Foo), \d{1,9} (Jan|Nov) \d{1,9} \d{1,3}:\d{1,3}:\d{1,3} ([+-]\d{1,9}|GMT|)", fullmatch=True
    ),
    st.integers().map(str),
    st.floats().map(str),
)


@given(st.dictionaries(st.sampled_from(NAMES), VALUES))
@settings(max_examples=300, deadline=5000)
@example({"retry-after": "9" * 6000})
@example({"retry-after": "²"})
@example({"retry-after": "Mon, 01 Jan 0001 00:00:00 +2359", "date": "Fri, 31 Dec 9999 23:59:59 -2359"})
@example({"ratelimit": '"api";r=0;t=240'})
@example({"ratelimit": '"' + '\\"' * 30_000})
@example({"ratelimit": "t=1" * 20_000})
@example({"x-ratelimit-reset": "1" * 15})
def test_any_header_gives_a_bounded_wait_or_none(headers: Mapping[str, str]) -> None:
    asked = asked_seconds(headers)
    assert asked is None or 0 <= asked <= LONGEST_WAIT


def test_waits_in_a_row_are_bounded_in_all() -> None:
    """A server that asks for five minutes again and again is left alone after fifteen."""
    backoff = Backoff(tries=8, first=1, longest=30)
    assert [backoff.failed(300) for _ in range(4)] == [300, 300, 300, None]
    backoff.succeeded()
    assert backoff.failed(300) == 300


def test_tries_are_bounded_and_waits_double() -> None:
    backoff = Backoff(tries=5, first=1, longest=3)
    waits = [backoff.failed() for _ in range(5)]
    assert waits[-1] is None
    for wait, most in zip(waits[:-1], [1, 2, 3, 3], strict=True):
        assert wait is not None
        assert most / 2 <= wait <= most
