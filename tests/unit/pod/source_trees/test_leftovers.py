"""What fetches leave behind goes, and what is in use stays."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from pod.source_trees import leftovers

if TYPE_CHECKING:
    from pathlib import Path

DAY = 24 * 3600


def test_what_was_unpacked_goes_but_for_what_is_wanted(tmp_path: Path) -> None:
    for name in ("nodes/Old", "nodes/Asks", "code/old-engine", "code/ours-engine", "archives/asks"):
        (tmp_path / name / "folder").mkdir(parents=True)
    wanted = [tmp_path / "nodes" / "Asks", tmp_path / "code" / "ours-engine"]
    leftovers.clear(tmp_path, wanted)
    assert sorted(f"{path.relative_to(tmp_path)}" for path in tmp_path.glob("*/*")) == [
        "archives/asks",
        "code/ours-engine",
        "nodes/Asks",
    ]

    leftovers.clear(tmp_path, wanted[:1])
    assert not wanted[1].exists(), "nor code of which none is wanted any more"


def test_the_folder_of_a_fetch_that_was_killed_goes_and_that_of_one_at_work_stays(tmp_path: Path) -> None:
    (tmp_path / ".unpacking-killed" / "tree").mkdir(parents=True)
    with leftovers.unpacking(tmp_path) as folder:
        leftovers.clear(tmp_path, ())
        assert [*tmp_path.iterdir()] == [folder]
    assert [*tmp_path.iterdir()] == []


# A file's name, its age in days, and whether it stays.
KEPT = {
    "asks/1.tar.gz": (80, True),
    "asks/2.tar.gz": (100, False),
    "gone/3.tar.gz": (100, False),
    "asks/.4.tar.gz.61616161": (0.5, True),
    "asks/.5.tar.gz.61616161": (2, False),
    "asks/notes.txt": (100, True),
}


@pytest.mark.parametrize("linked", [False, True])
def test_archives_go_that_no_start_has_used_for_long(tmp_path: Path, *, linked: bool) -> None:
    kept = tmp_path / ".podkiln" / "nodes"
    place = tmp_path / "elsewhere" if linked else kept
    for name, (age, _) in KEPT.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
        os.utime(place / name, (0, time.time() - age * DAY))
    if linked:
        kept.parent.mkdir()
        kept.symlink_to(place)
    leftovers.expire(kept)
    assert {name: (place / name).exists() for name in KEPT} == {
        name: stays or linked for name, (_, stays) in KEPT.items()
    }
