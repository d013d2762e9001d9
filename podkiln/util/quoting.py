"""Foreign values in sentences: quoted as by repr(), and cut to a limit."""

from __future__ import annotations

from typing import Any, Final

MAX_SHOWN: Final = 80  # characters


def shown(value: Any) -> str:
    """Return a value as it can stand in a sentence."""
    return cut("null" if value is None else repr(value))


def cut(text: str) -> str:
    """Return a text, or its beginning where it is too long for a sentence."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
