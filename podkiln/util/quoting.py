"""Foreign values in sentences: quoted as by repr(), and cut to a limit; and what one probably meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pod.util.env import nearest

if TYPE_CHECKING:
    from collections.abc import Collection

MAX_SHOWN: Final = 80  # characters


def shown(value: Any) -> str:
    """Return a value as it can stand in a sentence."""
    return cut("null" if value is None else repr(value))


def cut(text: str) -> str:
    """Return a text, or its beginning where it is too long for a sentence."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def did_you_mean(word: str, known: Collection[str]) -> str:
    """Return the question after the nearest of what is known; nothing where none is near."""
    near = nearest(word, known)
    return f"Did you mean {near!r}?" if near else ""
