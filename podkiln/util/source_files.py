"""What a folder holds that no image should have of it: links out of it, names that are no text, secrets.

A folder that stands in for a source tree goes into a layer whole, what git ignores there as well.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from pod.util.git_objects import LINK
from pod.util.printable import printable
from podkiln.errors import SourceError
from podkiln.util import git_repository

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from podkiln.util.git_tree import SourceFile

# What people and programs call files with passwords, tokens and private keys in them.
_SECRET: Final = re.compile(
    r"\.env(\.(?!(example|sample|template|dist)$).+)?|[._]netrc|\.(pypirc|npmrc|git-credentials|htpasswd)|"
    r"id_(rsa|dsa|ecdsa|ed25519)(_sk)?|credentials\.json|.+\.(pem|key|p12|pfx|jks|kdbx|ppk)",
    re.IGNORECASE,
)
_MOST_NAMED: Final = 3


def refuse_foreign(files: Iterable[SourceFile], folder: Path) -> None:
    """Raise SourceError for a name that is no UTF-8, and for a link that leads out of a folder."""
    root = os.path.realpath(folder)
    for each in files:
        try:
            each.path.decode()
        except UnicodeDecodeError:
            name = printable(os.fsdecode(each.path))
            raise SourceError(f"{folder} has the file '{name}', whose name is no UTF-8.") from None
        if each.mode == LINK:
            target = each.place.readlink()
            if target.is_absolute() or not f"{os.path.realpath(each.place)}/".startswith(f"{root}/"):
                raise SourceError(f"{each.place} is a link that leads out of the folder, to {target}.")


def refuse_secrets(files: Sequence[SourceFile], folder: Path) -> None:
    """Raise SourceError for files that are called like secrets, and that its last commit does not have."""
    found = [each for each in files if _SECRET.fullmatch(os.fsdecode(each.path.rpartition(b"/")[2]))]
    if not found:
        return
    committed = _committed(found, folder)
    names = [os.fsdecode(each.path) for each in found if each.path not in committed]
    if names:
        more = ", …" if len(names) > _MOST_NAMED else ""
        raise SourceError(
            f"{folder} holds what is called like a secret and is not committed: "
            f"{', '.join(names[:_MOST_NAMED])}{more}; all of a folder goes into the image.",
            hint="Move it out of the folder, or give a folder without it (`git worktree add`).",
        )


def _committed(files: Iterable[SourceFile], folder: Path) -> set[bytes]:
    """Return the paths of those that the last commit has of the repository that a folder lies in."""
    place = folder.resolve()
    root = git_repository.root_of(place)
    if root is None:
        return set()
    try:
        with git_repository.opened(root) as given:
            head = given.commit("HEAD") if given else None
            if given is None or head is None:
                return set()
            below = place.relative_to(root)
            return {
                each.path
                for each in files
                if given.file(head, (below / os.fsdecode(each.path)).as_posix()) is not None
            }
    except SourceError:  # no git, or a clone in part
        return set()
