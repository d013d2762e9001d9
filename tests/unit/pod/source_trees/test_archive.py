"""Archives of commits are unpacked to what git has, and those that are none do no harm."""

from __future__ import annotations

import errno
import gzip
import io
import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from git_archives import commit

from pod.source_trees import archive
from pod.source_trees.archive import ArchiveError
from pod.util import git_objects

if TYPE_CHECKING:
    from collections.abc import Callable

OTHER = "1" * 40

REPOSITORIES: dict[str, dict[str, str | Path]] = {
    "one file": {"a": "x"},
    "a program": {"bin/run": "#!/bin/sh\n", "plain": ""},
    "names that git sorts as folders": {"a/b": "x", "a.b": "y", "a-b": "z", "ab": ""},
    "links": {"deep/er/file": "x", "link": Path("deep/er"), "deep/up": Path("../link/file")},
    "letters of all kinds": {"pïcture/☃ .txt": "x"},
    "a long path": {"/".join(["folder"] * 40) + "/file": "x"},
}


@pytest.mark.parametrize("name", REPOSITORIES)
@pytest.mark.parametrize("submodules", [{}, {"zz": OTHER, "sub/module": OTHER}])
def test_the_tree_is_the_one_that_git_has(tmp_path: Path, name: str, submodules: dict[str, str]) -> None:
    made = commit(tmp_path / "repo", REPOSITORIES[name], submodules)
    target = tmp_path / "out"
    target.mkdir()
    entries = archive.unpack(io.BytesIO(made.archive), target)
    assert git_objects.tree_id(entries, submodules) == made.tree
    for path, content in REPOSITORIES[name].items():
        there = target / path
        if isinstance(content, Path):
            assert there.readlink() == content
        else:
            assert there.read_text() == content
            assert bool(there.stat().st_mode & 0o100) == path.startswith("bin/")


def packed(*members: Any) -> bytes:
    """Return a .tar.gz: a name is a file, a pair a link, TarInfo what it says."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz", format=tarfile.GNU_FORMAT) as tar:
        for member in members:
            content = b""
            if isinstance(member, tuple):
                info = tarfile.TarInfo(member[0])
                info.type, info.linkname = tarfile.SYMTYPE, member[1]
            elif isinstance(member, str):
                info, content = tarfile.TarInfo(member), b"x"
                info.size = 1
            else:
                info = member
            tar.addfile(info, io.BytesIO(content))
    return whole.getvalue()


def special(kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo("r/odd")
    info.type, info.linkname = kind, link
    return info


def claiming(size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """Return an archive with a header that promises more than follows."""
    info = tarfile.TarInfo("r/big")
    info.size, info.type = size, kind
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))


def chained(count: int) -> bytes:
    """Return an archive of headers that each announce a longer name for the next one."""
    info = tarfile.TarInfo("././@LongLink")
    info.size, info.type = 4, tarfile.GNUTYPE_LONGNAME
    return gzip.compress((info.tobuf(tarfile.GNU_FORMAT) + b"r/a\0" + bytes(508)) * count)


REFUSED: dict[str, tuple[bytes, str]] = {
    "no gzip": (b"<html>", "is no whole .tar.gz"),
    "cut off": (packed("r/a")[:-20], "is no whole .tar.gz"),
    "nothing": (packed(), "holds no files"),
    "two tops": (packed("r/a", "s/b"), "has more than one folder at its top"),
    "no top": (packed("a"), "has no folder at its top"),
    "upwards": (packed("r/../../evil"), "which is no path"),
    "from the root": (packed("/evil"), "has no folder at its top"),
    "an empty part": (packed("r/a//b"), "which is no path"),
    "a repository inside": (packed("r/.Git/hooks/post-checkout"), "which is no path"),
    "a device": (packed(special(tarfile.CHRTYPE)), "neither a file, a folder nor a link"),
    "a pipe": (packed(special(tarfile.FIFOTYPE)), "neither a file, a folder nor a link"),
    "a hard link": (packed("r/a", special(tarfile.LNKTYPE, "/etc/passwd")), "neither a file"),
    "a link out": (packed(("r/a", "../../evil")), "a link that leads out of it"),
    "a link to the root": (packed(("r/a", "/etc/passwd")), "a link that leads out of it"),
    "a link out over another": (
        packed(("r/x/up", ".."), ("r/a", "x/up/../evil")),
        "a link that leads out of it",
    ),
    "a file through a link": (packed(("r/a", ".."), "r/a/evil"), "twice"),
    "a link through a link": (packed(("r/a", ".."), ("r/a/evil", "x")), "lies below a link"),
    "one name twice": (packed("r/a", "r/a"), "twice"),
    "a file as a folder": (packed("r/a", "r/a/b"), "twice"),
    "too much": (claiming(archive.LARGEST + 1), "unpacks to too much"),
    "an endless header": (claiming(1 << 40, tarfile.GNUTYPE_LONGNAME), "a header that no commit's"),
    "an endless extension": (claiming(8 << 20, tarfile.XHDTYPE), "a header that no commit's"),
    "headers of headers": (chained(5000), "is no whole .tar.gz"),
    "too long a name": (packed(f"r/{'x' * 300}"), "too long a name"),
    "too long a name of a folder": (packed(f"r/{'x' * 300}/a"), "too long a name"),
    "too long a link": (packed(("r/a", "x" * 5000)), "too long a name"),
    "less than it says": (claiming(1 << 20), "is no whole .tar.gz"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_archive_of_a_commit_is_refused(tmp_path: Path, name: str) -> None:
    content, expected = REFUSED[name]
    target = tmp_path / "above" / "out"
    target.mkdir(parents=True)
    with pytest.raises(ArchiveError, match=expected):
        archive.unpack(io.BytesIO(content), target)
    assert [path for path in tmp_path.rglob("evil") if target not in path.parents] == []
    assert [path.name for path in target.parent.iterdir()] == ["out"]


def test_a_disk_that_fails_is_told_from_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure to read is cured by another copy, and one to write is not."""

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 0:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(size)

    with pytest.raises(archive.UnreadableError, match=r"cannot be read \(Input/output error\)"):
        archive.unpack(Failing(packed("r/a")), tmp_path)

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(OSError, match="No space left"):
        archive.unpack(io.BytesIO(packed("r/a")), tmp_path)


def test_an_archive_of_much_is_unpacked_no_further_than_allowed(tmp_path: Path) -> None:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as tar:
        for number in range(4):
            info = tarfile.TarInfo(f"r/{number}")
            info.size = 1 << 20
            tar.addfile(info, io.BytesIO(bytes(1 << 20)))
    read: Callable[[], io.BytesIO] = lambda: io.BytesIO(whole.getvalue())  # noqa: E731
    with pytest.raises(ArchiveError, match="too much"):
        archive.unpack(read(), tmp_path, largest=(4 << 20) - 1)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 3 << 20
