"""What is mounted where, from /proc/self/mountinfo: asking that never touches a volume, which may hang.

Format: proc_pid_mountinfo(5). A later line of the same mount point covers an earlier one.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from pod.util.dataclass import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MOUNTINFO = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")
_BEFORE_OPTIONAL = 6  # fields before the optional ones, which end with a lone "-"


@dataclass(frozen=True)
class Mount:
    """One mounted file system; `kind` is nfs4, fuse, ext4 and so on."""

    point: str
    kind: str
    read_only: bool


def read(path: Path = MOUNTINFO) -> tuple[Mount, ...]:
    """Return what is mounted; nothing where that cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ()
    return tuple(mount for line in lines if (mount := _parse(line)) is not None)


def _parse(line: str) -> Mount | None:
    fields = line.split(" ")
    try:
        kind = fields[fields.index("-", _BEFORE_OPTIONAL) + 1]
    except (ValueError, IndexError):
        return None
    point = _ESCAPE.sub(lambda octal: chr(int(octal[1], 8)), fields[4])
    return Mount(point, kind, "ro" in fields[5].split(","))


def holding(mounts: Sequence[Mount], path: str) -> Mount | None:
    """Return the mount that a path is on; None when that is the container's own file system."""
    path = posixpath.normpath(path)
    over = [
        mount for mount in mounts if path == mount.point or path.startswith(f"{mount.point.rstrip('/')}/")
    ]
    longest = max(over, key=lambda mount: len(mount.point), default=None)
    if longest is None or longest.point == "/":
        return None
    return [mount for mount in over if mount.point == longest.point][-1]
