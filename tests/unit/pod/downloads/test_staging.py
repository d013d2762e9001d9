"""A network volume gets each file in one sequential pass; a local one gets it where it belongs."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pod.downloads import disk_space, journaled_copy, partial_file, staging
from pod.downloads.part_journal import PartMetadata
from pod.downloads.partial_file import ClosedError
from pod.downloads.staging import Staging, StagingPlan, copied, on_network
from pod.errors import PodError
from pod.hardware import mounts
from pod.net.http import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

MOUNTINFO = """\
22 1 0:20 / / rw,relatime - overlay overlay rw
30 22 0:31 / /workspace rw,relatime - {kind} volume rw
"""


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that take it say with `mount` what /workspace is."""
    monkeypatch.setattr(mounts, "MOUNTINFO", tmp_path / "mountinfo")
    monkeypatch.setattr(mounts.read, "__defaults__", (tmp_path / "mountinfo",))


def mount(tmp_path: Path, kind: str) -> Path:
    (tmp_path / "mountinfo").write_text(MOUNTINFO.format(kind=kind))
    return Path("/workspace/models")


@pytest.mark.usefixtures("mounted")
@pytest.mark.parametrize(
    ("kind", "network"),
    [
        *((kind, True) for kind in ("nfs4", "fuse", "fuse.mfs", "fuse.juicefs", "ceph", "cifs", "lustre")),
        *((kind, False) for kind in ("ext4", "xfs", "overlay", "tmpfs", "btrfs", "fuseblk")),
    ],
)
def test_the_kind_of_the_file_system_decides(tmp_path: Path, kind: str, network: bool) -> None:
    target = mount(tmp_path, kind)
    assert on_network(target) is network
    assert Staging.from_environment({}, target).folder == (staging.LOCAL if network else None)
    assert Staging.from_environment({"FETCH_STAGING": "never"}, target).folder is None
    assert Staging.from_environment({"FETCH_STAGING": "/scratch"}, target).folder == Path("/scratch")


@pytest.mark.parametrize("value", ["yes", "scratch", "../up", "/a/../b"])
def test_what_is_no_folder_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(PodError, match="is neither auto nor never nor an absolute path") as refused:
        Staging.from_environment({"FETCH_STAGING": value}, tmp_path)
    assert refused.value.exit_code == 78


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    return tmp_path / "models/vae/.podkiln/a.safetensors.part"


def test_a_file_grows_on_the_local_disk_and_is_copied(tmp_path: Path, beside: Path) -> None:
    asked: list[int] = []

    def reserve(_folder: Path, need: int) -> bool:
        asked.append(need)
        return True

    area = Staging(tmp_path / "local")
    growth = area.growth(beside, 10_000, reserve)
    assert growth.part.parent == tmp_path / "local/vae"
    assert re.fullmatch(r"a\.safetensors\.[0-9a-f]{8}\.part", growth.part.name)
    assert growth.copy == beside.with_name("a.safetensors.copy")
    growth.part.write_bytes(b"x" * 8192)  # what has arrived takes no more room
    area.growth(beside, 10_000, reserve)
    assert asked == [10_000 + staging.RESERVE, 10_000 - 8192 + staging.RESERVE]


def test_what_a_dead_pod_left_is_removed(tmp_path: Path, beside: Path) -> None:
    """Its copy on the volume when the file is begun anew; ours on local disk when another has brought it."""
    copy = beside.with_suffix(".copy")
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"half")
    area = Staging(tmp_path / "local")
    growth = area.growth(beside, 10, lambda _folder, _need: True)
    assert not copy.exists()
    growth.part.write_bytes(b"half")
    growth.part.with_suffix(".state").write_text("journal")
    area.forget(beside)
    assert not list(growth.part.parent.iterdir())
    Staging().forget(beside)


@pytest.mark.parametrize("why", ["no folder", "no size", "no room", "no local disk", "began beside"])
def test_else_it_grows_beside_its_place(tmp_path: Path, beside: Path, why: str) -> None:
    local = tmp_path / "local"
    if why == "no local disk":
        local.write_text("in the way")
    if why == "began beside":
        beside.parent.mkdir(parents=True)
        beside.write_bytes(b"")
    area = Staging(None if why == "no folder" else local)
    size = None if why == "no size" else 10
    assert area.growth(beside, size, lambda _folder, _need: why != "no room") == StagingPlan(beside)


def test_files_of_one_name_are_staged_apart(tmp_path: Path) -> None:
    """Two models have a tokenizer each, in folders of one name."""
    area = Staging(tmp_path / "local")
    places = [
        tmp_path / f"models/text_encoders/{model}/umt5-xxl/.podkiln/spiece.model.part" for model in "ab"
    ]
    grown = [area.growth(place, 10, lambda _folder, _need: True).part for place in places]
    assert len(set(grown)) == 2
    assert grown[0] == area.growth(places[0], 10, lambda _folder, _need: True).part


CONTENTS = PartMetadata(6, 3, "", "sha256:00")


def test_the_pass_that_reads_also_writes(tmp_path: Path) -> None:
    path = tmp_path / "new/a.copy"
    blocks: list[bytes | memoryview] = [b"one", b"two"]
    assert [bytes(block) for block in copied(iter(blocks), path, CONTENTS)] == blocks
    assert path.read_bytes() == b"onetwo"


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full volume is not left full; and it is the volume that is named, not the disk that is staged on."""

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fdatasync", full)
    mount = disk_space.mount_point(tmp_path)
    with pytest.raises(RefusedError, match=f"^does not fit: {mount} is full"):
        list(copied(iter([b"one"]), tmp_path / "a.copy", CONTENTS))
    assert not list(tmp_path.iterdir())


def test_what_was_copied_goes_on_where_the_staged_part_is_gone(
    tmp_path: Path, beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod that is stopped loses its container's disk; the volume keeps the copy."""
    monkeypatch.setattr(journaled_copy, "FLUSH", 3)

    def blocks() -> Iterator[bytes]:
        yield b"one"
        raise ClosedError

    area = Staging(tmp_path / "local")
    growth = area.growth(beside, 6, lambda _folder, _need: True)
    assert growth.copy
    with pytest.raises(ClosedError):
        list(copied(blocks(), growth.copy, CONTENTS))
    assert area.growth(beside, 6, lambda _folder, _need: True) == StagingPlan(beside)
    taken = partial_file.PartialFile.recall(beside)
    assert taken
    assert (taken.received, taken.missing) == (3, 3)
    assert not growth.copy.exists()


def test_while_the_staged_part_is_there_the_copy_is_made_anew(
    tmp_path: Path, beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journaled_copy, "FLUSH", 3)
    area = Staging(tmp_path / "local")
    growth = area.growth(beside, 6, lambda _folder, _need: True)
    assert growth.copy
    list(copied(iter([b"one"]), growth.copy, CONTENTS))
    growth.part.write_bytes(b"one")
    assert area.growth(beside, 6, lambda _folder, _need: True) == growth
    assert not list(beside.parent.iterdir())
