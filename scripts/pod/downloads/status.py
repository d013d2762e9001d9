"""`fetch --status`: how far the fetches in this pod are, from what each last wrote.

The boot's writes fetch.json; one that is started by hand writes fetch-PID.json, for both may run at once.
start.sh begins the boot's again where it is killed, and as long as it would, fetch.kept is there.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

from pod.downloads.states import RunState, State
from pod.downloads.terminal import bar, painted, width_of
from pod.util.files import recall
from pod.util.printable import printable
from pod.util.say import line as said
from pod.util.units import duration, human

if TYPE_CHECKING:
    from pathlib import Path


BOOT = "fetch.json"
_KEPT = "fetch.kept"  # templates/start/services.j2
_BY_HAND = "fetch-*.json"


def own(run: Path, *, by_hand: bool) -> Path:
    """Return where this process is to write; what others wrote by hand goes once they have ended."""
    if not by_hand and not runs(recall(run / BOOT)):
        return run / BOOT
    for path in run.glob(_BY_HAND):
        if not runs(recall(path)):
            with contextlib.suppress(OSError):
                path.unlink()
    return run / f"fetch-{os.getpid()}.json"


def show(run: Path) -> int:
    """Print a line for each file and one for each fetch; returns 0, or 1 when a file failed."""
    records = [record for path in (run / BOOT, *sorted(run.glob(_BY_HAND))) if (record := recall(path))]
    if not records:
        print("Nothing has been fetched in this pod yet.")
    again = comes_again(run, recall(run / BOOT))
    return max((_show(record, again=again and not at) for at, record in enumerate(records)), default=0)


def runs(record: dict[str, Any]) -> bool:
    """Tell whether the fetch that wrote a record is at work."""
    return bool(record) and record["state"] == RunState.RUNNING and _alive(record["pid"])


def comes_again(run: Path, record: dict[str, Any]) -> bool:
    """Tell whether the boot's fetch, by its record, was killed and is started again by itself."""
    killed = record.get("state") in {RunState.RUNNING, RunState.STOPPED} and not runs(record)
    return killed and (run / _KEPT).exists()


def _show(record: dict[str, Any], *, again: bool) -> int:
    alive = runs(record)
    width = width_of(sys.stdout)
    for file in record["files"]:
        print(_painted(file, width) if width else said(_line(file, alive=alive)))
    state = record["state"]
    if again:
        state = "killed; it is started again, and goes on where it stopped"
    elif state == RunState.RUNNING and not alive:
        state = "ended early; start the fetch again, it goes on where it stopped"
    rate = sum(file["rate"] for file in record["files"] if file["state"] == State.FETCHING) if alive else 0
    print(f"{state}: {human(record['bytes'])} of {human(record['total'])}{_pace(record, rate)}")
    return 1 if any(file["state"] == State.FAILED for file in record["files"]) else 0


def _line(file: dict[str, Any], *, alive: bool) -> str:
    line = f"{file['state']:<9}  {file['model']}: {file['file']}"
    if file["total"]:
        line += (
            f"  {human(file['bytes'])} of {human(file['total'])} ({100 * file['bytes'] // file['total']} %)"
        )
    if alive and file["state"] == State.FETCHING:
        line += _pace(file, file["rate"])
    remark = file["error"] or file["note"]
    return f"{line}  {remark}" if remark else line


def _painted(file: dict[str, Any], width: int) -> str:
    """Return a line for a terminal: a bar, and a remark on a line of its own, which may be long."""
    share = file["bytes"] / file["total"] if file["total"] else 0.0
    line = f"{file['state']:<9}  {bar(share)} {share:4.0%}  {printable(file['file'])}"
    remark = file["error"] or file["note"]
    return painted(line[: width - 1], file["state"]) + (f"\n           {said(remark)}" if remark else "")


def _pace(row: dict[str, Any], rate: float) -> str:
    if rate < 1:
        return ""
    return f", {human(rate)}/s, {duration(max(0, (row['total'] or 0) - row['bytes']) / rate)} left"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
