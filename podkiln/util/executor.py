"""Work on several things at once: on how many, and how it begins."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor

T = TypeVar("T")
R = TypeVar("R")

JOBS: Final = 3
"""How much is moved at once, where nobody says: what engines and registries use themselves, too."""


def submit_all(pool: Executor, work: Callable[[T], R], things: Iterable[T]) -> list[Future[R]]:
    """Submit work for each thing; none begins before all are submitted, and none where that is broken off.

    Ctrl-C may come while a pool starts a thread. The pool then does not know that thread, and nobody waits
    for what it does.
    """
    gate: Future[None] = Future()

    def behind_gate(thing: T) -> R:
        gate.result()  # or CancelledError
        return work(thing)

    try:
        futures = [pool.submit(behind_gate, thing) for thing in things]
        gate.set_result(None)
    except BaseException:
        gate.cancel()
        raise
    return futures
