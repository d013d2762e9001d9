"""What a parser of foreign text may do with any input: give a value, or one sentence, soon.

Time is the process's own: how long others are waited for is bounded by what they are asked with.
"""

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
    begun = time.process_time()
    value, said = None, "x"
    try:
        value = work()
    except PodkilnError as wrong:
        said = str(wrong)
    assert said.strip()
    assert "\n" not in said
    assert len(said) < _LONGEST
    assert time.process_time() - begun < _SECONDS
    return value
