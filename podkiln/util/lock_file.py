"""Files that processes lock, so that two do not change one folder at once (flock(2))."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from podkiln.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

NAME = ".lock"


def open_in(folder: Path, what: str) -> IO[str]:
    """Make a folder and open its lock file. Raises UsageError; `what` is the folder in that sentence."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / NAME).open("w")
    except OSError as error:
        raise UsageError(f"{what} cannot be written: {error.strerror}.") from None
