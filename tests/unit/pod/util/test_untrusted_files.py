"""What others plant on a volume leads no write astray and lets nobody wait."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pod.downloads import journaled_copy, part_journal
from pod.downloads.part_journal import PartMetadata
from pod.downloads.partial_file import PartialFile
from pod.resolve.resolved_cache import WISHES, ResolvedCache
from pod.services import service, sshd
from pod.supervisor import log_file
from pod.util import untrusted_files
from pod.util.file_lease import FileLease
from pod.util.files import write_json
from pod.util.untrusted_files import PlantedError
from pod.volume import package_overlay

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "secret of somebody else\n"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file that nothing here has any business with, such as /etc/passwd."""
    path = tmp_path / "passwd"
    path.write_text(SECRET)
    path.chmod(0o644)
    return path


@pytest.fixture(autouse=True)
def untouched(victim: Path, request: pytest.FixtureRequest) -> object:
    """Whatever a test does, the victim is as it was."""
    yield
    assert victim.read_text() == SECRET
    assert stat.S_IMODE(victim.stat().st_mode) == 0o644


def link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def dangling(path: Path, victim: Path) -> None:
    path.symlink_to(victim.parent / "not there yet")


def fifo(path: Path, victim: Path) -> None:
    os.mkfifo(path)


def folder(path: Path, victim: Path) -> None:
    path.mkdir()


def sock(path: Path, victim: Path) -> None:
    os.chdir(path.parent)  # a socket's name has 108 bytes at most
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


def hard(path: Path, victim: Path) -> None:
    os.link(victim, path)


