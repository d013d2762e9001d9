"""What a command takes: all of its memory and that of its children, and disk beyond what was there."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from watch import used, watch

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
HOLD = "import time; held = b'x' * (60 << 20); time.sleep(0.5)"
PARENT = f"import subprocess, sys; held = b'x' * (40 << 20); subprocess.run([sys.executable, '-c', {HOLD!r}])"
SCRATCH = """
import pathlib, sys, time
kept, gone = pathlib.Path(sys.argv[1], "kept"), pathlib.Path(sys.argv[1], "gone")
kept.write_bytes(b"x" * (1 << 20)), gone.write_bytes(b"x" * (5 << 20))
time.sleep(0.8)
gone.unlink()
"""


def test_memory_is_that_of_the_whole_family(tmp_path: Path) -> None:
    taken = watch([sys.executable, "-c", PARENT], {}, [], tmp_path / "log")
    assert taken.status == 0, taken.output
    assert 100 * MIB < taken.memory < 150 * MIB
    assert taken.seconds >= 0.5


def test_disk_is_what_comes_on_top_and_what_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "before").write_bytes(b"x" * 3 * MIB)
    taken = watch([sys.executable, "-c", SCRATCH, folder], {}, [folder], tmp_path / "log")
    assert taken.disk == 6 * MIB
    assert taken.left == MIB


def test_a_file_of_two_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * MIB)
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    assert used([tmp_path]) == MIB
    assert used([tmp_path / "none"]) == 0


def test_what_a_command_says_and_how_it_ends_is_told(tmp_path: Path) -> None:
    taken = watch(["sh", "-c", 'echo "$WORD"; exit 3'], {"WORD": "no"}, [], tmp_path / "log")
    assert (taken.status, taken.output) == (3, "no\n")
