"""Lock files are opened without harm to what lies in their place."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from podkiln.errors import UsageError
from podkiln.util import lock_file

if TYPE_CHECKING:
    from pathlib import Path


def test_a_folder_gets_its_lock_file(tmp_path: Path) -> None:
    for _ in range(2):
        lock_file.open_in(tmp_path / "new", "it").close()
    assert [path.name for path in (tmp_path / "new").iterdir()] == [lock_file.NAME]


def test_what_a_link_leads_to_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("content")
    (tmp_path / lock_file.NAME).symlink_to(tmp_path / "precious")
    with pytest.raises(UsageError, match=r"^it cannot be written: Too many levels of symbolic links"):
        lock_file.open_in(tmp_path, "it")
    assert (tmp_path / "precious").read_text() == "content"


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / lock_file.NAME)
    with pytest.raises(UsageError, match="its lock file is no regular file"):
        lock_file.open_in(tmp_path, "it")
