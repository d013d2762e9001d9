"""The job file of a worker that is killed, while a process that it forked lives on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from images import ROOT

from worker.job_file import JobFile

# As the runpod SDK starts its heartbeat (rp_ping.py): a daemon process of multiprocessing.
_WORKER = """
import os, sys, time
from multiprocessing import get_context
from pathlib import Path
from worker import children
from worker.job_file import JobFile
if sys.argv[2] == "tied":
    children.end_with_this()
jobs = JobFile(Path(sys.argv[1]))
jobs.claim()
jobs.note("job-1", "its prompt")
child = get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
child.start()
print(child.pid, flush=True)
time.sleep(60)
"""


def _killed(path: Path, how: str) -> int:
    """Kill a worker that has an open job; returns the process that it forked."""
    argv = [sys.executable, "-c", _WORKER, str(path), how]
    with subprocess.Popen(argv, cwd=ROOT / "scripts", stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.kill()
        return child


def test_what_it_forked_keeps_no_lock(tmp_path: Path) -> None:
    child = _killed(tmp_path / "jobs.json", "left")
    try:
        found: dict[str, str] = {}
        end = time.monotonic() + 10
        while not found and time.monotonic() < end:  # it may not have begun yet
            found = JobFile(tmp_path / "jobs.json").claim()
        os.kill(child, 0)  # it lives
        assert found == {"job-1": "its prompt"}
    finally:
        os.kill(child, signal.SIGKILL)


def test_what_it_forked_ends_with_it(tmp_path: Path) -> None:
    child = _killed(tmp_path / "jobs.json", "tied")
    end = time.monotonic() + 10
    while (there := _lives(child)) and time.monotonic() < end:
        time.sleep(0.02)
    assert not there


def _lives(process: int) -> bool:
    """Tell whether a process does, as more than an entry that nobody has waited for."""
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
