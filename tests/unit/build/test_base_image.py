"""A tar becomes a base image in an OCI layout; it is made once, whole or not at all."""

from __future__ import annotations

import gzip
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import apt_locks
import pytest
from layouts import layer_of

from podkiln.build import base_image
from podkiln.errors import PodkilnError, SourceError
from podkiln.lock import apt
from podkiln.lock.apt import BaseIndex
from podkiln.oci import layout, spec
from podkiln.util import disk_space

if TYPE_CHECKING:
    from pathlib import Path

ROOT = layer_of(hello="a base")


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands in for scripts/host/bootstrap_base.sh: it copies a tar and counts its runs."""
    (tmp_path / "root.tar").write_bytes(ROOT)
    path = tmp_path / "bootstrap.sh"
    path.write_text(f'#!/bin/sh\necho run >>{tmp_path}/runs\nsleep 0.2\ncp {tmp_path}/root.tar "$1"\n')
    path.chmod(0o755)
    monkeypatch.setattr(base_image, "_SCRIPT", path)
    return path


def test_the_tar_is_the_only_layer(tmp_path: Path) -> None:
    (tmp_path / "root.tar").write_bytes(ROOT)
    base_image.wrap(tmp_path / "root.tar", tmp_path / "layout")
    image = layout.read(tmp_path / "layout", full=True)
    assert image.config.diff_ids == (spec.digest_of(ROOT),)
    assert gzip.decompress(image.blob_path(image.manifest.layers[0].digest).read_bytes()) == ROOT
    assert image.descriptor.platform == image.config.platform


def test_equal_tars_make_equal_digests(tmp_path: Path) -> None:
    digests = set()
    for name in ("one", "two"):
        (tmp_path / f"{name}.tar").write_bytes(ROOT)
        base_image.wrap(tmp_path / f"{name}.tar", tmp_path / name)
        digests.add(layout.read(tmp_path / name).descriptor.digest)
    assert len(digests) == 1


def test_the_base_is_made_once_even_when_many_ask(tmp_path: Path, script: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: base_image.base_layout(tmp_path / "cache"), range(4)))
    assert len(found) == 1
    base = found.pop()
    assert (tmp_path / "runs").read_text() == "run\n"
    assert layout.read(base.path, full=True).descriptor.digest == base.digest


def test_another_script_makes_another_base(tmp_path: Path, script: Path) -> None:
    first = base_image.base_layout(tmp_path / "cache")
    script.write_text(script.read_text() + "# changed\n")
    second = base_image.base_layout(tmp_path / "cache")
    assert first.path != second.path
    assert first.path.is_dir(), "who uses the old one keeps it"


def test_a_failure_leaves_nothing_and_says_why(tmp_path: Path, script: Path) -> None:
    script.write_text(
        "#!/bin/sh\necho half >\"$1\"\necho 'bootstrap_base: no mirror: give one.' >&2\nexit 1\n"
    )
    with pytest.raises(SourceError, match=r"no mirror: give one\.$") as caught:
        base_image.base_layout(tmp_path / "cache")
    assert "--base REF" in str(caught.value.hint)
    assert [each.suffix for each in (tmp_path / "cache" / "base").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("what", "room", "folder"),
    [
        ("dpkg: cannot copy to '/usr/x'", {"work": 10, "cache": 20}, "work"),
        ("tar: write error", {"work": 20, "cache": 10}, "cache/base"),
        ("cannot write $1", {"work": 10, "cache": 20}, "cache/base"),
        ("cannot write $TMPDIR/mmdebstrap.x/usr", {"work": 20, "cache": 10}, "work"),
    ],
)
def test_a_disk_that_gets_full_is_told_as_one_and_is_the_one_that_was_written_to(
    what: str,
    room: dict[str, int],
    folder: str,
    tmp_path: Path,
    script: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "work"))
    monkeypatch.setattr(disk_space, "free", lambda place: room[place.relative_to(tmp_path).parts[0]])
    script.write_text(f'#!/bin/sh\necho "{what}: No space left on device" >&2\nexit 1\n')
    with pytest.raises(PodkilnError, match=rf"^The disk of {tmp_path}/{folder} is full: ") as caught:
        base_image.base_layout(tmp_path / "cache")
    assert caught.value.exit_code == 1
    assert [each.suffix for each in (tmp_path / "cache" / "base").iterdir()] == [".lock"]


def test_of_locked_packages_another_base_is_made_and_the_script_gets_their_index(
    tmp_path: Path, script: Path
) -> None:
    made = apt_locks.make("sha256:" + "ab" * 32)
    index = BaseIndex(architecture="amd64", snapshot_at="20261128T000000Z", archives=made.index.archives)
    apt.write(tmp_path / "lock", index, made.packages)
    locked = apt.read_base(tmp_path / "lock")
    assert locked
    assert apt.read_base(tmp_path / "none") is None
    script.write_text(
        f'#!/bin/sh\n[ "$1" = --index ] || exit 9\n(cd "$2" && find . -type f) | sort >{tmp_path}/index\n'
        f'cp {tmp_path}/root.tar "$3"\n'
    )
    base_image.base_layout(tmp_path / "cache", locked)
    assert (tmp_path / "index").read_text().split() == [
        "./debian-security/Packages.xz",
        "./debian/Packages.xz",
        "./snapshot",
    ]
    with pytest.raises(SourceError):
        base_image.base_layout(tmp_path / "cache")
