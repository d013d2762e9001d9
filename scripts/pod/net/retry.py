"""Retry and back-off: when to try again, how often, and what a server asks for. Pod and builder share it.

A server says how long to wait in one of several headers, and names them in this order of trust here:

- `Retry-After: 120`, or a date: RFC 9110, 10.2.3.
- `RateLimit: "api";r=0;t=240`: draft-ietf-httpapi-ratelimit-headers-10, which Hugging Face sends (r: requests
  left, t: seconds until there are more). Up to draft 06 it was `RateLimit: limit=100, remaining=0, reset=50`.
- `RateLimit-Reset: 50` with `RateLimit-Remaining`: drafts 00 to 05, in seconds.
- `X-RateLimit-Reset`: no standard; seconds, or a moment in seconds or milliseconds since 1970 (GitHub).
"""

from __future__ import annotations

import random
import re
import time
from typing import TYPE_CHECKING, Any, Protocol

from pod.util.dataclass import dataclass

if TYPE_CHECKING:
    from datetime import datetime

LONGEST_WAIT = 300.0
"""Seconds that are waited at once, whatever a server asks for: the window of Hugging Face's limits."""
LONGEST_TOTAL = 900.0
"""Seconds that are waited in a row, without anything arriving in between."""

BUSY = frozenset({429, 503})
"""Statuses that ask for less, or for later."""
PASSING = BUSY | {408, 425, 500, 502, 504, 520, 521, 522, 523, 524, 529}
"""Statuses that say only that there is no answer now; 520 to 529 are Cloudflare's."""

_LONGEST_HEADER = 1024
_SECONDS = re.compile(r"([0-9]{1,15})(?:\.[0-9]{1,15})?")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_PARAMETER = re.compile(r"\b([a-z]+)=([0-9]{1,15})\b", re.ASCII | re.IGNORECASE)
_RESETS = (
    ("ratelimit-reset", "ratelimit-remaining"),
    ("x-ratelimit-reset", "x-ratelimit-remaining"),
    ("x-rate-limit-reset", "x-rate-limit-remaining"),
)
_MOMENT, _MOMENT_IN_MS = 1_000_000_000, 1_000_000_000_000  # from here on, a number is no span of seconds


class Headers(Protocol):
    """Headers by name: email.message.Message, or a dict whose keys are in lower case."""

    def get(self, key: str, /) -> Any:
        """Return a header's value, or None."""


def asked_seconds(headers: Headers) -> float | None:
    """Return for how many seconds a server asks to be left alone, at most LONGEST_WAIT; None: it does not."""
    now = _date(_text(headers, "date")) or time.time()
    asked = _retry_after(_text(headers, "retry-after"), now)
    if asked is None:
        asked = _rate_limit(_text(headers, "ratelimit"))
    for reset, remaining in _RESETS:
        if asked is None:
            asked = _reset(_text(headers, reset), _text(headers, remaining), now)
    return None if asked is None else min(max(asked, 0.0), LONGEST_WAIT)


def backoff_seconds(failures: int, first: float, longest: float) -> float:
    """Return how long to wait after some failures in a row: twice as long each time, and never in step."""
    doubled: float = first * 2 ** min(failures - 1, 32)
    return min(doubled, longest) * random.uniform(0.5, 1.0)  # noqa: S311 (spreads retries; nothing secret)


@dataclass
class Backoff:
    """The waits between the tries of one thing. Seconds.

    Attributes:
        tries: How often it is tried in all, without success.
        first: The first wait; it doubles from failure to failure.
        longest: What it doubles up to.
        asked_longest: The longest wait that a server may ask for.
        total: The most that is waited in all, without success.
    """

    tries: int
    first: float
    longest: float
    asked_longest: float = LONGEST_WAIT
    total: float = LONGEST_TOTAL
    failures: int = 0
    waited: float = 0.0

    def succeeded(self) -> None:
        """Reset the count of failures."""
        self.failures, self.waited = 0, 0.0

    def failed(self, asked: float | None = None) -> float | None:
        """Count a failure. Returns how long to wait before the next try; None when there is to be none.

        Args:
            asked: What the server asked for (`asked_seconds`).
        """
        self.failures += 1
        if self.failures >= self.tries:
            return None
        if asked is None:
            delay = backoff_seconds(self.failures, self.first, self.longest)
        else:
            delay = min(asked, self.asked_longest)
        if self.waited + delay > self.total:
            return None
        self.waited += delay
        return delay


def _text(headers: Headers, name: str) -> str:
    """Return a header's value, the values of all its lines where there are several; "" for none."""
    several = getattr(headers, "get_all", None)
    value = ", ".join(map(str, several(name) or ())) if several else headers.get(name)
    return str(value or "")[:_LONGEST_HEADER].strip()


def _retry_after(value: str, now: float) -> float | None:
    if seconds := _SECONDS.fullmatch(value):
        return float(seconds[0])
    then = _date(value)
    return None if then is None else then - now


def _date(value: str) -> float | None:
    """Return an HTTP date as seconds since 1970."""
    if not value:
        return None
    import email.utils  # noqa: PLC0415 (not needed before a server is busy)
    from datetime import UTC  # noqa: PLC0415

    try:
        moment: datetime = email.utils.parsedate_to_datetime(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def _rate_limit(value: str) -> float | None:
    """Read RateLimit: of several limits that are used up, the one that is so for longest."""
    plain = _QUOTED.sub("", value)
    items = [dict(_PARAMETER.findall(item.lower())) for item in plain.split(",")]
    whole = {key: text for item in items for key, text in item.items()}
    waits = [float(item["t"]) for item in items if "t" in item and not int(item.get("r", "0"))]
    if "reset" in whole and not int(whole.get("remaining", "0")):
        waits.append(float(whole["reset"]))
    return max(waits, default=None)


def _reset(value: str, remaining: str, now: float) -> float | None:
    left = _SECONDS.fullmatch(remaining)
    if left and int(left[1]):
        return None  # this limit is not the one that was hit
    number = _SECONDS.fullmatch(value)
    if number is None:
        then = _date(value)
        return None if then is None else then - now
    seconds = float(number[0])
    if seconds >= _MOMENT_IN_MS:
        return seconds / 1000 - now
    return seconds - now if seconds >= _MOMENT else seconds
