"""A file is written whole or not at all, and a failure names it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from podkiln.util import atomic


def test_a_full_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left") as failed:
        atomic.write(tmp_path / "a.json", "{}")
    assert failed.value.filename == str(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []
