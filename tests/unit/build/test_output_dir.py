"""Contexts on disk: all of one or nothing, whatever the umask, and however a run is killed."""

from __future__ import annotations

import errno
import fcntl
import os
import pathlib
import stat
from typing import TYPE_CHECKING

import pytest

from podkiln.build import output_dir
from podkiln.errors import PodkilnError, UsageError
from podkiln.render.build_context import File
from podkiln.util import atomic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES = {"Dockerfile": File(b"FROM scratch\n"), "build/run.sh": File(b"#!/bin/sh\n", executable=True)}
NEWER = {"Dockerfile": File(b"FROM scratch AS newer\n")}


class KilledError(BaseException):
    """What SIGKILL does, as far as the disk can tell: nothing more happens."""


def modes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): oct(stat.S_IMODE(path.stat().st_mode)) for path in folder.rglob("*")
    }


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize("mask", [0o002, 0o022, 0o077])
def test_modes_do_not_depend_on_the_umask(mask: int, tmp_path: Path, umask: None) -> None:
    os.umask(mask)
    output_dir.write(FILES, tmp_path / "lazy")
    assert modes(tmp_path / "lazy") == {"Dockerfile": "0o644", "build": "0o755", "build/run.sh": "0o755"}


def test_a_new_context_replaces_the_old_and_keeps_what_was_built(tmp_path: Path) -> None:
    place = tmp_path / "lazy"
    output_dir.write(FILES, place)
    (place / "image").mkdir()
    (place / "image" / "index.json").write_text("{}")
    (place / "report.json").write_text("{}")
    output_dir.write(NEWER, place)
    assert sorted(path.name for path in place.iterdir()) == ["Dockerfile", "image", "report.json"]
    assert (place / "Dockerfile").read_bytes() == NEWER["Dockerfile"].content
    assert [path.name for path in tmp_path.iterdir()] == ["lazy"]


def dying_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the given rename, and all that comes after it, not happen."""
    real, done = pathlib.Path.rename, [0]

    def rename(self: Path, target: Path) -> Path:
        done[0] += 1
        if done[0] >= step:
            raise KilledError
        return real(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", rename)


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_kill_at_any_rename_loses_nothing(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "lazy"
    output_dir.write(FILES, place)
    for name in output_dir.PRESERVED:
        (place / name).mkdir()
    with monkeypatch.context() as patched:
        dying_at(step, patched)
        with pytest.raises(KilledError):
            output_dir.write(NEWER, place)
    output_dir.recover_from_crash(place)
    whole = FILES if step <= 2 else NEWER
    assert (place / "Dockerfile").read_bytes() == whole["Dockerfile"].content
    assert all((place / name).exists() for name in output_dir.PRESERVED)
    assert [path.name for path in tmp_path.iterdir()] == ["lazy"]


@pytest.mark.parametrize("step", [1, 2])
def test_a_kill_while_an_image_is_replaced_leaves_the_old_one(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "lazy"
    output_dir.write(FILES, place)
    for name in ("image", "image.partial"):
        (place / name).mkdir()
        (place / name / "is").write_text(name)
    with monkeypatch.context() as patched:
        dying_at(step, patched)
        with pytest.raises(KilledError):
            output_dir.replace_folder(place / "image.partial", place / "image")
    output_dir.write(NEWER, place)
    assert (place / "image" / "is").read_text() == "image"


def test_a_finished_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    for name in ("new", "place"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "is").write_text(name)
    output_dir.replace_folder(tmp_path / "new", tmp_path / "place")
    assert (tmp_path / "place" / "is").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "docker-bake.json"
    path.write_text("old")
    monkeypatch.setattr(pathlib.Path, "replace", lambda *_: (_ for _ in ()).throw(KilledError()))
    with pytest.raises(KilledError):
        atomic.write(path, "new")
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_two_builds_do_not_share_a_folder(tmp_path: Path) -> None:
    second = output_dir.exclusive_lock(tmp_path / "dist")
    with (
        output_dir.exclusive_lock(tmp_path / "dist"),
        pytest.raises(UsageError, match=r"Another build is writing to .*dist"),
        second,
    ):
        pytest.fail("two at once")
    with output_dir.exclusive_lock(tmp_path / "dist"):
        pass


def test_the_lock_is_one_that_dies_with_its_process(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    with (
        output_dir.exclusive_lock(tmp_path),
        (tmp_path / ".lock").open() as other,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    place = output_dir.exclusive_lock(tmp_path / "file" / "dist")
    with pytest.raises(UsageError, match=r"--out: .* cannot be written"), place:
        pytest.fail("written")


def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output_dir.write(FILES, tmp_path / "lazy")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(PodkilnError, match=rf"^The disk of {tmp_path / 'lazy'} is full: ") as raised:
        output_dir.write(NEWER, tmp_path / "lazy")
    assert raised.value.exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["lazy"]
    assert (tmp_path / "lazy/Dockerfile").read_bytes() == b"FROM scratch\n"
