"""A full disk is one sentence: the folder, and how much is missing."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from podkiln.errors import PodkilnError
from podkiln.util import disk_space

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("needed", "says"),
    [
        (3_500_000_000, "1.0 GB were free, and about 3.5 GB are needed: 2.5 GB are missing."),
        (500_000_000, "1.0 GB were free."),  # something else has filled it since
        (None, "1.0 GB were free."),
    ],
)
def test_what_is_missing_is_told(
    needed: int | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_space, "free", lambda _: 1_000_000_000)
    with pytest.raises(PodkilnError) as full, disk_space.room(tmp_path, needed):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert str(full.value) == f"The disk of {tmp_path} is full: {says}"
    assert full.value.exit_code == 1
    assert "XDG_CACHE_HOME" in str(full.value.hint)


def test_a_quota_is_a_full_disk_and_other_failures_are_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(PodkilnError, match="is full"), disk_space.room(tmp_path):
        raise OSError(errno.EDQUOT, "quota")
    with pytest.raises(PermissionError), disk_space.room(tmp_path):
        raise PermissionError(errno.EACCES, "no")


def test_a_folder_that_is_not_there_yet_lies_where_it_would(tmp_path: Path) -> None:
    assert disk_space.free(tmp_path / "a" / "b") == pytest.approx(disk_space.free(tmp_path), rel=0.2)
