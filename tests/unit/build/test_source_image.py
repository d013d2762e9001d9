"""What BuildKit is given of a source tree: the files that were hashed, as git has them, and no others."""

from __future__ import annotations

import errno
import os
import shutil
import tarfile
from typing import TYPE_CHECKING

import pytest

from podkiln.build import source_image
from podkiln.errors import PodkilnError, SourceError
from podkiln.oci import layout, spec
from podkiln.plan.substitutes import Substitute
from podkiln.util import cache_folder, disk_space, git_tree

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

AMD64 = spec.Platform("linux", "amd64")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree with all that its hash leaves out."""
    folder = tmp_path / "tree"
    for name, content in {
        "main.py": b"print()\n",
        "big": bytes(3 << 20),
        "sub/run.sh": b"#!/bin/sh\n",
        "sub/Übung": b"",
        ".dockerignore": b"**\n",
        ".git/config": b"token",
        "sub/.git/config": b"token",
        "sub/node/.git": b"gitdir: /elsewhere",
        "sub/__pycache__/x.pyc": b"x",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "sub/run.sh").chmod(0o700)
    (folder / "main.py").chmod(0o600)
    (folder / "empty/within").mkdir(parents=True)
    (folder / "link").symlink_to("sub/run.sh")
    return folder


def pack(tree: Path, root: Path, platform: spec.Platform = AMD64) -> layout.Layout:
    place, digest = source_image.pack(tree, git_tree.tree_id(tree), root, platform)
    found = layout.read(place, platform, full=True)
    assert found.descriptor.digest == digest
    return found


def members(image: layout.Layout) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(image.blob_path(image.manifest.layers[0].digest)) as tar:
        return {each.name: each for each in tar}


def test_it_holds_what_was_hashed_and_nothing_else(tree: Path, tmp_path: Path) -> None:
    image = pack(tree, tmp_path / "root")
    assert {name: (each.type, each.mode, each.size) for name, each in members(image).items()} == {
        ".dockerignore": (tarfile.REGTYPE, 0o644, 3),
        "big": (tarfile.REGTYPE, 0o644, 3 << 20),
        "link": (tarfile.SYMTYPE, 0o777, 0),
        "main.py": (tarfile.REGTYPE, 0o644, 8),
        "sub": (tarfile.DIRTYPE, 0o755, 0),
        "sub/run.sh": (tarfile.REGTYPE, 0o755, 10),
        "sub/Übung": (tarfile.REGTYPE, 0o644, 0),
    }
    assert image.config.platform == AMD64
    unpacked = tmp_path / "unpacked"
    with tarfile.open(image.blob_path(image.manifest.layers[0].digest)) as tar:
        tar.extractall(unpacked, filter="tar")
    assert git_tree.tree_id(unpacked) == git_tree.tree_id(tree)


def test_one_tree_gives_one_image_whoever_checked_it_out(tree: Path, tmp_path: Path) -> None:
    first = pack(tree, tmp_path / "root")
    other = tmp_path / "other"
    shutil.copytree(tree, other, symlinks=True, ignore=shutil.ignore_patterns(".git", "empty"))
    for path in (other, *other.rglob("*")):
        os.utime(path, (1, 1), follow_symlinks=False)
    (other / "main.py").chmod(0o664)
    assert pack(other, tmp_path / "elsewhere").descriptor.digest == first.descriptor.digest


@pytest.mark.parametrize("damage", ["content", "another image", "gone"])
def test_what_lies_there_is_not_trusted(damage: str, tree: Path, tmp_path: Path) -> None:
    first = pack(tree, tmp_path / "root")
    blob = first.blob_path(first.manifest.layers[0].digest)
    if damage == "content":
        blob.write_bytes(bytes(blob.stat().st_size))
    elif damage == "another image":
        evil = tmp_path / "evil"
        evil.mkdir()
        (evil / "main.py").write_text("import os\n")
        made, _ = source_image.pack(evil, git_tree.tree_id(evil), tmp_path / "other", AMD64)
        shutil.rmtree(first.path)
        shutil.copytree(made, first.path)
    else:
        blob.unlink()
    assert pack(tree, tmp_path / "root").descriptor.digest == first.descriptor.digest


@pytest.mark.parametrize("change", ["before", "while"])
def test_a_tree_that_changes_after_it_was_hashed_is_one_sentence(
    change: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = git_tree.tree_id(tree)
    listed = git_tree.files

    def files(folder: Path, submodules: Collection[str] = ()) -> list[git_tree.SourceFile]:
        found = listed(folder, submodules)
        (tree / "main.py").write_text("import os\n" if change == "while" else "print(1\n")
        return found

    monkeypatch.setattr(git_tree, "files", files)
    sentence = "changed since it was hashed: its tree was" if change == "before" else "changed while it was"
    with pytest.raises(SourceError, match=sentence):
        source_image.pack(tree, expected, tmp_path / "root", AMD64)
    assert list((tmp_path / "root").iterdir()) == []


def test_a_file_that_became_a_link_is_not_followed(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secrets\n")
    file = next(each for each in git_tree.files(tree) if each.path == b"main.py")
    (tree / "main.py").unlink()
    (tree / "main.py").symlink_to(tmp_path / "secret")
    with pytest.raises(SourceError, match=r"main\.py cannot be read"):
        list(file.pieces())


def test_a_name_that_removes_files_is_refused(tree: Path, tmp_path: Path) -> None:
    (tree / "sub/.wh.run.sh").touch()
    with pytest.raises(SourceError, match=r"\.wh\.run\.sh: in an image, a name that begins with"):
        source_image.pack(tree, git_tree.tree_id(tree), tmp_path / "root", AMD64)


def test_trees_used_longest_ago_are_removed_but_none_of_a_build_that_may_run(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_image, "MAX_TREES", 2)
    made = []
    for number in range(3):
        (tree / "main.py").write_text(f"print({number})\n")
        made.append(pack(tree, tmp_path / "root").path)
    assert all(path.exists() for path in made)
    for number, path in enumerate(made):
        os.utime(path, (number, number))
    pack(tree, tmp_path / "root")
    assert [path.exists() for path in made] == [False, True, True]


def test_a_context_is_an_image_by_its_digest_and_others_stay(tree: Path) -> None:
    actual = git_tree.tree_id(tree)
    given = Substitute("comfyui", str(tree), actual, actual, tree)
    place = cache_folder.path() / cache_folder.SOURCES / actual
    found = source_image.context(given, "linux/arm64")
    assert found == f"oci-layout://{place}@{layout.read(place).descriptor.digest}"
    assert layout.read(place).config.platform == spec.Platform("linux", "arm64")
    base = Substitute("base", "docker-image://debian", "sha256:1", "sha256:2")
    assert source_image.context(base, "linux/amd64") == "docker-image://debian"


def test_a_failure_names_the_option(tree: Path) -> None:
    given = Substitute("comfyui", str(tree), "1" * 40, "1" * 40, tree)
    with pytest.raises(SourceError, match=r"^--source comfyui: .*changed since it was hashed"):
        source_image.context(given, "linux/amd64")


def test_a_full_disk_is_one_sentence_and_nothing_half_written_stays(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = git_tree.tree_id(tree)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(source_image._Tar, "_put", full)
    monkeypatch.setattr(disk_space, "free", lambda _: 1_000_000)
    says = rf"^The disk of {tmp_path / 'root'} is full: 1\.0 MB were free, and about 3\.1 MB are needed"
    with pytest.raises(PodkilnError, match=says):
        source_image.pack(tree, expected, tmp_path / "root", AMD64)
    assert list((tmp_path / "root").iterdir()) == []
