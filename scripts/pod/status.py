"""`fetch --status`: how far the fetch in this pod is, from what it last wrote."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from pod.progress import human

if TYPE_CHECKING:
    from pathlib import Path


def show(path: Path) -> int:
    """Print a line for each file and one for the whole; returns 0, or 1 when a file failed."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        print("Nothing has been fetched in this pod yet.")
        return 0
    for file in record["files"]:
        print(_line(file))
    state = record["state"]
    if state == "running" and not _alive(record["pid"]):
        state = "ended early; start the fetch again, it goes on where it stopped"
    print(f"{state}: {human(record['bytes'])} of {human(record['total'])}")
    return 1 if any(file["state"] == "failed" for file in record["files"]) else 0


def _line(file: dict[str, Any]) -> str:
    line = f"{file['state']:<9}  {file['model']}: {file['file']}"
    if file["total"]:
        line += (
            f"  {human(file['bytes'])} of {human(file['total'])} ({100 * file['bytes'] // file['total']} %)"
        )
    remark = file["error"] or file["note"]
    return f"{line}  {remark}" if remark else line


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
