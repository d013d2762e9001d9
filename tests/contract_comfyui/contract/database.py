"""The database file and its lock: one process for each.

Source: app/database/db.py and setup_database of main.py of ComfyUI 0.33.0, where a lock that is taken costs a
line of the log. With CONTRACT_ASSETS=required it is as in 0.38, where assets are on by default: the file is
in the user directory, and a lock that is taken ends the boot (ASSETS_STARTUP_FAILED).
"""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

log = logging.getLogger(__name__)
_held: list[IO[bytes]] = []


def open_(args: argparse.Namespace, install: Path) -> None:
    """Make the file and hold its lock until the process ends. Raises SystemExit where that is fatal."""
    required = os.environ.get("CONTRACT_ASSETS") == "required"
    if args.database_url:
        path = Path(args.database_url.split("///")[1])
    elif required:
        path = Path(args.user_directory or install / "user") / "comfyui.db"
    else:
        return  # <install>/user/comfyui.db of the real one: each container has its own
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        lock = Path(f"{path}.lock").open("wb")  # noqa: SIM115 - held until the end
        _held.append(lock)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        taken = isinstance(error, BlockingIOError)
        if required:
            log.error("ASSETS_STARTUP_FAILED: %s", "in_use" if taken else "not_writable")  # noqa: TRY400
            raise SystemExit(1) from None
        what = f"Could not acquire lock on database '{path}'." if taken else str(error)
        log.error("Failed to initialize database: %s", what)  # noqa: TRY400
