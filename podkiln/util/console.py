"""Output: sentences on stderr, results on stdout; bars on a terminal, plain lines in CI."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from podkiln.errors import PodkilnError
from podkiln.util.masking import for_people

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress, TaskID

GB = 10**9
MB = 10**6
_LINE_EVERY = 10.0


def configure(verbosity: int) -> None:
    """Set what is said: -1 only errors, 0 what happens, 1 and more also every command."""
    level = {-1: logging.ERROR, 0: logging.INFO}.get(verbosity, logging.DEBUG)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(message)s"))
    root = logging.getLogger("podkiln")
    root.handlers[:] = [handler]
    root.setLevel(level)
    root.propagate = False


class _Formatter(logging.Formatter):
    """Masks secrets and control characters in every message."""

    def format(self, record: logging.LogRecord) -> str:
        return for_people(super().format(record))


class _StandardError(io.FileIO):
    """Standard error, of which no write fails: Python would end with 120, whatever came out."""

    def write(self, data: Any, /) -> int:
        """Write, or give it up; returns the number of bytes."""
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


class _StandardOutput(io.FileIO):
    """Standard output, whose failures name it: Python's say no more than "No space left on device"."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as failed:
            raise PodkilnError(f"Standard output cannot be written: {failed.strerror}.") from failed


def keep_streams() -> None:
    """Put something in the place of standard streams that were closed before we began (`>&-`).

    Else the next file that is opened would get their number, and what programs print would land in it.
    Writing to a closed or full stdout fails with a sentence (PodkilnError); what a closed or full stderr does
    not take is dropped.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, flags)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
    there = sys.stdout
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_StandardOutput(1, "w", closefd=False)),
        encoding=there.encoding if there else "utf-8",
        errors=there.errors if there else None,
        line_buffering=bool(there and there.line_buffering),
    )
    said = sys.stderr
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(_StandardError(2, "w", closefd=False)),
        encoding=said.encoding if said else "utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )


def failure(error: PodkilnError) -> None:
    """Say what went wrong, and what to do next; without a stderr, only the exit code tells."""
    hint = f"    {for_people(error.hint)}\n" if error.hint else ""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"podkiln: {for_people(str(error))}\n{hint}")
        sys.stderr.flush()


def result(data: dict[str, Any]) -> None:
    """Print a result for scripts: UTF-8 as it is where the output takes that, else escaped."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # half a surrogate pair out of a manifest, or an output in another encoding
        text = json.dumps(data, indent=2)
    sys.stdout.write(text + "\n")


def size(count: int | None, *, lacks: bool = False) -> str:
    """Return a number of bytes for people, in decimal units as hubs and registries show them.

    `lacks`: something of unknown size belongs to it.
    """
    if lacks:
        return f"> {size(count)}" if count else "unknown"
    if count is None:
        return "?"
    for unit, scale in (("TB", 10**12), ("GB", GB), ("MB", MB), ("kB", 10**3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


class Bytes:
    """A progress bar over bytes on a terminal, one line per 10 s elsewhere: context manager and callback."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._log = logging.getLogger("podkiln")
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._seen: dict[str, tuple[int, int]] = {}
        self._last = time.monotonic()
        self._alone = threading.Lock()  # blobs are pushed several at once

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and self._log.isEnabledFor(logging.INFO):
            self._bar = _bar()
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Take note that `done` of `total` bytes of something have been moved."""
        with self._alone:
            if self._bar:
                if what not in self._tasks:
                    self._tasks[what] = self._bar.add_task(what, total=total)
                self._bar.update(self._tasks[what], completed=done, total=total)
                return
            self._seen[what] = (done, total)
            if time.monotonic() - self._last >= _LINE_EVERY:
                self._last = time.monotonic()
                moved, all_of_it = (sum(column) for column in zip(*self._seen.values(), strict=True))
                self._log.info("%s: %s of %s", self._what, size(moved), size(all_of_it))


def _bar() -> Progress:
    from rich.console import Console  # noqa: PLC0415 - rich costs 0.1 s, and --help must not pay for it
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
