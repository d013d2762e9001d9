"""Inputs of a build that can stand in for what the lock names: a base, a source tree, a set of wheels.

A substitute is a named build context (https://docs.docker.com/reference/cli/docker/buildx/build/#build-context).
It is compared with the lock: the same bytes from elsewhere (a mirror, a checkout) are no substitution at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from podkiln.config.document import ROOT
from podkiln.config.nodes import MODULE
from podkiln.errors import SourceError, UsageError
from podkiln.lock.nodes import LockedNode
from podkiln.oci.reference import Reference
from podkiln.plan import node_layers
from podkiln.util import git_repository, git_tree, source_files
from podkiln.util.git_tree import EMPTY, tree_id, tree_id_of
from podkiln.util.masking import has_secret, masked
from podkiln.util.quoting import cut

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podkiln.lock.apt import BaseLock
    from podkiln.lock.nodes import LockedTree
    from podkiln.lock.schema import Lock

COMFYUI: Final = "comfyui"
NODES: Final = "nodes"
NONE: Final = "none"
"""`--source nodes=none`: an image without the custom nodes of its variant."""
WITHOUT_NODES: Final = f"{NODES}={NONE}"
_COMMIT = re.compile(r"^(?P<url>[a-z+]+://\S+|git@\S+)#(?P<commit>[0-9a-f]{40})$")
_GIT_OVER_HTTP = re.compile(r"^https?://(?!\S+\.git$)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/+")


@dataclass(frozen=True)
class Substitute:
    """What stands in for one stage of the Dockerfile.

    `context` is BuildKit's name of it; `locked` and `actual` are hashes of the same kind, or what names it.
    `kinds`: what the two are called where their form does not say it: git's trees and commits.
    `folder`: the source tree on this disk, of which BuildKit is given those files alone that are hashed.
    `submodules`: paths and commits of the folders in it that are inputs of their own.
    """

    name: str
    context: str
    locked: str
    actual: str
    folder: Path | None = None
    submodules: tuple[tuple[str, str], ...] = ()
    kinds: tuple[str, str] = ("", "")

    @property
    def substituted(self) -> bool:
        """Whether it is something else than what is locked."""
        return self.actual != self.locked

    @property
    def difference(self) -> str:
        """Say what it is, and what is locked."""
        locked, actual = (f"the {kind} " if kind else "" for kind in self.kinds)
        return f"{self.name} is {actual}{self.actual}, the lock names {locked}{self.locked}"


def base(reference: str, lock: Lock) -> Substitute:
    """Take another base image. Without a digest in the reference it counts as substituted."""
    try:
        named = Reference.parse(reference)
    except UsageError as wrong:
        hint = "Give an image reference, or the word bootstrap."
        raise UsageError(f"--base: {wrong}", hint=hint) from None
    return Substitute(
        name="base",
        context=f"docker-image://{named}",
        locked=lock.runtime.base_digest,
        actual=named.digest or str(named),
    )


def unmade_base(lock: Lock, packages: BaseLock | None = None) -> Substitute:
    """Stand for the base that a build would make first: a plan moves nothing.

    Of locked `packages`, it is the base of just these for which Debian's are locked; else none is known.
    """
    found = (
        digest
        for digest, each in lock.apt.items()
        if packages and each.index.base_packages == packages.packages_digest
    )
    actual = next(found, "made from Debian packages")
    return Substitute(name="base", context="", locked=lock.runtime.base_digest, actual=actual)


def layout_base(folder: Path, digest: str, lock: Lock) -> Substitute:
    """Take a base image from an OCI image layout on disk."""
    return Substitute(
        name="base",
        context=f"oci-layout://{folder}@{digest}",
        locked=lock.runtime.base_digest,
        actual=digest,
    )


def source(option: str, lock: Lock) -> Substitute:
    """Take another source tree: NAME=DIR or NAME=URL#COMMIT. Raises UsageError or SourceError."""
    name, separator, value = option.partition("=")
    if name == NODES:
        return no_nodes(value, lock)
    names = replaceable(lock)
    if not separator or not value:
        raise UsageError(f"--source: {masked(option)!r} is neither NAME=DIR nor NAME=URL#COMMIT.")
    if name not in names:
        raise UsageError(f"--source: there is no input {name!r}.", hint=f"There are: {', '.join(names)}.")
    if _SCHEME.match(value) and has_secret(value):
        raise UsageError(
            f"--source {name}: the URL holds a login, which would stay in the bake file.",
            hint=f"Take a checkout instead: --source {name}=DIR",
        )
    scheme, colon, rest = value.partition("://")
    remote = _COMMIT.match(scheme.lower() + colon + rest if colon else value)
    if remote:
        # BuildKit takes an http URL for a repository only when it ends in .git, and hosts serve both forms.
        url = remote["url"] + (".git" if _GIT_OVER_HTTP.match(remote["url"]) else "")
        context = f"{url}#{remote['commit']}"
        locked = _locked_commit(name, lock)
        return Substitute(name, context, locked, remote["commit"], kinds=("commit", "commit"))
    if "://" in value:
        raise UsageError(
            f"--source: {masked(value)!r} names no commit.",
            hint="Write URL#COMMIT with the 40 digits of the commit.",
        )
    folder = _folder(name, value)
    links = _links(name, lock)
    _check_kind(name, folder, value, lock)
    actual = _tree(name, folder, value, links)
    locked = names[name] or _checked_out_tree(folder, _locked_commit(name, lock), actual)
    _check_files(name, folder, links, substituted=actual != locked)
    place = folder.resolve()
    kinds = ("tree" if names[name] or locked == actual else "commit", "tree")
    return Substitute(name, str(place), locked, actual, place, tuple(sorted(links.items())), kinds)


