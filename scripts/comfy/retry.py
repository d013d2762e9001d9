"""Asking again, with a pause that grows, what a proxy before ComfyUI refuses for a moment."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

from comfy.failure import UNREACHABLE, ComfyError
from pod.net.retry import PASSING, backoff_seconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

AWAY: Final = PASSING - {500}
"""Statuses of a proxy that does not reach what is behind it, and never of ComfyUI."""
TRIES: Final = 5
PAUSE: Final = 1.0  # seconds before the second try; doubled for each further one
LONGEST: Final = 8.0  # seconds
T = TypeVar("T")


class PassingError(ComfyError):
    """A refusal that may be over in a moment."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, UNREACHABLE)
        self.status = status


def pause(number: int) -> float:
    """Return the seconds to wait after the failure of a try, counted from 0."""
    return backoff_seconds(number + 1, PAUSE, LONGEST)


async def patiently(attempt: Callable[[], Awaitable[T]]) -> T:
    """Return what an attempt does, the last of TRIES at the latest. Raises ComfyError."""
    for number in range(TRIES - 1):
        try:
            return await attempt()
        except PassingError:
            await asyncio.sleep(pause(number))
    return await attempt()
