"""Work on several blobs of one registry at a time, which fails together."""

from __future__ import annotations

from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeVar

from podkiln.registry.transport import CancelledError
from podkiln.util.executor import submit_all
from podkiln.util.interrupts import INTERRUPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from podkiln.registry.transport import Transport

T = TypeVar("T")
R = TypeVar("R")


def at_once(transport: Transport, things: Iterable[T], work: Callable[[T], R]) -> list[R]:
    """Do some work for each thing, `jobs` at a time, and return the results in order.

    The first failure, also an interruption of this thread, cancels the transport, and is the one raised.
    """
    with ThreadPoolExecutor(transport.settings.jobs, thread_name_prefix="blobs") as pool:
        try:
            futures = submit_all(pool, work, things)
            wait(futures, return_when=FIRST_EXCEPTION)
            _raise_first(futures)
            return [future.result() for future in futures]
        except BaseException:
            with INTERRUPTIONS.held():
                transport.cancel()
                pool.shutdown(cancel_futures=True)
            raise


def _raise_first(futures: Sequence[Future[R]]) -> None:
    """Raise the failure that stopped the work, not those of the work that it stopped."""
    failures = [future.exception() for future in futures if future.done() and not future.cancelled()]
    for failure in sorted(filter(None, failures), key=lambda failure: isinstance(failure, CancelledError)):
        raise failure
