"""Files that processes lock, so that two do not change one folder at once (flock(2))."""

from __future__ import annotations

import errno
import os
import stat
from typing import IO, TYPE_CHECKING

from podkiln.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

NAME = ".lock"


def open_in(folder: Path, what: str) -> IO[str]:
    """Make a folder and open its lock file. Raises UsageError; `what` is the folder in that sentence."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return open_file(folder / NAME)
    except OSError as error:
        raise UsageError(f"{what} cannot be written: {error.strerror}.") from None


def open_file(path: Path) -> IO[str]:
    """Open a lock file, which nothing is written to. Raises OSError where another kind of file lies there."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    lock = os.open(path, flags, 0o644)
    if not stat.S_ISREG(os.fstat(lock).st_mode):
        os.close(lock)
        raise OSError(errno.EINVAL, "its lock file is no regular file", str(path))
    return os.fdopen(lock, "r+")
