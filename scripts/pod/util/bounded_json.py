"""Text from others, parsed within limits: a hub's JSON, a header's number, a record on a shared volume.

Parsing must not cost more than what is parsed is worth: a few megabytes of `[[[[…` become gigabytes of Python
objects, and arithmetic on numbers of thousands of digits takes minutes. So the limits come first.
"""

from __future__ import annotations

import json
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

VALUES = 200_000  # in one document: objects, lists, and what stands in them
_DIGITS = 19  # of any number of bytes there is: 2**63 has 19
# With `*+` nothing is tried twice, and with `"?` a string that does not end is taken as a whole: linear time.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{,]', re.DOTALL)
_WHOLE = re.compile(r"[0-9]+")


def number(text: str | None) -> int | None:
    """Return a whole number in ASCII digits, as headers have them; None for everything else."""
    if text is None or len(text) > _DIGITS or not _WHOLE.fullmatch(text):
        return None
    return int(text)


def holds_more(text: bytes, values: int) -> bool:
    """Tell whether JSON holds more than so many objects, lists and entries, without parsing it."""
    # Strings count too, and most names have a value.
    return any(count > 2 * values for count, _ in enumerate(_TOKEN.finditer(text)))


def parse(
    text: bytes,
    values: int = VALUES,
    pairs: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """Parse JSON with at most so many values in it. Raises ValueError, whatever is wrong with it.

    Args:
        text: UTF-8.
        values: The most objects, lists and entries.
        pairs: As json.loads' object_pairs_hook.
    """
    if holds_more(text, values):
        raise ValueError(f"has more than {values} values")
    try:
        return json.loads(text.decode(), object_pairs_hook=pairs, parse_int=_int)
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def _int(text: str) -> int:
    if len(text) > _DIGITS + 1:  # a sign
        raise ValueError("has a number of too many digits")
    return int(text)
