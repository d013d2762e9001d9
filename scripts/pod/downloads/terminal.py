"""What a person sees while files arrive: lines for a log; on a terminal, rows that are redrawn."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

from pod.downloads.states import ACTIVE, OVER, State
from pod.util.printable import printable
from pod.util.say import line as said
from pod.util.units import duration, human

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from pod.downloads.progress import Progress, ProgressReport

LOG_SECONDS = 10.0
DRAW_SECONDS = 0.2
_NARROW = 70  # columns below which a row has no bar and no amounts
_BAR = 16
_NAME, _SHORTEST = 40, 12
_COLOURS: dict[str, str] = {
    State.FETCHING: "36",
    State.VERIFYING: "36",
    State.CHECKING: "36",
    State.WAITING: "33",
    State.FAILED: "31",
    State.FETCHED: "32",
}


class Display:
    """Sentences, and rows below them when stderr is a terminal; else a line per file each LOG_SECONDS."""

    def __init__(self) -> None:
        self._live = width_of(sys.stderr) > 0
        self._lock = threading.Lock()
        self._drawn: list[str] = []
        self._last = 0.0

    def say(self, text: str) -> None:
        """Write one line of the log."""
        with self._lock:
            self._write([said(f"fetch: {text}")], self._drawn)

    def show(self, board: ProgressReport, now: float) -> None:
        """Show how far all is, when it is time for that; `now` in seconds since the start."""
        if now - self._last < (DRAW_SECONDS if self._live else LOG_SECONDS):
            return
        self._last = now
        if not self._live:
            for line in board.lines():
                self.say(line)
            return
        with self._lock:
            self._write([], rows(board.files, width_of(sys.stderr), _height_of(sys.stderr)))

    def end(self, summary: str) -> None:
        """Say the last line, in place of the rows."""
        with self._lock:
            self._write([said(f"fetch: {summary}")], [])

    def _write(self, lines: Sequence[str], block: Sequence[str]) -> None:
        """Replace the rows by lines that stay, and new rows below them, in one go."""
        up = f"\x1b[{len(self._drawn)}A\r\x1b[J" if self._drawn else ""
        self._drawn = list(block)
        sys.stderr.write(up + "".join(f"{line}\n" for line in (*lines, *block)))
        sys.stderr.flush()


def rows(files: Sequence[Progress], width: int, height: int) -> list[str]:
    """Return a row for each file in work, as many as the terminal has room for, and one for the whole."""
    active = [file for file in files if file.state in ACTIVE - {State.RESOLVING}]
    room = max(1, height - 3)
    shown = active if len(active) <= room else active[: room - 1]
    drawn = [painted(row(file, width), file.state) for file in shown]
    if len(shown) < len(active):
        drawn.append(f"… and {len(active) - len(shown)} more"[: width - 1])
    return [*drawn, _whole(files)[: width - 1]]


def row(file: Progress, width: int) -> str:
    """Return one file's row, no wider than the terminal: the name gives way, then bar and amounts."""
    total = file.total or 0
    share = min(1.0, file.bytes / total) if total else 0.0
    rate = f"{human(file.rate)}/s" if file.rate >= 1 else ""
    left = duration((total - file.bytes) / file.rate) if rate and total else ""
    if file.note:
        tail = file.note
    elif file.state != State.FETCHING and not (file.state == State.CHECKING and file.bytes):
        tail = file.state
    elif width < _NARROW:
        tail = f"{share:4.0%} {rate:>8}"
    else:
        amounts = f"{human(file.bytes):>7} of {human(total):<7}"
        tail = f"{bar(share)} {share:4.0%} {amounts} {rate:>9} {left:>12}"
    room = min(_NAME, max(_SHORTEST, width - 3 - len(tail)))
    name = printable(file.file.rpartition("/")[2])
    return f"{_short(name, room):<{room}}  {tail}"[: width - 1]


def bar(share: float) -> str:
    """Return a bar of fixed width."""
    full = round(share * _BAR)
    return f"[{'#' * full}{'-' * (_BAR - full)}]"


def _whole(files: Sequence[Progress]) -> str:
    over = sum(file.state in OVER for file in files)
    received, total = sum(file.bytes for file in files), sum(file.total or 0 for file in files)
    rate = sum(file.rate for file in files if file.state == State.FETCHING)
    line = f"{over} of {len(files)} files, {human(received)} of {human(total)}"
    if rate >= 1:
        line += f", {human(rate)}/s, {duration((total - received) / rate)} left"
    return line


def _short(name: str, width: int) -> str:
    """Cut the middle out of a long name: its end tells versions apart."""
    if len(name) <= width:
        return name
    head = (width - 1) // 2
    return f"{name[:head]}…{name[len(name) - (width - 1 - head) :]}"


def painted(text: str, state: str) -> str:
    """Return a line in the colour of a state, unless NO_COLOR is set (no-color.org)."""
    colour = "" if os.environ.get("NO_COLOR") else _COLOURS.get(state, "")
    return f"\x1b[{colour}m{text}\x1b[0m" if colour else text


def width_of(stream: TextIO) -> int:
    """Return the columns of a terminal that can be drawn on; 0 for anything else."""
    if not stream.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return 0
    return os.get_terminal_size(stream.fileno()).columns or 80


def _height_of(stream: TextIO) -> int:
    return os.get_terminal_size(stream.fileno()).lines or 24
