"""The one thread in which a model is loaded and generates: torch keeps things by thread."""

from __future__ import annotations

import asyncio
import contextlib
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


class OneThread:
    """Calls functions one after the other. A daemon: a process that has to end does not wait for a step."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        Thread(target=self._work, name="model", daemon=True).start()

    async def call(self, function: Callable[[], _T]) -> _T:
        """Return what a function returns, or raise what it raises. Being cancelled does not end it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def work() -> None:
            result: Any = None
            error: BaseException | None = None
            try:
                result = function()
            except StopIteration as odd:  # nothing that a future takes
                error = RuntimeError(repr(odd))
            except BaseException as raised:  # noqa: BLE001 - whoever waits gets it
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(settle, result, error)

        self._calls.put(work)
        return await future

    def close(self) -> None:
        """End, once all calls are done."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call  # nor keep what it made until the next comes
