"""The log on the volume: rotated by size, one for each pod, and nobody waits for it."""

from __future__ import annotations

import errno
import fcntl
import os
import queue
import threading
import time
from typing import TYPE_CHECKING

import pytest

from pod.supervisor import log_file
from pod.supervisor.log_file import AsyncLog, RotatingLog

if TYPE_CHECKING:
    from pathlib import Path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name[0] != ".")


def test_it_is_rotated_by_size_and_the_oldest_goes(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "comfyui.log", size=20, files=3)
    for number in range(8):
        log.write(b"line number %d\n" % number)  # 14 bytes
    log.close()
    assert names(tmp_path) == ["comfyui.log", "comfyui.log.1", "comfyui.log.2"]
    assert (tmp_path / "comfyui.log").read_bytes() == b"line number 7\n"
    assert (tmp_path / "comfyui.log.2").read_bytes() == b"line number 5\n"


def test_a_line_is_not_torn_by_a_new_file(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "comfyui.log", size=10)
    log.write(b"one\ntw")
    log.write(b"o\nthree\nfo")
    assert (tmp_path / "comfyui.log.1").read_bytes() == b"one\ntwo\n"
    assert (tmp_path / "comfyui.log").read_bytes() == b"three\nfo"


def test_a_new_boot_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    for text in (b"first\n", b"second\n", b"third\n"):
        log = RotatingLog(tmp_path / "comfyui.log", size=13)
        log.write(text)
        log.close()
    assert (tmp_path / "comfyui.log.1").read_bytes() == b"first\nsecond\n"
    assert (tmp_path / "comfyui.log").read_bytes() == b"third\n"


def test_what_is_put_is_written_by_the_time_it_is_closed(tmp_path: Path) -> None:
    log = AsyncLog(tmp_path / "logs", pytest.fail)
    log.put(b"one\n")
    log.put(b"two\n")
    log.close(5)
    assert (tmp_path / "logs" / "comfyui.log").read_text() == "one\ntwo\n"


def test_two_pods_on_one_volume_have_a_log_each_and_a_dead_ones_is_free_again(tmp_path: Path) -> None:
    assert log_file.own_path(tmp_path).name == "comfyui.log"
    with (tmp_path / ".comfyui-2.lock").open("w") as second:
        fcntl.flock(second, fcntl.LOCK_EX)
        assert log_file.own_path(tmp_path).name == "comfyui-3.log"
    assert log_file.own_path(tmp_path).name == "comfyui-2.log"


def test_where_a_volume_knows_no_locks_there_is_one_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert log_file.own_path(tmp_path).name == "comfyui.log"


def test_a_volume_that_cannot_be_written_costs_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is tried again."""
    monkeypatch.setattr(log_file, "RETRY_SECONDS", 0.0)
    (tmp_path / "logs").write_text("a file in its place")
    said: list[str] = []
    log = AsyncLog(tmp_path / "logs", said.append)
    for _ in range(3):
        log.put(b"lost\n")
        time.sleep(0.02)
    log.close(5)
    assert len(said) == 1
    assert said[0].startswith(f"the log in {tmp_path / 'logs'} cannot be written (File exists): ")


def test_a_full_volume_is_tried_again_and_what_is_missing_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_file, "RETRY_SECONDS", 0.0)
    write = RotatingLog.write

    def full(_log: RotatingLog, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(RotatingLog, "write", full)
    said: queue.Queue[str] = queue.Queue()
    log = AsyncLog(tmp_path, said.put)
    log.put(b"lost\n")
    assert "No space left on device" in said.get(timeout=5)
    monkeypatch.setattr(RotatingLog, "write", write)
    log.put(b"kept\n")
    log.close(5)
    assert (tmp_path / "comfyui.log").read_text() == "\npodkiln: 5 bytes are missing here.\nkept\n"


def test_a_volume_that_hangs_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "HELD", 1000)
    back = threading.Event()
    monkeypatch.setattr(RotatingLog, "write", lambda _log, _data: back.wait(30))
    log = AsyncLog(tmp_path, pytest.fail)
    begun = time.monotonic()
    for _ in range(100):
        log.put(b"x" * 100)
    log.close(0.1)
    assert time.monotonic() - begun < 1
    assert log._held <= 1000
    assert log._lost >= 8000
    back.set()  # lets the thread end
