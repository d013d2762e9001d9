"""A source tree at one commit: what nodes.json says of it, and where its host has its archive."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from pod.util.dataclass import dataclass
from pod.util.env import GITHUB

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


@dataclass(frozen=True)
class Submodule:
    """A tree that lies in a folder of another one."""

    path: str
    tree: SourceTree


@dataclass(frozen=True)
class SourceTree:
    """A repository at a commit; `tree` is git's id of its files, None where nobody has locked it."""

    repo: str
    commit: str
    tree: str | None
    submodules: tuple[Submodule, ...] = ()
    patches: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SourceTree:
        """Read an entry of nodes.json. Raises KeyError, TypeError."""
        return cls(
            data["repo"],
            data["commit"],
            data["tree"],
            tuple(Submodule(each["path"], cls.from_json(each)) for each in data.get("submodules", ())),
            tuple(data.get("patches", ())),
        )


def archive_url(source: SourceTree, github: str) -> str:
    """Return the address of a commit's .tar.gz; `github` is what stands for https://github.com.

    GitHub, Gitea and Forgejo: REPO/archive/COMMIT.tar.gz
    (https://docs.github.com/en/repositories/working-with-files/using-files/downloading-source-code-archives);
    GitLab: REPO/-/archive/COMMIT/NAME-COMMIT.tar.gz
    (https://docs.gitlab.com/user/project/repository/#download-repository-source-code).
    """
    repo, commit = source.repo, quote(source.commit, safe="")
    if (urlsplit(repo).hostname or "").startswith("gitlab."):
        name = repo.rpartition("/")[2]
        return f"{repo}/-/archive/{commit}/{name}-{commit}.tar.gz"
    if repo.startswith(f"{GITHUB}/"):
        repo = github + repo.removeprefix(GITHUB)
    return f"{repo}/archive/{commit}.tar.gz"