KINDS = [link, dangling, fifo, folder, sock]
Plant = "Callable[[Path, Path], None]"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of ours on a volume."""
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "volume/.podkiln"
    made.mkdir(parents=True)
    return made


@pytest.mark.parametrize("plant", KINDS)
@pytest.mark.parametrize(
    "flags", [os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND | os.O_CREAT, os.O_RDWR | os.O_CREAT]
)
def test_what_is_no_plain_file_is_not_opened(
    here: Path, victim: Path, plant: Callable[[Path, Path], None], flags: int
) -> None:
    plant(here / "x", victim)
    with pytest.raises(PlantedError, match=r"/x is an? .* where a plain file is expected: remove it"):
        untrusted_files.open_plain(here / "x", flags)
    assert not (victim.parent / "not there yet").exists()


def test_a_second_name_of_another_file_is_read_and_not_written(here: Path, victim: Path) -> None:
    hard(here / "x", victim)
    assert untrusted_files.read_plain(here / "x", 1000) == SECRET.encode()
    with pytest.raises(PlantedError, match="a hard link to another file"):
        untrusted_files.open_plain(here / "x", os.O_WRONLY)
    with pytest.raises(PlantedError, match="a hard link to another file"):
        untrusted_files.set_mode(here / "x", 0o600)


def test_a_folder_of_ours_that_is_a_link_takes_nothing(tmp_path: Path) -> None:
    elsewhere = tmp_path / "etc"
    elsewhere.mkdir()
    (tmp_path / "v").mkdir()
    (tmp_path / "v/.podkiln").symlink_to(elsewhere)
    with pytest.raises(PlantedError, match=r"v/\.podkiln is a link where a folder is expected"):
        untrusted_files.make_folder(tmp_path / "v/.podkiln/ssh")
    with pytest.raises(PlantedError):
        write_json(tmp_path / "v/.podkiln/a.json", {})
    with pytest.raises(PlantedError):
        PartialFile.create(tmp_path / "v/.podkiln/a.part", PartMetadata(1, 1, "", ""))
    with pytest.raises(PlantedError):
        FileLease(tmp_path / "v/.podkiln/a.lock").acquire()
    assert list(elsewhere.iterdir()) == []


def test_a_file_is_not_read_beyond_its_limit(here: Path) -> None:
    (here / "x").write_bytes(b"x" * 1001)
    assert len(untrusted_files.read_plain(here / "x", 1001)) == 1001
    with pytest.raises(OSError, match="more than 1000 bytes where a smaller one is expected: remove it"):
        untrusted_files.read_plain(here / "x", 1000)


def test_what_is_removed_is_no_folder(here: Path, victim: Path) -> None:
    for plant in (Path.touch, lambda path: path.symlink_to(victim), os.mkfifo):
        plant(here / "x")
        untrusted_files.remove(here / "x")
        untrusted_files.remove(here / "x")
    (here / "x").mkdir()
    with pytest.raises(PlantedError, match=r"/x is a folder where a plain file is expected: remove it"):
        untrusted_files.remove(here / "x")
    assert victim.exists()


@pytest.mark.parametrize("suffix", [".part", ".state"])
def test_a_folder_in_the_place_of_a_part_is_named(here: Path, suffix: str) -> None:
    (here / f"a{suffix}").mkdir()
    with pytest.raises(PlantedError, match=rf"/a\{suffix} is a folder"):
        PartialFile.create(here / "a.part", PartMetadata(1, 1, "", ""))


def test_a_folder_in_the_place_of_a_lease_is_named(here: Path) -> None:
    (here / "a.lock").mkdir()
    with pytest.raises(PlantedError, match=r"/a\.lock is a folder where a plain file is expected"):
        FileLease(here / "a.lock").acquire()


# --- who opens files there


@pytest.mark.parametrize("plant", [*KINDS, hard])
def test_the_record_of_wishes_is_made_anew(here: Path, victim: Path, plant: Callable[..., None]) -> None:
    """A FIFO in its place once let every fetch wait for ever."""
    plant(here / "resolved.json", victim)
    pins = ResolvedCache(here / "resolved.json")
    assert pins.get(WISHES, "x") is None
    pins.put(WISHES, "x", {"a": 1})
    if plant is not folder:
        assert pins.get(WISHES, "x") == {"a": 1}


@pytest.mark.parametrize("plant", [link, dangling, fifo, sock])
def test_a_claim_takes_the_place_of_what_is_none(
    here: Path, victim: Path, plant: Callable[..., None]
) -> None:
    plant(here / "a.lock", victim)
    lease = FileLease(here / "a.lock")
    assert [lease.acquire(), lease.acquire()] == [False, True]
    lease.release()


@pytest.mark.parametrize("plant", [*KINDS, hard])
def test_a_part_is_not_taken_up_from_what_is_none(
    here: Path, victim: Path, plant: Callable[..., None]
) -> None:
    contents = PartMetadata(victim.stat().st_size, 4, "etag", "sha256:0")
    for planted, sound in (("a.part", "a.state"), ("a.state", "a.part")):
        made = PartialFile.create(here / "a.part", contents)
        made.mark_complete(0)
        del made
        (here / planted).unlink()
        plant(here / planted, victim)
        assert (here / sound).exists()
        found = PartialFile.recall(here / "a.part")
        assert found is None or (planted == "a.state" and plant is hard)
        if plant is folder:
            (here / planted).rmdir()
        part_journal.remove(here / "a.part")


def test_a_copy_that_is_a_link_is_not_adopted(here: Path, victim: Path) -> None:
    contents = PartMetadata(4, 4, "etag", "sha256:0")
    trail = journaled_copy.JournaledCopy(here / "a.copy", contents)
    trail.write(b"abcd")
    trail.finish()
    trail.close()
    (here / "a.copy").unlink()
    link(here / "a.copy", victim)
    assert not journaled_copy.adopt(here / "a.copy", here / "a.part")


def test_what_is_written_aside_follows_no_link(
    here: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link(here / ".a.json.61616161", victim)
    monkeypatch.setattr(os, "urandom", lambda size: b"a" * size)
    with pytest.raises(FileExistsError):
        write_json(here / "a.json", {"a": 1})


def test_two_of_one_process_number_write_aside_apart(here: Path) -> None:
    """As pods do that share a volume: one took the other's half-written file for its own."""
    with untrusted_files.replacing(here / "a") as first:
        with untrusted_files.replacing(here / "a") as second:
            os.write(second, b"second")
            os.write(first, b"fir")
        assert (here / "a").read_bytes() == b"second"
        os.write(first, b"st")
    assert (here / "a").read_bytes() == b"first"
    assert [path.name for path in here.iterdir()] == ["a"]


@pytest.mark.parametrize("plant", [*KINDS, hard])
def test_the_log_goes_into_no_file_of_somebody_else(
    here: Path, victim: Path, plant: Callable[..., None]
) -> None:
    plant(here / "comfyui.log", victim)
    log = log_file.RotatingLog(here / "comfyui.log")
    with pytest.raises(PlantedError):
        log.write(b"a line\n")
    plant(here / ".comfyui.lock", victim)
    with pytest.raises(PlantedError):
        log_file.own_path(here)


def test_permissions_are_those_of_no_other_file(here: Path, victim: Path, tmp_path: Path) -> None:
    """/etc/passwd once became readable to root alone, and a folder's permissions followed a link."""
    elsewhere = tmp_path / "etc"
    elsewhere.mkdir(mode=0o755)
    (here / "ssh").symlink_to(elsewhere)
    with pytest.raises(OSError, match="link"):
        service.private_folder(here / "ssh")
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o755
    for plant in (link, fifo, dangling):
        plant(here / "key", victim)
        assert sshd.fingerprint(here / "key") is None
        (here / "key").unlink()
    hard(here / "key", victim)
    with pytest.raises(PlantedError):
        sshd.fingerprint(here / "key")


@pytest.mark.parametrize("plant", [*KINDS, hard])
def test_a_boot_does_not_wait_for_the_packages_on_the_volume(
    here: Path, victim: Path, plant: Callable[..., None]
) -> None:
    plant(here / "current", victim)
    assert package_overlay.active(str(here)) is None
