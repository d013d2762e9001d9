"""One worker for one file, among threads, processes, containers and pods that share a volume.

A lease is a lock file made with O_EXCL, whose owner writes a heartbeat into it. Network volumes may not have
flock, or may not pass it on to other hosts; so another pod's lease is taken over only when its heartbeat has
stood still for STALE seconds of our own clock. On the same kernel (boot_id) flock tells at once that an owner
is dead, so a restart after kill -9 does not wait.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import threading
import time
import uuid
from pathlib import Path

from pod.util import bounded_json, untrusted_files

HEARTBEAT = 5.0
STALE = 30.0
_RECORD = 4096  # bytes at most


class FileLease:
    """A lease on one file; `acquire` never blocks, so that a worker can do something else meanwhile."""

    def __init__(self, path: Path, *, heartbeat: float = HEARTBEAT, stale: float = STALE) -> None:
        self._path = path
        self._heartbeat = heartbeat
        self._stale = stale
        self._owner = uuid.uuid4().hex
        self._seen: tuple[bytes, float] | None = None
        self._descriptor: int | None = None
        self._released = threading.Event()
        self._lock = threading.Lock()

    def acquire(self) -> bool:
        """Try to become the owner; called again and again, it notices an owner that died. Raises OSError."""
        untrusted_files.make_folder(self._path.parent)
        descriptor = self._create() or self._take_over()
        if descriptor is None:
            return False
        self._descriptor = descriptor
        try:
            self._beat(0)
        except OSError:  # a full volume: an empty lease would look like another pod's
            self._abandon(descriptor)
            raise
        threading.Thread(target=self._keep, daemon=True).start()
        return True

    def release(self) -> None:
        """Give it up; harmless when it is not ours."""
        with self._lock:
            self._released.set()
            if self._descriptor is None:
                return
            with contextlib.suppress(OSError):
                if self._is_ours():
                    self._path.unlink()
            os.close(self._descriptor)  # ends the flock too
            self._descriptor = None

    def _abandon(self, descriptor: int) -> None:
        if self._names(descriptor):
            with contextlib.suppress(OSError):
                self._path.unlink()
        os.close(descriptor)
        self._descriptor = None

    @property
    def lost(self) -> bool:
        """Whether somebody took us for dead, after a long stop of this pod."""
        with self._lock:
            return self._descriptor is not None and not self._is_ours()

    def _create(self) -> int | None:
        try:
            descriptor = untrusted_files.open_plain(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return None
        self._locks = _flock(descriptor)
        return descriptor

    def _take_over(self) -> int | None:
        """Return a descriptor when the owner is dead, else None."""
        try:
            # While a lease is given back it has two names for a moment.
            descriptor = untrusted_files.open_plain(self._path, os.O_RDWR, linked=True)
        except FileNotFoundError:
            return None  # released a moment ago: the next call creates it
        except untrusted_files.PlantedError:
            untrusted_files.remove(
                self._path
            )  # no lease, and never what a link leads to; next time it is ours
            return None
        record = os.pread(descriptor, _RECORD, 0)
        try:
            if self._same_kernel(record) and _flock(descriptor) and self._names(descriptor):
                self._locks = True
                return descriptor
            if self._stands_still(record):
                self._set_aside(record)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def _same_kernel(self, record: bytes) -> bool:
        try:
            owner = bounded_json.parse(record)
            return bool(owner["flock"]) and owner["boot"] == boot_id() != ""
        except (ValueError, KeyError, TypeError):
            return False  # being written just now, or of another version: the heartbeat decides

    def _stands_still(self, record: bytes) -> bool:
        now = time.monotonic()
        if self._seen is None or self._seen[0] != record:
            self._seen = (record, now)
        return now - self._seen[1] >= self._stale

    def _set_aside(self, record: bytes) -> None:
        """Remove a dead owner's lock; the next call creates ours, unless somebody else is faster."""
        aside = self._path.with_name(f"{self._path.name}.{self._owner}")
        with contextlib.suppress(FileNotFoundError):
            self._path.rename(aside)
            if _beginning(aside) != record:  # a live one that came in between: give it back
                with contextlib.suppress(OSError):
                    os.link(aside, self._path)
            aside.unlink()

    def _names(self, descriptor: int) -> bool:
        """Tell whether the path still names the file behind the descriptor."""
        try:
            return self._path.stat().st_ino == os.fstat(descriptor).st_ino
        except OSError:
            return False

    def _is_ours(self) -> bool:
        if self._descriptor is None or not self._names(self._descriptor):
            return False
        return self._owner.encode() in os.pread(self._descriptor, _RECORD, 0)

    def _beat(self, count: int) -> None:
        record = {"owner": self._owner, "boot": boot_id(), "flock": self._locks, "beat": count}
        if self._descriptor is not None:
            os.pwrite(self._descriptor, json.dumps(record).encode().ljust(256), 0)
            os.fsync(self._descriptor)  # or other hosts see it only when the file is closed

    def _keep(self) -> None:
        count = 0
        while not self._released.wait(self._heartbeat):
            count += 1
            with self._lock, contextlib.suppress(OSError):
                if self._descriptor is None or not self._is_ours():
                    return
                self._beat(count)


def _beginning(path: Path) -> bytes:
    """Read a lease's record, or as much of what lies in its place. Raises OSError."""
    descriptor = untrusted_files.open_plain(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, _RECORD, 0)
    finally:
        os.close(descriptor)


def _flock(descriptor: int) -> bool:
    """Lock without waiting; False when another holds it or the file system does not know locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@functools.cache
def boot_id() -> str:
    """Name the running kernel: the same in all containers of a host."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
