"""Processes that end with whoever looks after them, and the ones of an earlier start that did not.

The kernel can send a signal to a process when its parent ends, by SIGKILL too: PR_SET_PDEATHSIG of prctl(2).
setpriv(1) asks for that and then becomes the program, so no code of ours runs between fork and exec. The
signal comes when the *thread* that started the process ends: start such processes from one that stays.

It reaches the process alone. What that has started is in its process group, which is noted in
$PODKILN_RUN/processes/NAME as `GROUP START`: START is field 22 of proc_pid_stat(5), so that a number that was
given out again is not taken for ours.
"""
# ruff: noqa: PTH103, PTH108, PTH123, PTH208 - ComfyUI waits for this at its start, and pathlib costs 10 ms.

from __future__ import annotations

import contextlib
import os
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SETPRIV = "/usr/bin/setpriv"
FOLDER = "processes"
_PATIENCE = 3.0  # seconds for a group that was killed
_PAUSE = 0.02


def tied(argv: Sequence[str], number: signal.Signals = signal.SIGKILL) -> list[str]:
    """Return the command that runs `argv`, which gets a signal when the thread that starts it ends."""
    if not os.access(argv[0], os.X_OK) or not os.access(SETPRIV, os.X_OK):
        return list(argv)  # the first is said by whoever starts it; an image without the other still runs
    return [SETPRIV, "--pdeathsig", number.name.removeprefix("SIG"), "--", *argv]


def note(run: str, name: str, process: int) -> None:
    """Write down a process that leads a group of its own; nothing where that cannot be written."""
    with contextlib.suppress(OSError, ValueError):
        os.makedirs(f"{run}/{FOLDER}", exist_ok=True)
        with open(f"{run}/{FOLDER}/{name}", "w", encoding="ascii") as file:
            file.write(f"{process} {start(process)}\n")


def forget(run: str, name: str) -> None:
    """Forget a process that has ended."""
    with contextlib.suppress(OSError):
        os.unlink(f"{run}/{FOLDER}/{name}")


def group(run: str, name: str) -> int | None:
    """Return the process group that was noted, as long as any of it runs."""
    try:
        with open(f"{run}/{FOLDER}/{name}", encoding="ascii") as file:
            number, began = (int(word) for word in file.read().split())
        if number <= 1:  # to kill(2) these are not groups: its own one, and everybody
            return None
        os.killpg(number, 0)
    except (OSError, ValueError, OverflowError):
        return None
    with contextlib.suppress(OSError, ValueError):
        if start(number) != began:
            return None  # another process has its number now
    return number


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


def _runs(number: int) -> bool:
    """Tell whether any process of a group runs; one that nobody has waited for does not."""
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = _stat(int(name))
            if int(fields[2]) == number and fields[0] != "Z":
                return True
    return False


def _stat(process: int) -> list[str]:
    """Return the fields of a process from the third on: state, parent, group and so on."""
    with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()  # its name, the second field, may hold anything
