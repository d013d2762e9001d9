"""Strict JSON: refuses what readers take differently (duplicate keys, NaN, huge numbers).

Python's json module lets a key stand twice in an object, takes NaN, and meets a number of thousands of digits
with advice on its own settings.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any, Final

from podkiln.util.quoting import shown

MOST_DIGITS: Final = 4300  # sys.int_info.default_max_str_digits: Python converts no more, for time's sake


def parse(text: str, *, digits: int = MOST_DIGITS) -> Any:
    """Parse JSON whose whole numbers have at most so many digits.

    Raises json.JSONDecodeError for what is not JSON; ValueError, with a clause such as "the key 'a' is
    duplicated in one object", for what only some readers would take.
    """
    try:
        return json.loads(
            text,
            object_pairs_hook=_once,
            parse_int=partial(_whole, digits=digits),
            parse_constant=_no_number,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object. Raises ValueError for a duplicate key: readers take the first or the last."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {shown(key)} is duplicated in one object")
        found[key] = value
    return found


def _whole(text: str, *, digits: int) -> int:
    if len(text.lstrip("-")) > digits:
        raise ValueError(f"it holds a number of more than {digits} digits")
    return int(text)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")
