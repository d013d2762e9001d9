"""How far each file is: for `fetch.json`, for the log, and for `fetch --status`."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SCHEMA = 1
ACTIVE = ("checking", "resolving", "waiting", "fetching", "verifying")


@dataclass
class Progress:
    """One file. States: queued, ACTIVE, then present (it was there), fetched, failed or stopped."""

    model: str
    file: str
    total: int | None = None
    state: str = "queued"
    bytes: int = 0
    note: str = ""
    error: str | None = None
    path: str | None = None
    _seen: tuple[float, int] = field(default_factory=lambda: (time.monotonic(), 0), repr=False)

    def moved(self, received: int, total: int) -> None:
        """Take note of what has arrived, of how much, in bytes; whatever held it up is over."""
        self.bytes, self.total, self.note = received, total, ""

    def say(self, note: str) -> None:
        """Keep what a reader of the log should know about a pause."""
        self.note = note

    def record(self) -> dict[str, Any]:
        """Return the row of fetch.json."""
        keys = ("model", "file", "state", "bytes", "total", "note", "error", "path")
        return {key: getattr(self, key) for key in keys}

    def line(self) -> str:
        """Return the line of the log; the rate is that since the last call."""
        now, (then, before) = time.monotonic(), self._seen
        self._seen = (now, self.bytes)
        rate = (self.bytes - before) / max(now - then, 0.001)
        line = f"{self.model}: {self.file}: {self.state}"
        if self.state in {"fetching", "verifying"} and self.total is not None:
            line += f", {human(self.bytes)} of {human(self.total)}"
            if rate > 0 and self.state == "fetching":
                line += f", {human(rate)}/s, {_duration((self.total - self.bytes) / rate)} left"
        return line + (f" ({self.note})" if self.note else "")


class Board:
    """All files of one run, written to fetch.json by rename so that a reader never sees half of it."""

    def __init__(self, path: Path, files: Sequence[Progress]) -> None:
        self._path = path
        self.files = files

    def write(self, state: str) -> None:
        """Write it; `state` is running, done, failed or stopped. A full disk does not end the fetch."""
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
        return [file.line() for file in self.files if file.state in ACTIVE]

    def summary(self) -> str:
        """Return the last line of a run."""
        count = {
            state: sum(file.state == state for file in self.files)
            for state in ("present", "fetched", "failed")
        }
        fetched = sum(file.bytes for file in self.files if file.state == "fetched")
        return (
            f"{count['fetched']} fetched ({human(fetched)}), {count['present']} already there, "
            f"{count['failed']} failed, of {len(self.files)} files"
        )


def write_json(path: Path, value: Any) -> None:
    """Write JSON aside, then rename. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    aside.replace(path)


def human(count: float) -> str:
    """Return bytes as people and hubs write them: decimal units."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:  # noqa: PLR2004
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
