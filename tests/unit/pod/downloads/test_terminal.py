"""Progress on a terminal of any width, and sentences that are not drawn over."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

import pytest
from fakes.pod import SCRIPTS, Pod, huggingface
from fakes.pod import row as listed
from servers.hub import Hub

from pod.downloads import terminal
from pod.downloads.progress import Progress
from pod.downloads.states import State

if TYPE_CHECKING:
    from pathlib import Path

GB = 1_000_000_000
ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def fetching(name: str = "sd_xl_base_1.0.safetensors", **changes: object) -> Progress:
    file = Progress("m", f"checkpoints/{name}", 7 * GB, State.FETCHING, int(3.5 * GB), rate=100e6)
    for key, value in changes.items():
        setattr(file, key, value)
    return file


def test_a_row_on_a_wide_terminal() -> None:
    assert terminal.row(fetching(), 120) == (
        "sd_xl_base_1.0.safetensors                "
        "[########--------]  50%  3.5 GB of 7.0 GB   100 MB/s         35 s"
    )


def test_a_row_on_a_narrow_one() -> None:
    assert terminal.row(fetching(), 40) == "sd_xl_base_….safetensors   50% 100 MB/s"


@pytest.mark.parametrize(
    "file",
    [
        fetching(),
        fetching("short.pt", rate=0.0),
        fetching("long" * 30, total=None, bytes=0),
        fetching(note="huggingface.co answers 503; again in 4 s, and so on for quite a while"),
        fetching(state=State.WAITING),
        fetching(state=State.CHECKING),
        fetching(rate=1.0),
    ],
)
def test_no_row_is_wider_than_the_terminal(file: Progress) -> None:
    """A row that wraps would be drawn over in part only."""
    assert [width for width in range(20, 220) if len(terminal.row(file, width)) >= width] == []


def test_what_holds_a_file_up_is_said_in_its_row() -> None:
    assert "answers 503" in terminal.row(fetching(note="hub answers 503; again in 4 s"), 80)


def test_as_many_rows_as_there_is_room_for() -> None:
    files = [fetching(f"{n}.pt") for n in range(30)]
    drawn = terminal.rows(files, 100, 10)
    assert len(drawn) == 8
    assert drawn[-2] == "… and 24 more"
    assert drawn[-1] == "0 of 30 files, 105.0 GB of 210.0 GB, 3.0 GB/s, 35 s left"
    assert len(terminal.rows(files[:7], 100, 10)) == 8


def on_a_terminal(pod: Pod, columns: int, **environment: str) -> str:
    """Run `fetch` with a terminal of that width; returns what it wrote there."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    argv = [sys.executable, "-I", "-S", str(SCRIPTS), "fetch"]
    with subprocess.Popen(argv, env=pod.environment(TERM="xterm", **environment), stderr=follower) as process:
        os.close(follower)
        said = b""
        while block := _read(leader):
            said += block
        process.wait(30)
    os.close(leader)
    return said.decode().replace("\r\n", "\n")


def _read(leader: int) -> bytes:
    try:
        return os.read(leader, 65536)
    except OSError:  # how Linux says that nobody has the other end open any more
        return b""


@pytest.mark.parametrize("columns", [40, 100])
@pytest.mark.parametrize("colour", [True, False])
def test_a_terminal_shows_rows_and_then_the_summary(
    tmp_path: Path,
    columns: int,
    colour: bool,
) -> None:
    with Hub() as hub:
        pod = Pod(tmp_path, hub)
        file = hub.add("org/repo", "weights.safetensors", 600_000)
        pod.offer({"m": [listed(file, huggingface(file))]})
        hub.rate = 30_000
        said = on_a_terminal(pod, columns, **({} if colour else {"NO_COLOR": "1"}))
    assert said.endswith("fetch: 1 fetched (600 kB), 0 already there, 0 failed, of 1 files\n")
    assert "fetch: m: checkpoints/weights.safetensors: fetched and checked\n" in said
    assert ("\x1b[36m" in said) is colour
    shown = [ESCAPE.sub("", line).strip("\r") for line in said.split("\n")]
    drawn = [line for line in shown if line.startswith("weights.safetensors ")]
    assert len(drawn) > 2
    assert all(len(line) < columns for line in drawn)
    assert said.count("\x1b[2A\r\x1b[J") == len(drawn)  # each is cleared before the next


def test_a_log_gets_no_control_characters(tmp_path: Path) -> None:
    with Hub() as hub:
        pod = Pod(tmp_path, hub)
        file = hub.add("org/repo", "weights.safetensors", 60_000)
        pod.offer({"m": [listed(file, huggingface(file))]})
        assert "\x1b" not in pod.fetch(settings={"TERM": "xterm"})[1]
