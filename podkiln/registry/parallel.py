"""Work on several blobs of one registry at a time, which fails together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from podkiln.registry.cancellation import CancelledError
from podkiln.util.executor import run_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from podkiln.registry.transport import Transport

T = TypeVar("T")
R = TypeVar("R")


def at_once(transport: Transport, things: Iterable[T], work: Callable[[T], R]) -> list[R]:
    """Do some work for each thing, `jobs` at a time, and return the results in order.

    The first failure, also an interruption of this thread, cancels the transport, and is the one raised.
    """
    with ThreadPoolExecutor(transport.settings.jobs, thread_name_prefix="blobs") as pool:
        return run_all(pool, work, things, cancel=transport.cancel, cancelled=CancelledError)
