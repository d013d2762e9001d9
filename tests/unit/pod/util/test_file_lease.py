"""One owner at a time; a dead one is noticed, a slow one is not taken for dead."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pod.util import file_lease
from pod.util.file_lease import FileLease

SCRIPTS = Path(__file__).parents[4] / "scripts"


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / ".podkiln" / "a.lock"


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network volume that does not know flock."""
    monkeypatch.setattr(file_lease, "_flock", lambda _: False)


def quick(lock: Path) -> FileLease:
    return FileLease(lock, heartbeat=0.02, stale=0.2)


def until(condition: object, seconds: float = 2.0) -> bool:
    assert callable(condition)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_one_owner_at_a_time(lock: Path) -> None:
    first, second = quick(lock), quick(lock)
    assert first.acquire()
    assert not second.acquire()
    second.release()  # of what it does not have: harmless
    assert not second.acquire()
    first.release()
    assert second.acquire()
    second.release()
    assert not list(lock.parent.iterdir())


def holder(lock: Path) -> subprocess.Popen[bytes]:
    code = (
        f"import sys, time; sys.path.insert(0, {str(SCRIPTS)!r})\n"
        "from pathlib import Path\nfrom pod.util.file_lease import FileLease\n"
        f"assert FileLease(Path({str(lock)!r})).acquire(); print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"held\n"
    return process


def test_after_kill_9_on_the_same_machine_nobody_waits(lock: Path) -> None:
    with holder(lock) as process:
        heir = FileLease(lock)
        assert not heir.acquire()
        process.kill()
        process.wait()
        assert heir.acquire()
        assert not FileLease(lock).acquire()
        heir.release()


@pytest.mark.usefixtures("no_flock")
def test_without_flock_a_dead_owner_is_known_by_its_silence(lock: Path) -> None:
    with holder(lock) as process:
        process.kill()
        process.wait()
        heir = quick(lock)
        start = time.monotonic()
        assert until(heir.acquire)
        assert time.monotonic() - start >= 0.2
        heir.release()


@pytest.mark.usefixtures("no_flock")
def test_without_flock_a_living_owner_is_left_alone(lock: Path) -> None:
    owner, other = quick(lock), quick(lock)
    assert owner.acquire()
    assert not until(other.acquire, 0.6)
    assert not owner.lost
    owner.release()


def test_another_hosts_owner_is_judged_by_its_heartbeat_alone(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flock may not reach other hosts: that it can be had proves nothing there."""
    lock.parent.mkdir()
    lock.write_text('{"owner": "x", "boot": "another kernel", "flock": true, "beat": 7}')
    heir = quick(lock)
    assert not heir.acquire()
    assert until(heir.acquire)
    heir.release()


@pytest.mark.parametrize("text", ["", "garbage", "[]", '{"owner": "x"}', "x" * 5000])
def test_a_lock_that_says_nothing_is_waited_out(lock: Path, text: str) -> None:
    """Its owner may be just writing it, or died doing so."""
    lock.parent.mkdir()
    lock.write_text(text)
    heir = quick(lock)
    assert not heir.acquire()
    assert until(heir.acquire)
    heir.release()


@pytest.mark.usefixtures("no_flock")
def test_an_owner_that_was_taken_for_dead_learns_it(lock: Path) -> None:
    """A pod that was frozen must not publish over the one that took over."""
    frozen = FileLease(lock, heartbeat=60)
    assert frozen.acquire()
    heir = quick(lock)
    assert until(heir.acquire)
    assert frozen.lost
    assert not heir.lost
    frozen.release()
    assert not heir.lost
    assert lock.exists()
    heir.release()


def test_a_place_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        FileLease(tmp_path / "file" / ".podkiln" / "a.lock").acquire()


def test_a_full_volume_leaves_no_claim(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty one would be taken for that of another pod, for half a minute."""

    def full(_descriptor: int, _data: bytes, _offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            quick(lock).acquire()
    assert not list(lock.parent.iterdir())
    assert quick(lock).acquire()
