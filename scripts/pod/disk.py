"""Room on a volume: what is free, what is promised to files in flight, what its errors mean."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

from pod.progress import Progress, human
from pod.web import RefusedError

if TYPE_CHECKING:
    from pathlib import Path

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


class Space:
    """What downloads in flight will still need: two files must not both be promised the last gigabytes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._promises: list[tuple[int, Progress]] = []

    def promise(self, folder: Path, need: int, progress: Progress) -> None:
        """Promise `need` bytes below an existing folder. Raises RefusedError when they are not there."""
        device = folder.stat().st_dev
        with self._lock:
            self._promises = [
                (d, p) for d, p in self._promises if p.state == "fetching" and p is not progress
            ]
            promised = sum((p.total or 0) - p.bytes for d, p in self._promises if d == device)
            status = os.statvfs(folder)
            free = status.f_bavail * status.f_frsize
            if need > free - promised:
                taken = f", {human(promised)} of them promised to other files" if promised else ""
                raise RefusedError(
                    f"needs {human(need)} more, but {mount_point(folder)} has {human(free)} free{taken}: "
                    "use a larger volume, or enable fewer models"
                )
            self._promises.append((device, progress))


def mount_point(path: Path) -> Path:
    """Return where the volume that holds a path is mounted."""
    path = path.absolute()
    while not path.is_mount() and path != path.parent:
        path = path.parent
    return path


def refusal(error: OSError, path: Path) -> RefusedError:
    """Say what an error of the file system means for a file, and what to do."""
    mount = mount_point(path.parent)
    if error.errno in _FULL:
        return RefusedError(
            f"does not fit: {mount} is full ({os.strerror(error.errno or 0)}); what has arrived is kept, "
            "so make room or use a larger volume, then fetch again"
        )
    if error.errno in _FORBIDDEN:
        return RefusedError(
            f"cannot be written below {path.parent}: {os.strerror(error.errno or 0).lower()}; "
            "mount the volume writable, or set WORKSPACE to a place that is"
        )
    return RefusedError(f"could not be written to {mount} ({error.strerror or error}); check the volume")
