"""Which source a ComfyUI release is: its commit, git's hash of its files, and a folder that has them.

A checkout knows both; of a plain folder the commit is asked of the repository, or named by a person. Nothing
that is fetched is run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from podkiln.config import comfyui_source, folder_paths, releases
from podkiln.config.cli_args import FILE as CLI_ARGS
from podkiln.errors import SourceError, UsageError
from podkiln.lock.resolve import upgrades
from podkiln.util import git_repository
from podkiln.util.git_tree import tree_id
from podkiln.util.quoting import shown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from podkiln.util.git_repository import Repository

NEWEST: Final = "newest"
_WHOLE: Final = 40  # digits of a commit
_SHORT: Final = 12  # of them in the name of a commit that is no release
_FILES: Final = (
    comfyui_source.VERSION,
    comfyui_source.REQUIREMENTS,
    comfyui_source.PROJECT,
    CLI_ARGS,
    folder_paths.FILE,
)


@dataclass(frozen=True)
class Named:
    """What a person names: a release, a commit, or a release with its commit."""

    version: str | None
    commit: str | None

    @classmethod
    def parse(cls, text: str) -> Named:
        """Read VERSION, COMMIT or VERSION@COMMIT. Raises UsageError."""
        version, at, commit = text.partition("@")
        if not at and "." not in text:
            version, commit = "", text
        wrong = (version and not re.fullmatch(f"v?{comfyui_source.RELEASE}", version)) or (
            (commit or at) and not re.fullmatch(r"[0-9a-f]{7,40}", commit)
        )
        if wrong or not text:
            raise UsageError(
                f"{shown(text)} is neither a release nor a commit of ComfyUI.",
                hint="Write 0.32.0, the 40 digits of a commit, both as 0.32.0@COMMIT, or newest.",
            )
        return cls(version.removeprefix("v") or None, commit or None)


@dataclass(frozen=True)
class Checkout:
    """A source tree whose commit is known.

    Attributes:
        release: What its data is called: its version, or that and digits of the commit.
        repo: Its repository.
        commit: Its commit.
        tree: git's hash of the commit's files.
        folder: The files that podkiln reads.
        notes: What a person should know of it, a sentence each.
    """

    release: str
    repo: str
    commit: str
    tree: str
    folder: Path
    notes: tuple[str, ...] = ()


def of_folder(named: Named, folder: Path, repo: str, places: Sequence[Path]) -> Checkout:
    """Take a folder that a person gives.

    Args:
        named: What it is said to be.
        folder: A checkout, or the bare files.
        repo: The repository that it comes from.
        places: Where releases are described already.

    Raises SourceError, UsageError: it is not what it is said to be, or nobody knows its commit.
    """
    if not folder.is_dir():
        raise SourceError(f"--source comfyui: there is no folder {folder}.")
    version = comfyui_source.version_of(folder)
    if named.version and named.version != version:
        raise UsageError(f"--source comfyui: {folder} is ComfyUI {version}, and not {named.version}.")
    with git_repository.opened(folder) as given:
        head = given.commit("HEAD") if given else None
        if given and head:
            return _of_checkout(named, given, repo, version, head, places)
    known = _described(version, places)
    actual = tree_id(folder)
    commit, notes = named.commit, []
    if commit is None and known:
        commit = known.commit
    if commit is None:
        commit = _asked(repo, version, folder)
    if len(commit) < _WHOLE:
        raise UsageError(f"{commit} is a part of a commit, and {folder} is no checkout: write all 40 digits.")
    tree = known.tree if known and known.commit == commit else _tree(repo, commit)
    if tree is None:
        tree = actual
        notes.append(
            f"{repo} could not be asked for the files of {commit}: they are taken to be those of {folder}."
        )
    if tree != actual:
        notes.append(f"{folder} is tree {actual}, and {commit} is {tree}: what was read is the folder's.")
    found = Checkout(version, repo, commit, tree, folder, tuple(notes))
    return found if named.version or (known and known.commit == commit) else _release(found, version)


def fetched(named: Named, repo: str, folder: Path) -> Checkout:
    """Fetch what is read of a commit from its repository. Raises SourceError."""
    commit = named.commit or _asked(repo, str(named.version))
    if len(commit) < _WHOLE:
        raise UsageError(
            f"{commit} is a part of a commit: write all 40 digits, or give --source comfyui=DIR."
        )
    upgrades.fetch(repo, commit, folder, _FILES)
    version = comfyui_source.version_of(folder)
    if named.version and named.version != version:
        raise UsageError(f"{repo}: {commit} is ComfyUI {version}, and not {named.version}.")
    with git_repository.opened(folder) as given:
        tree = given.tree(commit) if given else None
    if tree is None:
        raise SourceError(f"{repo} answered with something else than a commit for {commit}.")
    found = Checkout(version, repo, commit, tree, folder)
    return found if named.version else _release(found, version)


def newest(repo: str) -> Named:
    """Return the newest release. Raises SourceError: it cannot be asked, or has none."""
    found = upgrades.releases(repo)
    if not found:
        raise SourceError(f"{repo} has no release.")
    best = max(found)
    return Named(".".join(map(str, best)), found[best])


def _of_checkout(
    named: Named, given: Repository, repo: str, version: str, head: str, places: Sequence[Path]
) -> Checkout:
    folder = given.root
    if named.commit and not head.startswith(named.commit):
        raise UsageError(
            f"--source comfyui: {folder} is at {head}, and not at {named.commit}: check that commit out."
        )
    tree = given.tree(head)
    if tree is None:
        raise SourceError(f"--source comfyui: {folder}: its commit {head} is damaged, as `git fsck` says.")
    tag = given.commit(f"refs/tags/v{version}")
    if named.version and not named.commit and tag and tag != head:
        raise UsageError(
            f"--source comfyui: {folder} is at {head}, and v{version} is {tag}: check that out, or name "
            "the commit."
        )
    notes = []
    actual = tree_id(folder)
    if actual != tree:
        notes.append(f"{folder} is tree {actual}, and its commit is {tree}: what was read is the folder's.")
    found = Checkout(version, repo, head, tree, folder, tuple(notes))
    known = _described(version, places)
    if named.version or tag == head or (known and known.commit == head):
        return found
    return _release(found, version) if tag is None else _called(found, version)


def _release(found: Checkout, version: str) -> Checkout:
    """Call a commit by its release where its repository says that it is one, and else by its digits."""
    try:
        tagged = upgrades.releases(found.repo).get(upgrades.numbers(version))
    except SourceError:
        tagged = None
    return found if tagged == found.commit else _called(found, version)


def _called(found: Checkout, version: str) -> Checkout:
    return replace(found, release=f"{version}-{found.commit[:_SHORT]}")


def _described(version: str, places: Sequence[Path]) -> releases.ReleaseFile | None:
    folder = releases.find(version, places)
    return releases.load(version, folder)[0] if folder else None


def _asked(repo: str, version: str, folder: Path | None = None) -> str:
    """Return the commit of a release, as its repository says. Raises SourceError."""
    hint = f"Write {version}@COMMIT."
    try:
        found = upgrades.releases(repo)
    except SourceError as silent:
        where = f"{folder} is no checkout of git" if folder else "no folder is given (--source comfyui=DIR)"
        raise SourceError(
            f"The commit of ComfyUI {version} is not known: {where}, and {silent}", hint=hint
        ) from None
    commit = found.get(upgrades.numbers(version))
    if commit is None:
        newest_one = ".".join(map(str, max(found))) if found else "none"
        raise SourceError(f"{repo} has no release {version}; its newest is {newest_one}.", hint=hint)
    return commit


def _tree(repo: str, commit: str) -> str | None:
    try:
        return upgrades.tree(repo, commit)
    except SourceError:
        return None
