"""Work in a process of its own, beside ours and no longer than its limit: for file systems that may hang.

A thread would not do: one that waits for a dead file server cannot be ended, and holds up the end of its
process. A process that cannot be ended is left behind for init.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Self

_CHUNK = 65536


class LateError(Exception):
    """The work has not answered within its limit."""


class LostError(Exception):
    """The work ended without an answer; the message says how."""


class TimedSubprocess:
    """One piece of work that reports JSON values as it goes. Use it as a context manager: leaving ends it.

    `work` is called with a function that takes a value to report. `limit` is in seconds, from now on.
    """

    def __init__(self, work: Callable[[Callable[[Any], None]], None], limit: float) -> None:
        self._deadline = time.monotonic() + limit
        self._buffer = b""
        self._pipe, end = os.pipe()
        self._process = os.fork()
        if self._process == 0:
            os.close(self._pipe)
            _run(work, end)
        os.close(end)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.kill(self._process, signal.SIGKILL)  # not waited for yet, so the number is still its own
        os.waitpid(self._process, os.WNOHANG)
        os.close(self._pipe)

    def answer(self) -> Any:
        """Return the next value that was reported. Raises LateError, LostError."""
        while b"\n" not in self._buffer:
            left = self._deadline - time.monotonic()
            if not select.select([self._pipe], [], [], max(0.0, left))[0]:
                raise LateError
            chunk = os.read(self._pipe, _CHUNK)
            if not chunk:
                raise LostError("it ended without a word")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        value = json.loads(line)
        if "bug" in value:
            raise LostError(value["bug"])
        return value["value"]


def _run(work: Callable[[Callable[[Any], None]], None], end: int) -> None:
    """Be the child: never return, and leave nothing of the parent's undone by an exit handler."""

    def report(value: Any) -> None:
        _write(end, {"value": value})

    try:
        work(report)
    except BaseException as bug:  # noqa: BLE001 - whatever it is, the parent must hear of it
        _write(end, {"bug": f"{type(bug).__name__}: {bug}"})
    finally:
        os._exit(0)


def _write(end: int, value: dict[str, Any]) -> None:
    data = json.dumps(value).encode() + b"\n"
    while data:
        data = data[os.write(end, data) :]
