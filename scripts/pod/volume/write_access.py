"""Whether folders of a volume can be written to and made, and what is in their way.

All here touches the volume, so it runs in a process that may hang (pod.volume.timed_subprocess).
"""

from __future__ import annotations

import contextlib
import errno
import os

from pod.util import untrusted_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""Errors of what is not there, or leads nowhere."""
PROBE_BYTES = 4096  # a full volume still takes an empty file

_MEANING = {
    errno.EROFS: "is read-only",
    errno.EACCES: "may not be written by this pod's user",
    errno.EPERM: "may not be written by this pod's user",
    errno.ENOSPC: "is full",
    errno.EDQUOT: "is full (its quota is used up)",
}


def try_to_write(folder: str, *, make: bool) -> str | None:
    """Write a small file into a folder and remove it; returns why that failed. `make`: the folder first."""
    probe = f"{folder}/.podkiln-probe-{os.urandom(8).hex()}"
    try:
        if make:
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - pathlib costs 10 ms that a boot waits for
        try:
            with open(probe, "wb") as file:  # noqa: PTH123
                file.write(bytes(PROBE_BYTES))
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(probe)  # noqa: PTH108
    except OSError as error:
        return _meaning(error)
    return None


def obstacle(path: str) -> str:
    """Say what lies somewhere in the place of a folder."""
    what = untrusted_files.kind(path) or "a file"
    if what != "a link":
        return f"is {what}"
    try:
        os.stat(path)  # noqa: PTH116
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "is a link that leads back to itself"
        if error.errno in ABSENT:
            return "is a link that leads nowhere"
        return f"is a link that cannot be followed ({error.strerror or error})"
    return "is a link, not a folder"


def make(folders: Iterable[str], obstacles: dict[str, str]) -> str | None:
    """Make folders; what is wrong with one alone is added to `obstacles`, else returned."""
    for folder in folders:
        if folder in obstacles:
            continue
        try:
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103
        except OSError as error:
            if error.errno in _MEANING:
                return _meaning(error)
            obstacles[folder] = f"cannot be made ({error.strerror or error})"
    return None


def forbidden(path: str) -> str | None:
    """Say why a folder, or the first one above that is there, cannot be written, without trying."""
    while not os.access(path, os.W_OK | os.X_OK):
        try:
            if os.path.exists(path) or path in ("", "/"):  # noqa: PTH110
                read_only = os.statvfs(path or "/").f_flag & os.ST_RDONLY
                return _MEANING[errno.EROFS if read_only else errno.EACCES]
        except OSError as error:  # a dead file server, a stale handle
            return _meaning(error)
        path = os.path.dirname(path)  # noqa: PTH120
    return None


def _meaning(error: OSError) -> str:
    return _MEANING.get(error.errno or 0, f"cannot be written ({error.strerror or error})")
