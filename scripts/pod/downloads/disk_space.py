"""Room on a volume: what is free, what is promised to files in flight, what its errors mean."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from pod.downloads.states import OVER
from pod.net.http import RefusedError
from pod.util.units import human
from pod.util.untrusted_files import PlantedError, kind

if TYPE_CHECKING:
    from pod.downloads.progress import Progress

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_TOO_MANY = frozenset({errno.EMFILE, errno.ENFILE})
_OTHER_KIND = frozenset(
    {errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOENT}
)  # the last: a dangling link
_FORBIDDEN = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


class DiskReservations:
    """What downloads in flight will still need: two files must not both be promised the last gigabytes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._promises: list[tuple[int, Progress]] = []

    def promise(self, folder: Path, need: int, progress: Progress, *more: tuple[Path, int]) -> None:
        """Promise `need` bytes below an existing folder, and those of `more` below theirs.

        What was promised to the same file before is forgotten. Raises RefusedError when they are not there.
        """
        with self._lock:
            self._promises = [(d, p) for d, p in self._promises if p.state not in OVER and p is not progress]
            for place, size in ((folder, need), *more):
                free, promised = self._left(place)
                if size > free - promised:
                    taken = f", {human(promised)} of them promised to other files" if promised else ""
                    raise RefusedError(
                        f"needs {human(size)} more, but {mount_point(place)} has {human(free)} free{taken}: "
                        "use a larger volume, or enable fewer models"
                    )
            self._promises += [
                (place.stat().st_dev, progress) for place in (folder, *(row[0] for row in more))
            ]

    def reserve(self, folder: Path, need: int, progress: Progress) -> bool:
        """Promise `need` bytes if they are there; tells whether they are. Raises OSError."""
        try:
            self.promise(folder, need, progress)
        except RefusedError:
            return False
        return True

    def _left(self, folder: Path) -> tuple[int, int]:
        """Return what the file system of a folder has free, and what of that is promised."""
        device = folder.stat().st_dev
        status = os.statvfs(folder)
        promised = sum((p.total or 0) - p.bytes for d, p in self._promises if d == device)
        return status.f_bavail * status.f_frsize, promised


def mount_point(path: Path) -> Path:
    """Return where the volume that holds a path is mounted."""
    path = path.absolute()
    while not path.is_mount() and path != path.parent:
        path = path.parent
    return path


def is_unwritable(error: OSError) -> bool:
    """Tell whether a file system takes no new file: read-only, forbidden or full."""
    return not isinstance(error, PlantedError) and error.errno in _FORBIDDEN | FULL


def refusal(error: OSError, path: Path) -> RefusedError:
    """Say what an error of the file system means for a file, and what to do."""
    mount = mount_point(path.parent)
    told = os.strerror(error.errno or 0)
    if isinstance(error, PlantedError):
        return RefusedError(f"is not fetched: {error.strerror}, then fetch again")
    if error.errno in FULL:
        return _full(error, mount)
    if error.errno in _TOO_MANY:
        return RefusedError(
            f"is not fetched: {told.lower()}; raise the limit (ulimit -n), or set FETCH_CONNECTIONS lower, "
            "then fetch again"
        )
    if error.errno in _OTHER_KIND and (found := _in_the_way(error, path)):
        return RefusedError(f"is not fetched: {found}: remove it, then fetch again")
    if error.errno in _FORBIDDEN:
        return RefusedError(
            f"cannot be written below {path.parent}: {told.lower()}; "
            "mount the volume writable, or set WORKSPACE to a place that is"
        )
    return RefusedError(f"could not be written to {mount} ({error.strerror or error}); check the volume")


def _full(error: OSError, mount: Path) -> RefusedError:
    """Say what it is that a file does not fit into."""
    if error.errno == errno.EFBIG:
        return RefusedError(
            f"does not fit: {mount} takes no file of this size ({os.strerror(errno.EFBIG)}); what has "
            "arrived is kept, so raise the limit (ulimit -f) or use another volume, then fetch again"
        )
    if error.errno == errno.ENOSPC and _without_inodes(mount):
        return RefusedError(
            f"does not fit: {mount} has bytes left, but no inodes, one of which each file takes; remove "
            "files that are not needed or use a larger volume, then fetch again"
        )
    return RefusedError(
        f"does not fit: {mount} is full ({os.strerror(error.errno or 0)}); what has arrived is kept, "
        "so make room or use a larger volume, then fetch again"
    )


def _without_inodes(mount: Path) -> bool:
    """Tell whether a file system can hold no further file while it has room; some do not count files."""
    try:
        status = os.statvfs(mount)
    except OSError:
        return False
    return status.f_files > 0 and status.f_favail == 0 and status.f_bavail > 0


def _in_the_way(error: OSError, path: Path) -> str | None:
    """Say what lies where something of another kind is expected."""
    name = error.filename
    place = Path(os.fsdecode(name)) if isinstance(name, str | bytes) else path
    if error.errno == errno.EISDIR:
        return f"{place} is a folder where a file is expected"
    for each in (*reversed(place.absolute().parents), place):
        if os.path.lexists(each) and not each.is_dir():
            return f"{each} is {kind(each) or 'a file'} where a folder is expected"
    return None
