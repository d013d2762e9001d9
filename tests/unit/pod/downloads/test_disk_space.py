"""A disk that is too small is said before it is full, and with its mount point."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from pod.downloads import disk_space
from pod.downloads.progress import Progress
from pod.downloads.states import State
from pod.net.http import RefusedError
from pod.util.untrusted_files import make_folder

if TYPE_CHECKING:
    from collections.abc import Callable

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
        (errno.EFBIG, "takes no file of this size"),
        (errno.EMFILE, "too many open files; raise the limit"),
        (errno.ENFILE, "too many open files in system; raise the limit"),
        (errno.EROFS, "mount the volume writable"),
        (errno.EACCES, "mount the volume writable"),
        (errno.EIO, "could not be written to / .*check the volume"),
    ],
)
def test_errors_of_the_file_system(number: int, sentence: str) -> None:
    refusal = disk_space.refusal(OSError(number, os.strerror(number)), Path("/podkiln/models/a"))
    with pytest.raises(RefusedError, match=sentence):
        raise refusal


def test_a_volume_without_inodes_is_not_called_full(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"f_files": 6, "f_favail": 0, "f_bavail": 100}
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(**counts))
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "no inodes" in str(disk_space.refusal(error, Path("/podkiln/models/a")))
    counts["f_bavail"] = 0
    assert "is full" in str(disk_space.refusal(error, Path("/podkiln/models/a")))
    counts |= {"f_files": 0, "f_bavail": 100}  # btrfs does not count files
    assert "is full" in str(disk_space.refusal(error, Path("/podkiln/models/a")))


@pytest.mark.parametrize("plant", [Path.touch, os.mkfifo, lambda path: path.symlink_to("nowhere")])
@pytest.mark.parametrize("deep", ["checkpoints", "checkpoints/.podkiln"])
def test_what_lies_where_a_folder_belongs_is_named(
    tmp_path: Path, plant: Callable[[Path], None], deep: str
) -> None:
    plant(tmp_path / "checkpoints")
    with pytest.raises(OSError, match=r".") as failed:
        make_folder(tmp_path / deep)
    said = str(disk_space.refusal(failed.value, tmp_path / "checkpoints/a"))
    assert re.search(r"/checkpoints is an? \w+ where a folder is expected: remove it, then fetch again", said)


def test_a_folder_where_the_file_belongs_is_named(tmp_path: Path) -> None:
    error = IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(tmp_path / "a"))
    assert f"{tmp_path}/a is a folder where a file is expected: remove it" in str(
        disk_space.refusal(error, tmp_path / "a")
    )
