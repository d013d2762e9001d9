"""The apt lock: read and checked strictly, part of the lock's digest, and told where a base has none."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import apt_locks
import pytest
from descriptions import VARIANT, write
from plans import plan_of

from podkiln.config import catalog, variant
from podkiln.errors import LockError
from podkiln.lock import apt, reader
from podkiln.lock.resolve import relock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BASE = "sha256:" + "ab" * 32
STANZA = f"""\
Package: a0
Version: 1
Architecture: all
Filename: pool/main/a/a0.deb
Size: 1
SHA256: {"0" * 64}
"""


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    folder = apt_locks.write(tmp_path, BASE)
    assert folder.name == "ab" * 6
    read = apt.read_all(tmp_path)[BASE]
    made = apt_locks.make(BASE)
    assert (read.index, read.packages, read.digest) == (made.index, made.packages, made.digest)
    assert sorted(read.all) == ["libedit2", "nginx", "tini"]
    assert apt.write(folder, made.index, made.packages) == []


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change


def hashed(old: str, new: str) -> Callable[[Path], None]:
    """Change stanzas, and the sha256 in apt.json with them."""

    def change(folder: Path) -> None:
        path = folder / "debian.packages"
        before = apt_locks.PACKAGES["debian"]
        assert old in before
        path.write_text(before.replace(old, new))
        data = json.loads((folder / apt.FILE).read_text())
        data["archives"][0]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        (folder / apt.FILE).write_text(json.dumps(data))

    return change


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "debian.packages").unlink(), "cannot be read: No such file"),
        (edit("debian.packages", "0.19.0-3+b8", "0.19.0-4"), "was changed by hand: its sha256 is not"),
        (edit("debian.packages", "Package: tini", "<<<<<<< HEAD\nPackage: tini"), "a merge conflict"),
        (edit(apt.FILE, BASE, "sha256:" + "0" * 64), "is that of another base"),
        (edit(apt.FILE, "20261128T000000Z", "2026-11-28"), "snapshot_at: "),
        (edit(apt.FILE, '"replaced"', '"more": 1, "replaced"'), "more: "),
        (edit(apt.FILE, '"packages": 2', '"packages": 2, "mirror": "http://m.example"'), "mirror: "),
        (edit(apt.FILE, '"nginx",\n    "tini"', '"tini",\n    "tini"'), "'tini' is duplicated"),
        (hashed("Section: admin\n", "Section: admin\nTag: role::program\n"), "not as podkiln writes it"),
        (hashed("pool/main/t/", "pool/../t/"), "'tini' has no Filename of the right form"),
        (hashed("Size: 280384", "Size: 0"), "'tini' has no Size of the right form"),
        (hashed("Version: 0.19.0-3+b8\n", ""), "'tini' has no Version of the right form"),
        (hashed("Section: admin", "Section: ädmin"), "it is not ASCII text"),
        (hashed("Section: admin", "Section: admin\nSection: libs"), "or a key twice"),
        (hashed("Package: libedit2", "Package: nginx"), "has nginx twice"),
    ],
)
def test_a_damaged_one_is_refused(damage: Callable[[Path], None], says: str, tmp_path: Path) -> None:
    damage(apt_locks.write(tmp_path, BASE))
    with pytest.raises(LockError) as raised:
        apt.read_all(tmp_path)
    assert says in str(raised.value)
    assert raised.value.hint


def test_what_apt_only_shows_is_left_out_and_folded_values_are_one_line() -> None:
    shown = STANZA.replace("Size", "Description: a\n b\nDepends: b,\n c (>= 1)\nMD5sum: 0\nSize")
    (package,) = apt.parse(shown)
    assert str(package) == STANZA.replace("Filename", "Depends: b, c (>= 1)\nFilename")


def test_a_change_has_both_versions_and_whether_it_is_for_security() -> None:
    before = apt_locks.make(BASE).all
    newer = apt.Package({**before["nginx"].values, "Version": "2"})
    found = apt.compare(before, {"nginx": newer, "tini": before["tini"]}, frozenset({"nginx", "tini"}))
    assert found == [
        apt.PackageChange("libedit2", "3.1-20250104-1", None),
        apt.PackageChange("nginx", "1.26.3-3+deb13u9", "2", security=True),
    ]


def test_the_lock_of_its_own_base_is_part_of_the_digest_and_no_other() -> None:
    lock = plan_of("lazy").lock
    own = lock.runtime.base_digest
    assert replace(lock, apt={BASE: apt_locks.make(BASE)}).digest == lock.digest
    locked = replace(lock, apt={own: apt_locks.make(own)})
    assert locked.digest != lock.digest
    moved = apt_locks.make(own)
    moved = replace(moved, index=moved.index.model_copy(update={"snapshot_at": "20270101T000000Z"}))
    assert replace(lock, apt={own: moved}).digest != locked.digest


def test_one_of_other_packages_does_not_count_and_check_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", VARIANT)
    described = variant.load(str(path))
    wanted = tuple(sorted(described.spec.runtime.apt))
    fitting = apt_locks.write(tmp_path / "mine.locks/apt", BASE, wanted)
    offered = catalog.offered(described, catalog.load())
    assert BASE in reader.read(described, offered).apt
    assert not [said for said in relock.check([str(path)]) if "runtime.apt" in said]
    apt_locks.write(tmp_path / "mine.locks/apt", BASE, wanted[1:])
    assert BASE not in reader.read(described, offered).apt
    assert f"mine: {fitting} is of other packages than runtime.apt lists." in relock.check([str(path)])
