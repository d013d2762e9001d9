"""`fetch --status`: how far the fetch in this pod is, from what it last wrote."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from pod.fetching.display import bar, painted, width_of
from pod.fetching.progress import duration, human

if TYPE_CHECKING:
    from pathlib import Path


def show(path: Path) -> int:
    """Print a line for each file and one for the whole; returns 0, or 1 when a file failed."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        print("Nothing has been fetched in this pod yet.")
        return 0
    alive = record["state"] == "running" and _alive(record["pid"])
    width = width_of(sys.stdout)
    for file in record["files"]:
        print(_painted(file, width) if width else _line(file, alive=alive))
    state = record["state"]
    if state == "running" and not alive:
        state = "ended early; start the fetch again, it goes on where it stopped"
    rate = sum(file["rate"] for file in record["files"] if file["state"] == "fetching") if alive else 0
    print(f"{state}: {human(record['bytes'])} of {human(record['total'])}{_pace(record, rate)}")
    return 1 if any(file["state"] == "failed" for file in record["files"]) else 0


def _line(file: dict[str, Any], *, alive: bool) -> str:
    line = f"{file['state']:<9}  {file['model']}: {file['file']}"
    if file["total"]:
        line += (
            f"  {human(file['bytes'])} of {human(file['total'])} ({100 * file['bytes'] // file['total']} %)"
        )
    if alive and file["state"] == "fetching":
        line += _pace(file, file["rate"])
    remark = file["error"] or file["note"]
    return f"{line}  {remark}" if remark else line


def _painted(file: dict[str, Any], width: int) -> str:
    """Return a line for a terminal: a bar, and a remark on a line of its own, which may be long."""
    share = file["bytes"] / file["total"] if file["total"] else 0.0
    line = f"{file['state']:<9}  {bar(share)} {share:4.0%}  {file['file']}"
    remark = file["error"] or file["note"]
    return painted(line[: width - 1], file["state"]) + (f"\n           {remark}" if remark else "")


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
