"""Repositories made by git itself, and the archives of their commits, as GitHub hands them out."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_WHO = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    **{f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


@dataclass(frozen=True)
class Commit:
    """A commit: its id, that of its tree, and its archive."""

    commit: str
    tree: str
    archive: bytes


def git(folder: Path, *words: str) -> bytes:
    """Run git in a folder; returns what it prints."""
    environ = {**os.environ, **_WHO}
    done = subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True, env=environ)
    return done.stdout


def commit(
    folder: Path, files: Mapping[str, str | Path], submodules: Mapping[str, str] | None = None
) -> Commit:
    """Commit files to a new repository: a text, or a Path for a link; names in bin/ are programs."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet")
    for name, content in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            place.symlink_to(content)
        else:
            place.write_text(content)
            place.chmod(0o755 if name.startswith("bin/") else 0o644)
    git(folder, "add", "--all")
    for path, at in (submodules or {}).items():
        git(folder, "update-index", "--add", "--cacheinfo", f"160000,{at},{path}")
    git(folder, "commit", "--quiet", "--message", "first")
    at, tree = git(folder, "rev-parse", "HEAD", "HEAD^{tree}").decode().split()
    return Commit(at, tree, git(folder, "archive", "--format=tar.gz", f"--prefix={folder.name}-{at}/", at))
