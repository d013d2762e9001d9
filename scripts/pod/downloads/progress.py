"""How far each file is: for `fetch.json`, for the log, and for `fetch --status`."""

from __future__ import annotations

import os
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from pod.downloads.states import ACTIVE, RunState, State
from pod.util.dataclass import dataclass, field
from pod.util.files import write_json
from pod.util.units import duration, human

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

SCHEMA = 1
WINDOW = 10.0  # seconds over which a rate is taken


@dataclass
class Progress:
    """One file. `rate` is in bytes a second, as of the last `tick`; `told` takes a sentence for the log."""

    model: str
    file: str
    total: int | None = None
    state: State = State.QUEUED
    bytes: int = 0
    note: str = ""
    error: str | None = None
    path: str | None = None
    rate: float = 0.0
    told: Callable[[str], None] | None = field(default=None, repr=False)
    _seen: deque[tuple[float, int]] = field(default_factory=deque, repr=False)

    def begin(self, received: int, total: int) -> None:
        """Start at what was there before: it has no part in the rate."""
        self._seen.clear()
        self.moved(received, total)
        self.tick()

    def moved(self, received: int, total: int) -> None:
        """Take note of what has arrived, of how much, in bytes; whatever held it up is over."""
        self.bytes, self.total, self.note = received, total, ""

    def tick(self) -> None:
        """Update the rate (bytes per second)."""
        now = time.monotonic()
        self._seen.append((now, self.bytes))
        while len(self._seen) > 2 and now - self._seen[1][0] >= WINDOW:  # noqa: PLR2004
            self._seen.popleft()
        then, before = self._seen[0]
        self.rate = max(0.0, (self.bytes - before) / (now - then)) if now > then else 0.0

    def say(self, note: str) -> None:
        """Keep what a reader of the log should know about a pause."""
        self.note = note

    def tell(self, event: str) -> None:
        """Say in the log what happened to this file, whether or not it is over when somebody looks."""
        if self.told:
            self.told(f"{self.model}: {self.file}: {event}")

    def record(self) -> dict[str, Any]:
        """Return the row of fetch.json."""
        keys = ("model", "file", "state", "bytes", "total", "note", "error", "path")
        return {**{key: getattr(self, key) for key in keys}, "rate": round(self.rate)}

    def line(self) -> str:
        """Return the line of the log."""
        line = f"{self.model}: {self.file}: {self.state}"
        if self.state in {State.CHECKING, State.FETCHING, State.VERIFYING} and self.total:
            line += f", {human(self.bytes)} of {human(self.total)}"
            if self.rate >= 1 and self.state != State.VERIFYING:
                line += f", {human(self.rate)}/s, {duration((self.total - self.bytes) / self.rate)} left"
        return line + (f" ({self.note})" if self.note else "")


class ProgressReport:
    """All files of one run, written to fetch.json by rename so that a reader never sees half of it.

    `again`: the run hashes what is there, so what was found present was checked.
    """

    def __init__(self, path: Path, files: Sequence[Progress], *, again: bool = False) -> None:
        self._path = path
        self._again = again
        self.files = files

    @property
    def active(self) -> list[Progress]:
        """The files that are being worked on."""
        return [file for file in self.files if file.state in ACTIVE]

    def tick(self) -> None:
        """Update all rates (bytes per second)."""
        for file in self.active:
            file.tick()

    def write(self, state: RunState) -> None:
        """Write it. A full disk does not end the fetch."""
        record = {
            "schema": SCHEMA,
            "state": state,
            "pid": os.getpid(),
            "bytes": sum(file.bytes for file in self.files),
            "total": sum(file.total or 0 for file in self.files),
            "files": [file.record() for file in self.files],
        }
        try:
            write_json(self._path, record)
        except OSError:
            return

    def lines(self) -> list[str]:
        """Return a line for each file that is being worked on."""
        return [file.line() for file in self.active]

    def summary(self) -> str:
        """Return the last line of a run."""
        count = {
            state: sum(file.state == state for file in self.files)
            for state in (State.PRESENT, State.FETCHED, State.FAILED)
        }
        fetched = sum(file.bytes for file in self.files if file.state == State.FETCHED)
        there = "checked and right" if self._again else "already there"
        return (
            f"{count[State.FETCHED]} fetched ({human(fetched)}), {count[State.PRESENT]} {there}, "
            f"{count[State.FAILED]} failed, of {len(self.files)} files"
        )
