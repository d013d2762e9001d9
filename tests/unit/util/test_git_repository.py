"""A repository that somebody gives is read as git reads it, and no program that it names is run."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from podkiln.config.document import ROOT
from podkiln.errors import SourceError
from podkiln.util.git_repository import opened, root_of

if TYPE_CHECKING:
    from pathlib import Path

GONE = "a" * 40  # a commit that the repository does not have: git would fetch it where config says how
PROMISED = '[extensions]\n\tpartialClone = origin\n[remote "origin"]\n\tpromisor = true\n'
VERSION = "[core]\n\trepositoryformatversion = 1\n"


def git(folder: Path, *arguments: str) -> str:
    """Run git on a repository of ours."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    own |= {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    argv = ["git", "-C", str(folder), "-c", "user.name=T", "-c", "user.email=t@example.com", *arguments]
    return subprocess.run(argv, check=True, capture_output=True, text=True, env=own).stdout.strip()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with one commit and an annotated tag."""
    folder = tmp_path / "given"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/file").write_text("content")
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message=one")
    git(folder, "tag", "--annotate", "--message=x", "v1.0")
    return folder


def packed(root: Path) -> Path:
    git(root, "pack-refs", "--all")
    git(root, "gc", "--quiet")
    return root


def worktree(root: Path) -> Path:
    git(root, "worktree", "add", "--quiet", "--detach", str(root.parent / "more"))
    return root.parent / "more"


def detached(root: Path) -> Path:
    git(root, "checkout", "--quiet", "--detach")
    return root


def borrowing(root: Path) -> Path:
    git(root.parent, "clone", "--quiet", "--shared", str(root), "borrows")
    return root.parent / "borrows"


@pytest.mark.parametrize("made", [detached, packed, worktree, borrowing])
def test_commit_tree_and_files_are_those_that_git_has(root: Path, made: object) -> None:
    commit, tree = git(root, "rev-parse", "HEAD"), git(root, "rev-parse", "HEAD^{tree}")
    assert callable(made)
    folder = made(root)
    with opened(folder) as given:
        assert given is not None
        assert given.commit("HEAD") == given.commit("refs/tags/v1.0") == commit
        assert given.tree(commit) == tree
        assert given.file(commit, "sub/file") == b"content"
        assert given.file(commit, "sub/none") is None
        assert given.commit("refs/tags/v2.0") is None
    assert root_of(folder / "sub") == folder


def trap(root: Path, text: str) -> Path:
    """Put a program into the repository's config, and let its branch name a commit that it lacks."""
    (root / ".git/refs/heads/main").write_text(f"{GONE}\n")
    (root / ".git/config").write_text(VERSION + text.replace("RAN", str(root.parent / "ran")))
    return root


TRAPS = {
    "upload pack": f'{PROMISED}\turl = .\n\tuploadpack = "touch RAN; false "\n',
    "transport": f'{PROMISED}\turl = "ext::sh -c touch% RAN"\n[protocol "ext"]\n\tallow = always\n',
    "ssh": f'{PROMISED}\turl = ssh://none.invalid/x\n[core]\n\tsshCommand = "touch RAN; false "\n',
    "proxy": f'{PROMISED}\turl = git://none.invalid/x\n[core]\n\tgitProxy = "RAN.sh"\n',
}


@pytest.mark.parametrize("text", TRAPS.values(), ids=TRAPS)
@pytest.mark.parametrize("place", ["config", "include", "worktree", "link"])
def test_no_program_that_a_repository_names_is_run(root: Path, text: str, place: str) -> None:
    program = root.parent / "ran.sh"
    program.write_text(f"#!/bin/sh\ntouch {root.parent}/ran\nfalse\n")
    program.chmod(0o755)
    text = text.replace("RAN.sh", str(program))
    trap(root, text)
    config = root / ".git/config"
    if place == "include":
        config.rename(root / ".git/more")
        config.write_text("[include]\n\tpath = more\n")
    elif place == "worktree":
        config.rename(root / ".git/config.worktree")
        config.write_text(f"{VERSION}[extensions]\n\tworktreeConfig = true\n")
    elif place == "link":
        (root / ".git").rename(root.parent / "elsewhere")
        (root / ".git").write_text("gitdir: ../elsewhere\n")
    with opened(root) as given:
        assert given is not None
        assert given.commit("HEAD") is None
        assert given.tree(GONE) is None
    assert not (root.parent / "ran").exists()


def test_the_config_of_a_repository_is_not_even_read(root: Path) -> None:
    commit = git(root, "rev-parse", "HEAD")
    (root / ".git/config").write_text("[this is no config\n")
    with opened(root) as given:
        assert given is not None
        assert given.commit("HEAD") == commit


def test_what_the_caller_is_a_hook_of_is_not_asked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = git(root, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(root.parent / "none"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(root.parent / "none"))
    with opened(root) as given:
        assert given is not None
        assert given.commit("HEAD") == commit


def test_a_commit_whose_text_has_another_hash_has_no_tree(root: Path) -> None:
    commit, tree = git(root, "rev-parse", "HEAD"), git(root, "rev-parse", "HEAD^{tree}")
    other = git(root, "commit-tree", tree, "-m", "two")
    objects = root / ".git/objects"
    place = objects / commit[:2] / commit[2:]
    place.chmod(0o644)
    place.write_bytes((objects / other[:2] / other[2:]).read_bytes())
    with opened(root) as given:
        assert given is not None
        assert given.tree(commit) is None


def test_a_file_that_a_clone_in_part_lacks_is_not_taken_for_none(root: Path) -> None:
    commit, blob = git(root, "rev-parse", "HEAD"), git(root, "rev-parse", "HEAD:sub/file")
    (root / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with opened(root) as given:
        assert given is not None
        with pytest.raises(SourceError, match=f"git's object {blob} is missing"):
            given.file(commit, "sub/file")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (".git", b"no link"),
        (".git", b"gitdir: ../none\n"),
        (".git/commondir", b"../../none\n"),
        (".git/commondir", b"x\0y\n"),
        (".git/HEAD", None),
    ],
)
def test_what_is_no_repository_is_none(root: Path, name: str, content: bytes | None) -> None:
    path = root / name
    if name == ".git":
        path.rename(root / "moved")
    elif content is None:
        path.unlink()
        os.mkfifo(path)  # would be waited for
    if content is not None:
        path.write_bytes(content)
    with opened(root) as given:
        assert given is None


def test_git_is_started_in_two_places_alone() -> None:
    """Each other place would start it in a folder that somebody gives, with that folder's config."""
    found = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "podkiln").rglob("*.py")
        if re.search(r"""[([]["']git["'][,)]""", path.read_text(encoding="utf-8"))
    }
    assert found == {"podkiln/lock/resolve/upgrades.py", "podkiln/util/git_repository.py"}
