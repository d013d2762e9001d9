"""Processes that end with whoever started them, and groups that are known again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes.pod import SCRIPTS

from pod.util import child_processes

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
# A parent with a child that lives in a thread of the parent's, which waits for it as a service's does.
PARENT = f"""
import subprocess, sys, threading
sys.path.insert(0, {str(SCRIPTS)!r})
from pod.util import child_processes
import signal
def keep():
    child = subprocess.Popen(child_processes.tied({SLEEP!r}, signal.SIGTERM), process_group=0)
    print(child.pid, flush=True)
    child.wait()
thread = threading.Thread(target=keep)
thread.start()
thread.join()
"""


def gone(process: int) -> bool:
    try:
        return "Z (zombie)" in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return True


def wait_for(condition: object, seconds: float = 5) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_child_ends_when_its_parent_is_killed_and_not_before() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        time.sleep(0.3)
        assert not gone(child)
        parent.kill()
        wait_for(lambda: gone(child))


def test_what_cannot_be_run_is_left_to_whoever_starts_it() -> None:
    assert child_processes.tied(["/none/python", "x"]) == ["/none/python", "x"]
    assert child_processes.tied([sys.executable], signal.SIGTERM)[:3] == [
        child_processes.SETPRIV,
        "--pdeathsig",
        "TERM",
    ]


def test_an_image_without_setpriv_still_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_processes, "SETPRIV", "/none/setpriv")
    assert child_processes.tied([sys.executable]) == [sys.executable]


def test_a_group_is_ended_with_all_that_is_in_it(tmp_path: Path) -> None:
    """Its leader is gone already; what that has started is not."""
    code = "import os, time\nif os.fork() == 0:\n    print(os.getpid(), flush=True)\n    time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", f"import time\n{code}\nelse:\n    time.sleep(0.5)"],
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
        env=child_processes.marked(os.environ),
    ) as leader:
        assert leader.stdout
        left = int(leader.stdout.readline())
        child_processes.note(str(tmp_path), "comfyui", leader.pid)
        leader.wait()
        assert child_processes.group(str(tmp_path), "comfyui") == leader.pid
        assert child_processes.end_left_over(str(tmp_path)) == ["comfyui"]
        assert gone(left)
    assert child_processes.end_left_over(str(tmp_path)) == []


def test_a_number_that_was_given_out_again_is_not_ended(tmp_path: Path) -> None:
    with subprocess.Popen(SLEEP, process_group=0) as other:
        child_processes.note(str(tmp_path), "comfyui", other.pid)
        path = tmp_path / child_processes.FOLDER / "comfyui"
        path.write_text(f"{other.pid} {child_processes.start(other.pid) - 1}\n")
        assert child_processes.group(str(tmp_path), "comfyui") is None
        assert child_processes.end_left_over(str(tmp_path)) == []
        assert other.poll() is None
        other.kill()


WITHOUT_LEADER = "import os, time\nif os.fork() == 0:\n    print(os.getpid(), flush=True)\n    time.sleep(60)"


@pytest.mark.parametrize("rest", ["", " {init} {session} 00", " 1 {session} {mark}"])
def test_a_group_without_a_leader_that_is_not_known_to_be_ours_is_not_ended(
    tmp_path: Path, rest: str
) -> None:
    """An old note, another's group of that number, and a note of the container's last run."""
    with subprocess.Popen(
        [sys.executable, "-c", WITHOUT_LEADER],
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
        env=child_processes.marked(os.environ),
    ) as leader:
        assert leader.stdout
        left = int(leader.stdout.readline())
        child_processes.note(str(tmp_path), "comfyui", leader.pid)
        path = tmp_path / child_processes.FOLDER / "comfyui"
        number, began, init, session, mark = path.read_text().split()
        leader.wait()
        path.write_text(f"{number} {began}{rest.format(init=init, session=session, mark=mark)}")
        assert child_processes.group(str(tmp_path), "comfyui") is None
        assert child_processes.end_left_over(str(tmp_path)) == []
        assert not gone(left)
        os.kill(left, signal.SIGKILL)


BROKEN = ["", "x y", "1", "1 2 3", "-1 5", "0 5", "1 5", f"{2**70} 1", "²", "1 " + "9" * 6000]


@pytest.mark.parametrize("text", BROKEN)
def test_a_note_that_is_broken_names_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / child_processes.FOLDER).mkdir()
    (tmp_path / child_processes.FOLDER / "comfyui").write_text(text)
    assert child_processes.group(str(tmp_path), "comfyui") is None
    assert child_processes.end_left_over(str(tmp_path)) == []
    assert not child_processes.end(str(tmp_path), "other")


def test_a_folder_that_cannot_be_written_costs_the_note(tmp_path: Path) -> None:
    (tmp_path / child_processes.FOLDER).touch()
    child_processes.note(str(tmp_path), "comfyui", os.getpid())
    assert child_processes.group(str(tmp_path), "comfyui") is None
