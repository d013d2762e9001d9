"""Read a git repository that somebody gives, without running anything that it names.

A repository's own config can name programs: core.fsmonitor, core.sshCommand, filters and text conversions,
uploadpack of a remote from which objects are missing. So git is never started in it. It runs in a repository
of our own that holds no config but ours, and borrows from the given one what is data alone: HEAD, references
and objects. Format: https://git-scm.com/docs/gitrepository-layout.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from podkiln.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECONDS: Final = 20
_MOST_BYTES: Final = 64 << 20  # of one object; git itself keeps to it too
_SMALL: Final = 64 << 20  # bytes of HEAD, packed-refs and the links to other folders
# All that git needs. Nobody is asked over a network: an object that is missing is missing.
_CONFIG: Final = "[core]\n\trepositoryformatversion = 0\n\tbare = true\n[protocol]\n\tallow = never\n"
# What a git hook, or git's own commands, say about the repository that they run in: it is not ours.
_OF_A_REPOSITORY: Final = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_NAMESPACE"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_CONFIG", "GIT_CONFIG_PARAMETERS"),
    *("GIT_GRAFT_FILE", "GIT_SHALLOW_FILE", "GIT_REPLACE_REF_BASE", "GIT_IMPLICIT_WORK_TREE"),
)


def own_environment() -> dict[str, str]:
    """Return our environment without what says which repository git is to work on."""
    return {name: value for name, value in os.environ.items() if name not in _OF_A_REPOSITORY}


@dataclass(frozen=True)
class Repository:
    """A given repository, for as long as it is opened.

    Attributes:
        root: The folder that has its .git.
        private: The folder of our own that git runs in.
    """

    root: Path
    private: Path

    def commit(self, revision: str) -> str | None:
        """Return the commit that a revision means; None where there is none."""
        found = self._git(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}", most=1 << 10
        )
        text = (found or b"").decode("ascii", "replace").strip()
        return text if re.fullmatch(r"[0-9a-f]{40}", text) else None

    def tree(self, commit: str) -> str | None:
        """Return the tree that a commit names; None where it is missing or does not have its own hash."""
        text = self._object("commit", commit)
        if text is None:
            return None
        digest = hashlib.sha1(b"commit %d\0" % len(text) + text, usedforsecurity=False).hexdigest()
        found = re.match(rb"tree ([0-9a-f]{40})\n", text)
        return found[1].decode() if found and digest == commit else None

    def file(self, commit: str, path: str) -> bytes | None:
        """Return a file of a commit, its path from the root; None without one.

        Raises SourceError: the commit has it, and the repository does not (it was cloned in part).
        """
        found = self._git(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}:{path}", most=1 << 10
        )
        if found is None:
            return None
        name = found.decode("ascii", "replace").strip()
        content = self._object("blob", name)
        if content is None and self._git("cat-file", "-t", name, most=1 << 10) is None:
            raise SourceError(
                f"{self.root}: git's object {name} is missing, the file {path} of {commit[:12]}.",
                hint="Fetch it: a clone in part has not all files of all commits.",
            )
        return content

    def _object(self, kind: str, name: str) -> bytes | None:
        size = (
            self._git("cat-file", "-s", name, most=1 << 10) if re.fullmatch(r"[0-9a-f]{40}", name) else None
        )
        if size is None or int(size) > _MOST_BYTES:
            return None
        return self._git("cat-file", kind, name, most=_MOST_BYTES)

    def _git(self, *arguments: str, most: int) -> bytes | None:
        """Run git; None where it fails. Raises SourceError: there is no git, or it does not end."""
        program = shutil.which("git")
        if program is None:
            raise SourceError(f"{self.root} is a checkout of git, and there is no git here to read it.")
        argv = [program, f"--git-dir={self.private}", "-c", "core.hooksPath=/dev/null", *arguments]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        own = {
            **kept,
            "HOME": str(self.private),  # git before 2.32 does not know GIT_CONFIG_GLOBAL
            "XDG_CONFIG_HOME": str(self.private),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_NO_LAZY_FETCH": "1",  # git before 2.44 does not know it, and has no promisor in our config
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_ALLOW_PROTOCOL": "",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOC_LIMIT": str(4 * _MOST_BYTES),
        }
        try:
            done = subprocess.run(
                argv,
                env=own,
                cwd=self.private,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise SourceError(f"{self.root}: git did not read it within {_SECONDS} s.") from None
        except OSError as wrong:
            raise SourceError(f"{self.root}: git cannot be run: {wrong.strerror}.") from None
        return None if done.returncode or len(done.stdout) > most else done.stdout


@contextlib.contextmanager
def opened(root: Path) -> Iterator[Repository | None]:
    """Open the repository that a folder is a checkout of; None where the folder has no .git of its own.

    Raises SourceError: it cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="podkiln-git-") as scratch:
        private = Path(scratch)
        try:
            known = _borrow(root, private)
        except ValueError:  # a path with a zero byte
            known = False
        except OSError as unreadable:
            what = unreadable.filename or root
            raise SourceError(f"{what} cannot be read: {unreadable.strerror or unreadable}.") from None
        yield Repository(root, private) if known else None


def root_of(folder: Path) -> Path | None:
    """Return the innermost folder with a .git that a folder is, or lies in; None without one."""
    return next((each for each in (folder, *folder.parents) if (each / ".git").exists()), None)


def _borrow(root: Path, private: Path) -> bool:
    """Lay out a repository of our own that has another's references and objects. Returns False without one.

    In a worktree .git is a file that names a folder, whose file commondir names the one with the objects.
    """
    folder = root / ".git"
    if (link := _text(folder)) is not None:
        named = re.match(r"gitdir: ([^\n\0]+)", link)
        if named is None:
            return False
        folder = root / named[1]
    head = _text(folder / "HEAD")
    if head is None:
        return False
    common = folder / ((_text(folder / "commondir") or ".").strip("\n") or ".")
    if not (common / "objects").is_dir():
        return False
    (private / "config").write_text(_CONFIG, encoding="utf-8")
    (private / "HEAD").write_text(head, encoding="utf-8", errors="surrogateescape")
    for name, place in (("packed-refs", common), ("shallow", common)):
        if (text := _text(place / name)) is not None:
            (private / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    for name in ("objects", "refs"):
        (private / name).symlink_to(os.path.realpath(common / name))  # a loop of links ends there too
    return True


def _text(path: Path) -> str | None:
    """Return a small file's text; None where there is none, or something else than a file."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    if status.st_size > _SMALL:
        raise SourceError(f"{path} is larger than {_SMALL >> 20} MiB, and none of git's.")
    return path.read_text(encoding="utf-8", errors="surrogateescape")
