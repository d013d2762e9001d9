"""What a parser of foreign text may do with any input: give a value, or one sentence, soon."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from podkiln.errors import PodkilnError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_SECONDS = 1.0
_LONGEST = 4000  # characters of a sentence


def value_or_sentence(work: Callable[[], T]) -> T | None:
    """Return what some work gives, or None where it raised one sentence; anything else fails the test."""
    begun = time.monotonic()
    value, said = None, "x"
    try:
        value = work()
    except PodkilnError as wrong:
        said = str(wrong)
    assert said.strip()
    assert "\n" not in said
    assert len(said) < _LONGEST
    assert time.monotonic() - begun < _SECONDS
    return value
