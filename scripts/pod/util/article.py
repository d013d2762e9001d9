"""The indefinite article before a name that is not known beforehand, by how it is read aloud."""

from __future__ import annotations

import re

_SPELLED = re.compile(r"[A-Z]{2,}.*[a-z]|[A-Z][0-9]")
"""A name that begins with letters read one by one: LTXPipeline, T5EncoderModel; IMAGE is a word."""
_VOWELS_BY_NAME = "AEFHILMNORSX"
_VOWEL = re.compile(r"[aeio]|u(?!ni)", re.IGNORECASE)


def an(name: str) -> str:
    """Return a name with `a` or `an` before it."""
    vowel = name[0] in _VOWELS_BY_NAME if _SPELLED.match(name) else _VOWEL.match(name)
    return f"{'an' if vowel else 'a'} {name}"
