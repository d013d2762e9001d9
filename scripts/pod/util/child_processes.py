"""Processes that end with their parent, and those of an earlier start that did not.

The kernel can send a signal to a process when its parent ends, by SIGKILL too: PR_SET_PDEATHSIG of prctl(2).
setpriv(1) asks for that and then becomes the program, so no code of ours runs between fork and exec. The
signal comes when the *thread* that started the process ends: start such processes from one that stays.

It reaches the process alone. What that has started is in its process group, which is noted in
$PODKILN_RUN/processes/NAME as `GROUP START INIT SESSION MARK`, so that a number that was given out again is
not taken for ours. START is when the group's leader was started and INIT when the container's first process
was (field 22 of proc_pid_stat(5)): a run folder outlives a restart, after which process ids start again.
MARK stands in the environment of all that the leader starts, by which a group is known without its leader.
"""
# ruff: noqa: PTH103, PTH108, PTH123, PTH208 - ComfyUI waits for this at its start, and pathlib costs 10 ms.

from __future__ import annotations

import contextlib
import os
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SETPRIV = "/usr/bin/setpriv"
FOLDER = "processes"
VARIABLE = "PODKILN_STARTED_BY"
_MARK = os.urandom(8).hex()
_WORDS = 5  # of a note
_PATIENCE = 3.0  # seconds for a group that was killed
_PAUSE = 0.02


def tied(argv: Sequence[str], number: signal.Signals = signal.SIGKILL) -> list[str]:
    """Return the command that runs `argv`, which gets a signal when the thread that starts it ends."""
    if not os.access(argv[0], os.X_OK) or not os.access(SETPRIV, os.X_OK):
        return list(
            argv
        )  # a missing program is reported where it is started; an image without setpriv still runs
    return [SETPRIV, "--pdeathsig", number.name.removeprefix("SIG"), "--", *argv]


def marked(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a process that is to be noted."""
    return {**environ, VARIABLE: _MARK}


def note(run: str, name: str, process: int) -> None:
    """Write down a process that leads a group of its own; nothing where that cannot be written."""
    with contextlib.suppress(OSError, ValueError):
        os.makedirs(f"{run}/{FOLDER}", exist_ok=True)
        with open(f"{run}/{FOLDER}/{name}", "w", encoding="ascii") as file:
            file.write(f"{process} {start(process)} {_init()} {os.getsid(process)} {_MARK}\n")


def forget(run: str, name: str) -> None:
    """Forget a process that has ended."""
    with contextlib.suppress(OSError):
        os.unlink(f"{run}/{FOLDER}/{name}")


def group(run: str, name: str) -> int | None:
    """Return the process group that was noted, as long as any of it runs and is known to be ours."""
    try:
        with open(f"{run}/{FOLDER}/{name}", encoding="ascii") as file:
            words = file.read().split()
        number, began, *rest = (int(word) for word in words[: _WORDS - 1])
        if number <= 1:  # to kill(2) these are not groups: its own one, and everybody
            return None
        os.killpg(number, 0)
    except (OSError, ValueError, OverflowError):
        return None
    if rest and rest[0] != _init():
        return None  # all of that container's last run has ended
    try:
        leader = start(number)
    except (OSError, ValueError, IndexError):  # gone; what it started may run still
        known = len(words) == _WORDS and any(
            _is_ours(process, fields, began, *words[_WORDS - 2 :]) for process, fields in _members(number)
        )
        return number if known else None
    return number if leader == began else None  # else another process has its number now


def end_left_over(run: str) -> list[str]:
    """End what an earlier start left running; returns the names under which it was noted."""
    try:
        names = sorted(os.listdir(f"{run}/{FOLDER}"))
    except OSError:
        return []
    return [name for name in names if end(run, name)]


def end(run: str, name: str) -> bool:
    """End all of a group that was noted, at once; returns whether any of it ran."""
    number = group(run, name)
    forget(run, name)
    if number is None or not _runs(number):
        return False
    with contextlib.suppress(OSError):
        os.killpg(number, signal.SIGKILL)
    late = time.monotonic() + _PATIENCE
    while _runs(number) and time.monotonic() < late:
        time.sleep(_PAUSE)
    return True


def start(process: int) -> int:
    """Return when a process was started, in ticks since the machine was. Raises OSError, ValueError."""
    return int(_stat(process)[19])


def _init() -> int:
    """Return when the container was started; 0 where that is not shown."""
    try:
        return start(1)
    except (OSError, ValueError, IndexError):
        return 0


def _is_ours(process: int, fields: Sequence[str], began: int, session: str, mark: str) -> bool:
    """Tell whether a process comes from a leader that was noted with this mark."""
    try:
        with open(f"/proc/{process}/environ", "rb") as file:
            environ = file.read()
    except OSError:
        return False
    if b"=" in environ:
        return f"{VARIABLE}={mark}".encode() in environ.split(b"\0")
    # nginx writes its workers' titles over it
    return fields[3] == session and int(fields[19]) >= began


def _runs(number: int) -> bool:
    """Tell whether any process of a group runs; a zombie does not count."""
    return any(True for _ in _members(number))


def _members(number: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the processes of a group that run, each with what `_stat` tells of it."""
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = _stat(int(name))
            if int(fields[2]) == number and fields[0] != "Z":
                yield int(name), fields


def _stat(process: int) -> list[str]:
    """Return the fields of a process from the third on: state, parent, group and so on."""
    with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()  # its name, the second field, may hold anything
