"""A disk that is too small is said before it is full, and with its mount point."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from pod.downloads import disk_space
from pod.downloads.progress import Progress
from pod.downloads.states import State
from pod.net.http import RefusedError

GB = 1_000_000_000


@pytest.fixture
def ten_gb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=10 * GB // 4096, f_frsize=4096))


def fetching(total: int, received: int = 0) -> Progress:
    return Progress("m", "a", total=total, bytes=received, state=State.FETCHING)


@pytest.mark.usefixtures("ten_gb")
def test_needs_has_and_the_mount_point_are_named(tmp_path: Path) -> None:
    space = disk_space.DiskReservations()
    with pytest.raises(RefusedError, match=r"needs 12\.0 GB more, but /.* has 10\.0 GB free: use a larger"):
        space.promise(tmp_path, 12 * GB, fetching(12 * GB))
    space.promise(tmp_path, 9 * GB, fetching(9 * GB))


@pytest.mark.usefixtures("ten_gb")
def test_two_files_are_not_promised_the_same_bytes(tmp_path: Path) -> None:
    space, first = disk_space.DiskReservations(), fetching(6 * GB)
    space.promise(tmp_path, 6 * GB, first)
    with pytest.raises(RefusedError, match=r"10\.0 GB free, 6\.0 GB of them promised to other files"):
        space.promise(tmp_path, 6 * GB, fetching(6 * GB))
    first.moved(3 * GB, 6 * GB)  # what has arrived is in the free space's figure already
    space.promise(tmp_path, 6 * GB, fetching(6 * GB))


@pytest.mark.usefixtures("ten_gb")
def test_a_staged_file_needs_room_twice(tmp_path: Path) -> None:
    """Where it grows, and where it is copied to."""
    space = disk_space.DiskReservations()
    with pytest.raises(RefusedError, match=r"needs 12\.0 GB more, but /dev/shm has 10\.0 GB free"):
        space.promise(tmp_path, 2 * GB, fetching(12 * GB, 10 * GB), (Path("/dev/shm"), 12 * GB))
    space.promise(tmp_path, 2 * GB, fetching(12 * GB, 10 * GB), (Path("/dev/shm"), 3 * GB))
    assert space.reserve(tmp_path, 7 * GB, fetching(7 * GB))
    assert not space.reserve(tmp_path, 1 * GB, fetching(1 * GB))
    assert not space.reserve(Path("/dev/shm"), 9 * GB, fetching(9 * GB))


@pytest.mark.usefixtures("ten_gb")
def test_a_promise_ends_with_the_file(tmp_path: Path) -> None:
    space, first = disk_space.DiskReservations(), fetching(9 * GB)
    space.promise(tmp_path, 9 * GB, first)
    space.promise(tmp_path, 9 * GB, first)  # begun anew: one promise, not two
    first.state = State.FAILED
    space.promise(tmp_path, 9 * GB, fetching(9 * GB))


def test_the_mount_point_of_a_path_that_is_not_there_yet() -> None:
    assert disk_space.mount_point(Path("/proc/podkiln/models")) == Path("/proc")


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "is full"),
        (errno.EDQUOT, "is full"),
        (errno.EFBIG, "is full"),
        (errno.EROFS, "mount the volume writable"),
        (errno.EACCES, "mount the volume writable"),
        (errno.EIO, "could not be written to / .*check the volume"),
    ],
)
def test_errors_of_the_file_system(number: int, sentence: str) -> None:
    refusal = disk_space.refusal(OSError(number, os.strerror(number)), Path("/podkiln/models/a"))
    with pytest.raises(RefusedError, match=sentence):
        raise refusal
