"""What bench/start.py runs inside a container: starts start.sh again and again, and times it.

Prints one JSON line. Times are seconds of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

START = "/start.sh"
PYTHON = Path("/opt/venv/bin/python")
FIFO = Path("/tmp/started")
# Stands in for ComfyUI's Python: says at once that it was reached, and waits to be ended.
PROBE = f"#!/bin/sh\necho started >{FIFO}\nexec sleep 600\n"


def to_exec(runs: int) -> list[float]:
    """Time start.sh from its start to the exec of ComfyUI."""
    kept = PYTHON.with_name("python.kept")
    PYTHON.rename(kept)
    PYTHON.write_text(PROBE)
    PYTHON.chmod(0o755)
    FIFO.unlink(missing_ok=True)
    os.mkfifo(FIFO)
    try:
        return [_one_exec() for _ in range(runs + 1)][1:]  # the first one warms the page cache
    finally:
        PYTHON.unlink()
        kept.rename(PYTHON)


def _one_exec() -> float:
    begun = time.monotonic()
    with _started([START]) as process:
        FIFO.read_text()
        took = time.monotonic() - begun
        _end(process)
    return took


def to_ready(pairs: int) -> list[tuple[float, float]]:
    """Time whole boots in pairs, on one command line: start.sh's, and bare `python main.py`."""
    _one_boot([START])
    arguments = Path("/run/podkiln/comfyui.args").read_text().split("\0")[:-1]
    arguments[arguments.index("--port") + 1] = "8188"  # in the door's place
    bare = [str(PYTHON), "main.py", *arguments]
    return [(_one_boot([START]), _one_boot(bare)) for _ in range(pairs)]


def _one_boot(argv: list[str]) -> float:
    begun = time.monotonic()
    with _started(argv) as process:
        while not _answers():
            if process.poll() is not None:
                sys.exit(f"{argv[0]} ended with {process.returncode} before it served")
            time.sleep(0.01)
        took = time.monotonic() - begun
        _end(process)
    return took


def _answers() -> bool:
    try:
        with socket.create_connection(("127.0.0.1", 8188), timeout=0.2):
            pass
        with urllib.request.urlopen("http://127.0.0.1:8188/system_stats", timeout=5):
            return True
    except OSError:
        return False


def _started(argv: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv, cwd="/opt/ComfyUI", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(15)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    what, count = sys.argv[1], int(sys.argv[2])
    shutil.rmtree("/run/podkiln", ignore_errors=True)
    print(json.dumps(to_exec(count) if what == "exec" else to_ready(count)))