def no_nodes(value: str, lock: Lock) -> Substitute:
    """Leave all custom nodes out of an image, with their packages. Raises UsageError."""
    if value != NONE:
        raise UsageError(
            f"--source {NODES}: {masked(value)!r} is not the word {NONE}, which leaves all nodes out.",
            hint="One of them is replaced by --source node-NAME=DIR.",
        )
    if lock.additions and lock.additions.python and lock.nodes and lock.nodes.packages_digest:
        raise UsageError(
            f"--source {WITHOUT_NODES}: what the variant adds (runtime.python.add) is locked above the "
            "packages of its nodes, and may need them.",
            hint="Take the nodes out of the variant (`nodes: []`) and lock it again.",
        )
    return Substitute(NODES, "", locked=lock.nodes.digest if lock.nodes else NONE, actual=NONE)


def _folder(name: str, value: str) -> Path:
    """Return the folder that is given. Raises SourceError: there is none."""
    try:
        folder = Path(value).expanduser()  # behind NAME= a shell leaves ~ as it is
        if folder.is_dir():
            return folder
    except (OSError, RuntimeError, ValueError):  # a name that no file system takes, or the home of nobody
        pass
    raise SourceError(f"--source {name}: there is no folder {masked(cut(value))}.")


def _check_files(name: str, folder: Path, links: Mapping[str, str], *, substituted: bool) -> None:
    """Refuse what must not come into an image. Raises SourceError. The locked tree's own files are public."""
    try:
        found = git_tree.files(folder, links)
        source_files.refuse_foreign(found, folder)
        if substituted:
            source_files.refuse_secrets(found, folder)
    except SourceError as wrong:
        raise SourceError(f"--source {name}: {wrong}", hint=wrong.hint) from None


def _links(name: str, lock: Lock) -> dict[str, str]:
    """Return the commits of a node's submodules, by path: what a folder has there is not looked at."""
    found = node_layers.inputs(lock).get(name)
    return dict(found.submodules) if isinstance(found, LockedNode) else {}


def _check_kind(name: str, folder: Path, value: str, lock: Lock) -> None:
    """Raise SourceError for a folder that lacks what ComfyUI, or a custom node of it, begins with."""
    node = isinstance(node_layers.inputs(lock).get(name), LockedNode)
    what, file = ("custom node", MODULE) if node else ("ComfyUI", "main.py")
    if (node or name == COMFYUI) and any(folder.iterdir()) and not (folder / file).is_file():
        raise SourceError(f"--source {name}: the folder {value} is no {what}: it has no {file}.")


def _tree(name: str, folder: Path, value: str, links: Mapping[str, str]) -> str:
    """Return the tree of a folder. Raises SourceError where it is empty or cannot be what it is given for."""
    if not any(folder.iterdir()):
        raise SourceError(f"--source {name}: the folder {value} is empty.")
    try:
        actual = tree_id(folder, links)
    except SourceError as unreadable:
        raise SourceError(f"--source {name}: {unreadable}") from None
    if actual == EMPTY:
        raise SourceError(f"--source {name}: the folder {value} is empty.")
    return actual


def _checked_out_tree(folder: Path, commit: str, actual: str) -> str:
    """Return the tree of a locked commit whose own is not locked: a checkout has the commit.

    Nothing there is run or trusted: the commit has to have the locked hash, and the files the tree that its
    text names. Where that cannot be shown, the commit is returned, which no tree equals.
    Format: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects.
    """
    try:
        with git_repository.opened(folder) as given:
            tree = given.tree(commit) if given else None
    except SourceError:  # no git
        tree = None
    return actual if tree == actual else commit


def replaceable(lock: Lock) -> dict[str, str]:
    """Return the stages that --source can replace, with the tree of each; empty where none is locked."""
    nodes = {name: _locked_tree(each) or "" for name, each in node_layers.inputs(lock).items()}
    requirements = {name: text.encode() for name, text in lock.requirements().items()}
    return {COMFYUI: lock.runtime.comfyui_tree, "requirements": tree_id_of(requirements), **nodes}


def _locked_commit(name: str, lock: Lock) -> str:
    if name == COMFYUI:
        return lock.runtime.comfyui_commit
    found = node_layers.inputs(lock).get(name)
    return (found.commit or _locked_tree(found) or "") if found else ""


def _locked_tree(found: LockedTree | LockedNode) -> str | None:
    """Return the tree of a node's source; of one in this repository, what it is now."""
    source = found.source if isinstance(found, LockedNode) else None
    return tree_id(ROOT / source) if source else found.tree
