"""One life of ComfyUI, and the ways out for what it prints."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from pod.supervisor.process import ComfyProcess, FdWriter, copy, now

if TYPE_CHECKING:
    import pytest


def test_all_that_it_prints_is_passed_on_before_its_end_is_told() -> None:
    seen: list[bytes] = []
    life = ComfyProcess([sys.executable, "-c", "import os; os.write(1, b'out'); os.write(2, b'err')"])
    life.forward_output(seen.append)
    assert life.wait() == 0
    assert b"".join(seen) == b"outerr"
    assert life.over
    assert life.spawned <= now()


def test_an_end_by_a_signal_is_told_as_one() -> None:
    life = ComfyProcess([sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"])
    life.forward_output()
    assert life.wait() == -signal.SIGKILL


def test_what_outlives_it_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in a group of its own keeps the pipe open."""
    monkeypatch.setattr("pod.supervisor.process._DRAIN_SECONDS", 0.1)
    program = "import os, time\nif os.fork() == 0: os.setpgid(0, 0); time.sleep(2); os._exit(0)"
    life = ComfyProcess([sys.executable, "-c", program])
    life.forward_output()
    begun = time.monotonic()
    assert life.wait() == 0
    assert time.monotonic() - begun < 1.5


def test_the_clean_stop_comes_first() -> None:
    program = "import time\ntry: print('up'); time.sleep(60)\nexcept KeyboardInterrupt: raise SystemExit(7)"
    up: list[bytes] = []
    life = ComfyProcess([sys.executable, "-c", program])
    life.forward_output(up.append)
    while not up:
        time.sleep(0.01)
    life.end(5)
    assert life.wait() == 7


def test_a_broken_way_out_is_given_up() -> None:
    """Whoever read the pod's log is gone; ComfyUI must go on."""
    reading, writing = os.pipe()
    outlet = FdWriter(writing)
    outlet(b"heard")
    os.close(reading)
    outlet(b"not heard")
    outlet(b"nor this")
    os.close(writing)


def test_copying_ends_with_its_source() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"all of it")
    os.close(writing)
    one: list[bytes] = []
    other: list[bytes] = []
    copy(reading, one.append, other.append)
    os.close(reading)
    assert one == other == [b"all of it"]
