"""Tree ids are those of git itself, which makes every expectation here."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from podkiln.errors import SourceError
from podkiln.util.git_tree import EMPTY, tree_id, tree_id_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def git_tree(folder: Path) -> str:
    """Return the tree id that git gives a folder."""
    git = ["git", "-C", str(folder), "-c", "core.fileMode=true", "-c", "core.autocrlf=false"]
    own = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    for step in (["init", "--quiet"], ["add", "--all", "--force"]):
        subprocess.run([*git, *step], check=True, capture_output=True, env=own)
    done = subprocess.run([*git, "write-tree"], check=True, capture_output=True, text=True, env=own)
    return done.stdout.strip()


def put(root: Path, name: str | bytes, content: bytes = b"x", mode: int = 0o644) -> None:
    """Write a file, its folders included."""
    path = os.path.join(os.fsencode(root), os.fsencode(name))  # noqa: PTH118 - names that are no text
    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(content)
    os.chmod(path, mode)  # noqa: PTH101


def several(*names: str | bytes) -> Callable[[Path], object]:
    def make(root: Path) -> None:
        for name in names:
            put(root, name)

    return make


def modes(root: Path) -> None:
    for mode in (0o755, 0o700, 0o744, 0o655, 0o600):
        put(root, f"m{mode:o}", mode=mode)


def links(root: Path) -> None:
    for name, target in (("a", "b"), ("d", "/etc"), ("up", "..")):
        (root / name).symlink_to(target)


def empty_folders(root: Path) -> None:
    put(root, "x")
    (root / "none" / "at all").mkdir(parents=True)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(several("one"), id="a file"),
        pytest.param(lambda root: put(root, "empty", b""), id="an empty file"),
        pytest.param(lambda root: put(root, "big", bytes(3 << 20)), id="larger than a chunk"),
        pytest.param(several("a/b", "a.b", "a-c", "a0", "ab", "a~"), id="folders sort as a/"),
        pytest.param(empty_folders, id="empty folders"),
        pytest.param(modes, id="modes"),
        pytest.param(links, id="symlinks"),
        pytest.param(several("a b", 'q"uote', "new\nline", "Übung", b"\xff\xfe", "-dash"), id="odd names"),
        pytest.param(several(".gitignore", "deep/er/est/file", "deep/er.est"), id="deep"),
    ],
)
def test_the_id_is_gits(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path)
    assert tree_id(tmp_path) == git_tree(tmp_path)


def test_what_a_checkout_and_a_run_leave_does_not_count(tmp_path: Path) -> None:
    put(tmp_path, "main.py")
    clean = tree_id(tmp_path)
    for extra in (".git/HEAD", "__pycache__/main.pyc", "sub/__pycache__/x.pyc", "sub/.git"):
        put(tmp_path, extra)
    assert tree_id(tmp_path) == clean


@pytest.mark.parametrize(
    "change",
    [
        lambda root: put(root, "f", b"y"),
        lambda root: (root / "f").chmod(0o755),
        lambda root: (root / "f").rename(root / "g"),
        lambda root: put(root, "g"),
    ],
    ids=["content", "mode", "name", "one more"],
)
def test_every_change_counts(change: Callable[[Path], object], tmp_path: Path) -> None:
    put(tmp_path, "f")
    before = tree_id(tmp_path)
    change(tmp_path)
    assert tree_id(tmp_path) != before


def test_files_in_memory_have_the_same_id(tmp_path: Path) -> None:
    files = {"b": b"1", "a.txt": b"2", "a-b": b"3", "Übung": b""}
    for name, content in files.items():
        put(tmp_path, name, content)
    assert tree_id_of(files) == git_tree(tmp_path)


def test_an_empty_folder_has_the_empty_tree(tmp_path: Path) -> None:
    assert tree_id(tmp_path) == EMPTY == git_tree(tmp_path)


def test_what_git_cannot_hold_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="pipe is neither a file, a folder nor a symlink"):
        tree_id(tmp_path)


def test_a_folder_that_is_not_there_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read"):
        tree_id(tmp_path / "none")


@pytest.mark.parametrize(
    "make", [several("a"), lambda root: (root / "a").symlink_to("b")], ids=["file", "link"]
)
def test_what_a_submodule_cannot_lie_in_is_refused(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(SourceError, match=r"/a is no folder, and the submodule a/b/c is to lie in it\.$"):
        tree_id(tmp_path, {"a/b/c": "1" * 40})
