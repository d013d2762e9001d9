"""What a path leads to, in words."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from podkiln.util import files

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "dead").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    found = {name: files.problem(tmp_path / name) for name in ("file", "folder", "dead", "loop", "fifo")}
    assert found == {
        "file": None,
        "folder": "is a folder",
        "dead": "is a link that leads nowhere",
        "loop": "is a link that leads back to itself",
        "fifo": "is no regular file",
    }


def test_what_is_not_there_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("none", "file/below", "a\x00b", "x" * 5000):
        assert files.problem(tmp_path / name) == files.ABSENT
