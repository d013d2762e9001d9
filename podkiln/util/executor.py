"""Thread pools: how many workers, and how their work is submitted."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor

T = TypeVar("T")
R = TypeVar("R")

JOBS: Final = 3
"""Default of --jobs: the number of layers moved at once by engines and registries themselves, too."""


def submit_all(pool: Executor, work: Callable[[T], R], things: Iterable[T]) -> list[Future[R]]:
    """Submit work for each thing. Workers block on a start signal that is set after the last submit.

    Interrupted while submitting, none of them starts.

    Ctrl-C may come while a pool starts a thread. The pool then does not know that thread, and does not
    wait for it.
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
