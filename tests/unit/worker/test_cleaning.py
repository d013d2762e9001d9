"""Files of jobs go when they are old enough, and nobody else's do."""

from __future__ import annotations

import asyncio
import base64
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
from unit.test_contract_comfyui import SAVED, Server, root
from unit.worker.test_job import run

from pod.util.env import SettingError
from worker import command
from worker.cleaning import Cleaner
from worker.job import Place

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["root"]  # a fixture: the folder that the contract server needs


@dataclass
class Folders:
    """ComfyUI's folders, and a clock that the test turns."""

    top: Path
    now: float = field(default=0.0)

    def write(self, name: str, age: float = 0.0) -> Path:
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        os.utime(path, (self.now - age, self.now - age))
        return path


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    monkeypatch.setenv("PODKILN_RUN", str(tmp_path))
    words = [f"--output-directory={tmp_path}/output", f"--input-directory={tmp_path}/input"]
    (tmp_path / "comfyui.args").write_text("\0".join(words))
    return Folders(tmp_path, 1_000_000.0)


def end(cleaner: Cleaner, job: str = "job") -> None:
    asyncio.run(cleaner.end(job))


def test_a_file_goes_when_no_job_has_had_to_do_with_it_for_so_long(folders: Folders) -> None:
    cleaner = Cleaner(60.0, lambda: folders.now)
    cleaner.begin("job")
    made, brought = folders.write("output/night/a.png"), folders.write("input/job-files/abc/cat.png")
    cleaner.note("job", "output", "night/a.png")
    cleaner.note("job", "input", "job-files/abc/cat.png")
    end(cleaner)
    folders.now += 59
    cleaner.begin("other")
    cleaner.note("other", "output", "night/a.png")  # ComfyUI remembers it
    end(cleaner, "other")
    assert made.exists()
    assert brought.exists()
    folders.now += 1
    end(cleaner, "nothing")
    assert made.exists()
    assert not brought.parent.exists(), "its own folder goes with it"
    folders.now += 59
    end(cleaner, "nothing")
    assert not made.exists()


def test_a_file_that_an_open_job_has_to_do_with_stays(folders: Folders) -> None:
    cleaner = Cleaner(0.0, lambda: folders.now)
    made = folders.write("output/a.png")
    for job in ("one", "two"):
        cleaner.begin(job)
        cleaner.note(job, "output", "a.png")
    end(cleaner, "one")
    assert made.exists()
    end(cleaner, "two")
    assert not made.exists()


def test_what_was_there_before_is_left_alone(folders: Folders) -> None:
    """What a node names is not always what it made: a mesh that it shows, say."""
    cleaner = Cleaner(0.0, lambda: folders.now)
    cleaner.begin("job")
    old, outside = folders.write("output/mine.png", age=3600), folders.write("secret.txt")
    link = folders.top / "output" / "link.png"
    link.symlink_to(outside)
    folder = folders.top / "output" / "folder"
    folder.mkdir()
    for name in ("mine.png", "../secret.txt", "link.png", "folder", "none.png"):
        cleaner.note("job", "output", name)
    end(cleaner)
    assert all(each.exists() for each in (old, outside, link, folder))


def test_unless_it_is_asked_for_all_files_stay(folders: Folders) -> None:
    cleaner = Cleaner(None, lambda: folders.now)
    cleaner.begin("job")
    made = folders.write("output/a.png")
    cleaner.note("job", "output", "a.png")
    folders.now += 1e9
    end(cleaner)
    assert made.exists()


def test_what_went_is_made_anew_for_the_next(
    root: Path, tmp_path: Path, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTRACT_CACHE", "1")
    words = [f"--output-directory={tmp_path}/output", f"--input-directory={tmp_path}/input"]
    with Server(root, *words) as server:
        place = Place(f"http://127.0.0.1:{server.port}", tmp_path, cleaner=Cleaner(0.0), apart=True)
        picture = {"name": "cat.png", "image": base64.b64encode(b"cat").decode()}
        first = run(place, workflow=SAVED, images=[picture])
        assert [each for each in tmp_path.glob("*put/**/*") if each.is_file()] == []
        assert run(place, workflow=SAVED, images=[picture]) == first
        run(replace(place, cleaner=Cleaner()), workflow=SAVED, images=[picture])
        left = {each.name for each in tmp_path.glob("*put/**/*") if each.is_file()}
    assert left == {"cat.png", "lake_00001_.png"}


@pytest.mark.parametrize(("hours", "seconds"), [("", None), ("0", 0.0), ("0.5", 1800.0), ("24", 86400.0)])
def test_how_long_is_a_number_of_hours(hours: str, seconds: float | None) -> None:
    assert command.worker({"WORKER_KEEP_HOURS": hours}).place.cleaner._keep == seconds


@pytest.mark.parametrize("hours", ["-1", "1h", "never", "1e3"])
def test_anything_else_stops_the_worker(hours: str) -> None:
    with pytest.raises(SettingError, match=f"WORKER_KEEP_HOURS='{hours}' is not a number of hours"):
        command.worker({"WORKER_KEEP_HOURS": hours})
