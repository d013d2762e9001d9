"""What is newer than the pins that people set in descriptions: it is told, with the line to change.

A base digest stands in YAML beside the reason for it, and a ComfyUI release moves together with flags,
folders and requirements (podkiln.pipeline.comfyui). Here it is only said what there is.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from podkiln.errors import CommandError, SourceError
from podkiln.util import git_repository, process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podkiln.config.variant import LoadedVariant

_SECONDS = 60
# No password is asked for. What a person's own config says of hosts and proxies holds; programs that it runs
# on files of a repository (filters, hooks) are not for one that others wrote.
_GIT = ("git", "-c", "credential.helper=", "-c", "core.askPass=", "-c", "core.hooksPath=/dev/null")


def base(described: LoadedVariant) -> str | None:
    """Return what to change for the newest base image; None when it is pinned. Raises RegistryError."""
    from podkiln import registry  # noqa: PLC0415 - only this option needs a registry
    from podkiln.oci.reference import Reference  # noqa: PLC0415

    pinned = described.spec.runtime.base
    newest = registry.resolve_digest(Reference.parse(pinned.image))
    if newest == pinned.digest:
        return None
    what = f"{pinned.image} is {newest} now; write that here and lock again."
    return str(described.error(("runtime", "base", "digest"), what))


def comfyui(described: LoadedVariant) -> str | None:
    """Return what to change for the newest release of ComfyUI; None when it is pinned. Raises SourceError."""
    pinned = described.spec.runtime.comfyui
    found = releases(pinned.repo)
    if not found or max(found) <= numbers(pinned.version):
        return None
    newest = max(found)
    version = ".".join(map(str, newest))
    what = f"{version} is released, {found[newest]}; `./build.py comfyui {version}` says what it changes."
    return str(described.error(("runtime", "comfyui", "commit"), what))


def releases(repo: str) -> dict[tuple[int, ...], str]:
    """Return the commit of each release of ComfyUI, by the numbers of its version. Raises SourceError."""
    found: dict[tuple[int, ...], str] = {}
    for commit, name in _references(repo, "refs/tags/v*"):
        # An annotated tag is listed twice; the line with ^{} has the commit, and comes second.
        release = re.fullmatch(r"refs/tags/v([0-9]{1,9}(?:\.[0-9]{1,9}){0,5})(?:\^\{\})?", name)
        if release:
            found[numbers(release[1])] = commit
    return found


def node(described: LoadedVariant, name: str) -> str | None:
    """Return what to change for the newest commit of a custom node; None when it is pinned."""
    entry = described.nodes[name]
    pinned = entry.node
    if pinned.repo is None:  # it lies in this repository
        return None
    head = next((commit for commit, found in _references(pinned.repo, "HEAD") if found == "HEAD"), None)
    if head in (None, pinned.commit):
        return None
    return str(entry.error(("commit",), f"{pinned.repo} is at {head} now; write that here."))


def tree(repo: str, commit: str) -> str:
    """Return git's hash of a commit's files, which its repository knows. Raises SourceError."""
    found, _ = root(repo, commit)
    return found


def root(repo: str, commit: str) -> tuple[str, frozenset[str]]:
    """Return that hash, and the names of what lies at the root. Raises SourceError."""
    with tempfile.TemporaryDirectory(prefix="podkiln-lock-") as folder:
        _git(repo, "init", "--quiet", "--bare", folder)
        # The commit, and the list of its root alone. A server that knows no filters sends more.
        options = ("--quiet", "--depth=1", "--no-tags", "--filter=tree:1")
        _git(repo, "-C", folder, "remote", "add", "origin", repo)
        _git(repo, "-C", folder, "fetch", *options, "origin", commit)
        found = re.match(
            r"tree ([0-9a-f]{40})$", _git(repo, "-C", folder, "cat-file", "commit", commit), re.MULTILINE
        )
        names = _git(repo, "-C", folder, "ls-tree", "-z", "--name-only", commit).split("\0")
    if found is None:
        raise SourceError(f"{repo} answered with something else than a commit for {commit}.")
    return found[1], frozenset(names)


def fetch(repo: str, commit: str, folder: Path, files: Sequence[str]) -> None:
    """Check some files of a commit out into an empty folder. Raises SourceError."""
    _git(repo, "init", "--quiet", str(folder))
    # These attributes come before those of the repository's own .gitattributes.
    attributes = folder / ".git/info/attributes"
    attributes.parent.mkdir(parents=True, exist_ok=True)
    attributes.write_text("* -filter -text -ident -working-tree-encoding\n", encoding="utf-8")
    _git(repo, "-C", str(folder), "config", "core.symlinks", "false")  # a link could name any file of ours
    _git(repo, "-C", str(folder), "remote", "add", "origin", repo)
    # The files alone, where the server knows filters; one that does not sends more.
    options = ("--quiet", "--depth=1", "--no-tags", "--filter=blob:none")
    _git(repo, "-C", str(folder), "fetch", *options, "origin", commit)
    listed = _git(repo, "-C", str(folder), "ls-tree", "--name-only", commit, *files).split()
    _git(repo, "-C", str(folder), "checkout", "--quiet", commit, "--", *listed)


def _git(repo: str, *arguments: str) -> str:
    """Run git in none but our own repositories. Raises SourceError."""
    try:
        return _run(*arguments)
    except CommandError as failed:
        reason = " ".join(str(failed).partition("\n")[2].split()) or str(failed)
        raise SourceError(f"{repo} could not be asked: {reason}") from None


def _run(*arguments: str) -> str:
    """Run git without asking anybody for a password. Raises CommandError.

    It starts in an empty folder: in the one that podkiln was called in, git would take up the config of a
    checkout, which may be of others, and name programs to run.
    """
    with tempfile.TemporaryDirectory(prefix="podkiln-git-") as empty:
        own = {**git_repository.own_environment(), "GIT_CEILING_DIRECTORIES": str(Path(empty).parent)}
        return process.run([*_GIT, *arguments], env=own, cwd=Path(empty), input="", timeout=_SECONDS).stdout


def _references(repo: str, pattern: str) -> list[tuple[str, str]]:
    """Return commits and names of a remote repository, as `git ls-remote` lists them."""
    try:
        listed = _run("ls-remote", "--", repo, pattern)
    except CommandError as failed:
        reason = " ".join(str(failed).partition("\n")[2].split()) or str(failed)
        raise SourceError(f"{repo} could not be asked what is newest: {reason}") from None
    lines = [line.split("\t") for line in listed.splitlines()]
    return [(commit, name) for commit, name in (line for line in lines if len(line) == 2)]  # noqa: PLR2004


def numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version; a commit after a release counts as that release."""
    return tuple(int(part) for part in version.partition("-")[0].split("."))
