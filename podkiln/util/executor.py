"""Work on several things at once: on how many, how it begins, and how it fails together."""

from __future__ import annotations

from concurrent.futures import FIRST_EXCEPTION, Future, wait
from typing import TYPE_CHECKING, Final, TypeVar

from podkiln.util.interrupts import INTERRUPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor

T = TypeVar("T")
R = TypeVar("R")

JOBS: Final = 3
"""Default of --jobs: the number of layers moved at once by engines and registries themselves, too."""


def run_all(
    pool: Executor,
    work: Callable[[T], R],
    things: Iterable[T],
    *,
    cancel: Callable[[], None],
    cancelled: type[Exception],
) -> list[R]:
    """Do some work for each thing and return the results in order.

    The first failure, also an interruption of this thread, stops the rest and ends the pool. It is raised
    once all work has ended.

    Args:
        pool: Who works.
        work: What is done with one thing.
        things: The things.
        cancel: Makes the work that is under way end soon; called in this thread.
        cancelled: What such work raises; not what is told of where there is another failure.
    """
    failures: list[BaseException] = []

    def noting_failure(thing: T) -> R:
        if failures:
            raise cancelled("given up")
        try:
            return work(thing)
        except BaseException as failure:
            failures.append(failure)
            raise

    try:
        futures = submit_all(pool, noting_failure, things)
        wait(futures, return_when=FIRST_EXCEPTION)
        if not failures:
            return [future.result() for future in futures]
    except BaseException:
        _end(pool, cancel)
        raise
    _end(pool, cancel)
    raise min(failures, key=lambda failure: isinstance(failure, cancelled))  # the first that is none of those


def _end(pool: Executor, cancel: Callable[[], None]) -> None:
    with INTERRUPTIONS.held():
        cancel()
        pool.shutdown(cancel_futures=True)


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
