"""The lock of a variant's custom nodes, and whether it still fits.

It lies in a folder a variant and runtime, `nodes.json` and one requirements file for each node that brings
packages of its own. They are dealt out in the order of the nodes: a package goes to the first one that needs
it, so a node that is appended changes no file before its own. A variant whose nodes are those of another one
uses that one's lock.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import Field, model_validator

from podkiln.config import import_folders
from podkiln.config.document import TupleOf
from podkiln.config.fields import Digest, Identifier, Revision, SafePath
from podkiln.errors import LockError
from podkiln.lock import locations, requirements, validation
from podkiln.lock.drift import damage
from podkiln.lock.schema import LockedLayer
from podkiln.lock.validation import Locked, Schema, Sha256, Size, Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from podkiln.config.node_parts import NodeCode, SourcePath, Submodule
    from podkiln.config.nodes import NodeEntry
    from podkiln.config.variant import LoadedVariant
    from podkiln.lock.schema import RuntimeLock

FILE: Final = "nodes.json"


class LockedTree(Locked):
    """A source tree; `tree` is null where nobody told it."""

    repo: Text
    commit: Revision
    tree: Revision | None


class NodePackages(Locked):
    """The packages that a node brings: their requirements file, and the bytes of the wheels if known."""

    file: SafePath
    sha256: Sha256
    packages: Annotated[int, Field(ge=1, le=10_000)]
    wheel_bytes: Size | None = None


class LockedNode(Locked):
    """A node. `parts`: its submodules, paths and code; `submodules`: the commit of each, by its path.

    `asked`: its requirements; `packages`: what those bring; `venv`: into an environment of its own. `source`:
    its folder in this repository, in the place of repo and commit. Like podkiln's own code it is taken as it
    is, and what it is stands in no lock.
    """

    id: Identifier
    source: SafePath | None = Field(None, exclude_if=lambda value: value is None)
    repo: Text | None = None
    commit: Revision | None = None
    tree: Revision | None = None
    parts: dict[Text, LockedTree] = Field(default_factory=dict)
    submodules: dict[SafePath, Revision] = Field(default_factory=dict)
    asked: TupleOf[Text] = ()
    venv: bool = Field(default=False, exclude_if=lambda value: not value)
    packages: NodePackages | None = None

    @model_validator(mode="after")
    def _of_one_origin(self) -> LockedNode:
        if (self.source is None) == (self.repo is None or self.commit is None):
            raise ValueError(f"{self.id} has either repo and commit, or source")
        return self

    @property
    def layer(self) -> LockedLayer | None:
        """Its layer of packages; None where it needs none that is not there already."""
        return LockedLayer(name="node", **self.packages.model_dump()) if self.packages else None


class NodesLock(Locked):
    """nodes.json. `onto`: digest over the runtime's Python layers that the packages were resolved onto."""

    schema_version: Schema = validation.SCHEMA
    onto: Digest
    nodes: TupleOf[LockedNode]


@dataclass(frozen=True)
class LockedNodes:
    """What is locked of a variant's nodes, and where."""

    folder: Path
    document: NodesLock

    @property
    def nodes(self) -> Mapping[str, LockedNode]:
        """The nodes by id, in order."""
        return {each.id: each for each in self.document.nodes}

    def requirements(self) -> dict[str, str]:
        """Return the text of each requirements file, by the id of its node. Raises OSError."""
        return {
            each.id: (self.folder / each.packages.file).read_text(encoding="utf-8")
            for each in self.document.nodes
            if each.packages
        }

    def pins(self) -> dict[str, str]:
        """Return the version of each package that ComfyUI sees; a file may be missing."""
        return self._pins(each for each in self.document.nodes if not each.venv)

    def venv_pins(self) -> dict[str, dict[str, str]]:
        """Return those of each environment of a node's own, by its id; a file may be missing."""
        return {each.id: self._pins([each]) for each in self.document.nodes if each.venv}

    def all_packages(self) -> set[str]:
        """Return the names of all of them."""
        return {*self.pins(), *(name for pins in self.venv_pins().values() for name in pins)}

    def _pins(self, of: Iterable[LockedNode]) -> dict[str, str]:
        files = [self.folder / each.packages.file for each in of if each.packages]
        return requirements.known_pins(
            file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file()
        )

    @property
    def digest(self) -> str:
        """A digest over all of it."""
        return "sha256:" + hashlib.sha256(self.document.model_dump_json().encode()).hexdigest()

    @property
    def packages_digest(self) -> str:
        """A digest over the packages that ComfyUI sees, in their order."""
        return "".join(
            each.packages.sha256 for each in self.document.nodes if each.packages and not each.venv
        )


def onto(runtime: RuntimeLock, below: LockedNodes | None = None) -> str:
    """Return the digest over what Python packages are resolved onto: the runtime's, and those of nodes."""
    text = "".join(layer.sha256 for layer in runtime.python_layers) + runtime.python
    text += below.packages_digest if below else ""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def file_of(name: str) -> str:
    """Return the name of a node's requirements file."""
    return f"node-{name}.txt"


def read_at(folder: Path) -> LockedNodes | None:
    """Read what is locked in a folder; None without a lock. Raises LockError: a damaged one."""
    try:
        return LockedNodes(folder, validation.read(folder / FILE, NodesLock, hint=validation.DAMAGED))
    except FileNotFoundError:
        return None


def read(
    described: LoadedVariant, runtime: RuntimeLock, shared: Mapping[str, str]
) -> tuple[LockedNodes | None, list[str]]:
    """Return the lock of a variant's nodes, and where it and what is described have come apart.

    Of the locks that fit, its own comes first, then those of the shipped variants. `shared`: the runtime's
    own packages. Raises LockError: its own is damaged.
    """
    if not described.nodes:
        return None, []
    own, *others = locations.node_folders(described)
    with locations.hinted(described):
        found = read_at(own)
    problems = _drifts(described, found, runtime, shared) if found else []
    if found and not problems:
        return found, []
    for folder in others:
        other = read_at(folder)
        if other and not _drifts(described, other, runtime, shared):
            return other, []
    if found is None:
        names = ", ".join(described.nodes)
        return None, [f"the custom nodes ({names}) are not locked: there is no {own / FILE}."]
    return found, problems


def _drifts(
    described: LoadedVariant, locked: LockedNodes, runtime: RuntimeLock, shared: Mapping[str, str]
) -> list[str]:
    """Return where a lock is not of what is described: one sentence each."""
    if list(described.nodes) != [each.id for each in locked.document.nodes]:
        return ["the custom nodes described and locked are not the same, or not in the same order."]
    found = [
        problem
        for entry, each in zip(described.nodes.values(), locked.document.nodes, strict=True)
        for problem in _node_drifts(entry, each)
    ]
    if locked.document.onto != onto(runtime):
        found.append("the custom nodes were locked for other Python layers than the runtime has now.")
    for each in locked.document.nodes:
        found += damage(locked.folder, each.layer) if each.layer else []
    return found or [*_contradictions(described, locked, shared)]


def _node_drifts(entry: NodeEntry, locked: LockedNode) -> Iterator[str]:
    node = entry.node
    pinned = (node.source, node.repo, node.commit)
    if pinned != (locked.source, locked.repo, locked.commit) or node.tree not in (None, locked.tree):
        yield f"the node {entry.id} is described with another commit or tree than is locked."
    elif trees(entry) != dict(locked.parts) or submodules(entry) != dict(locked.submodules):
        yield f"the node {entry.id} is described with other submodules, paths or code than are locked."
    asked = tuple(each.value for each in entry.requirements())
    if (asked, node.python.venv is not None) != (locked.asked, locked.venv):
        yield f"the Python packages of the node {entry.id} have changed since they were locked."


def trees(entry: NodeEntry) -> dict[str, LockedTree]:
    """Return the trees of a node's submodules, paths and code, by what their inputs are called."""
    node = entry.node
    parts: tuple[Submodule | SourcePath | NodeCode, ...] = (*node.submodules, *node.paths, *node.code)
    return {
        name: LockedTree(repo=each.repo, commit=each.commit, tree=each.tree)
        for name, each in zip(entry.node.parts, parts, strict=True)
    }


def submodules(entry: NodeEntry) -> dict[str, str]:
    """Return the commit of each of a node's submodules, by its path."""
    return {each.path: each.commit for each in entry.node.submodules}


def _contradictions(
    described: LoadedVariant, locked: LockedNodes, shared: Mapping[str, str]
) -> Iterator[str]:
    """Yield what no resolution would come to, of files that are whole: merged, and hashed again."""
    owners: dict[str, str] = {}
    apart = locked.venv_pins()
    for name, text in locked.requirements().items():
        if name in apart:
            continue
        for package, version in requirements.known_pins([text]).items():
            path = locked.folder / file_of(name)
            if package in shared:
                yield f"{path} has {package} {version}, which the runtime has as {shared[package]}."
            if (owner := owners.setdefault(package, name)) != name:
                yield f"{path} has {package} {version}, which the node {owner} brings already."
    pins = {**shared, **locked.pins()}
    if double := import_folders.contested(pins):
        folder, names = double
        yield f"{' and '.join(names)} are locked, and both unpack into the folder {folder.folder}/."
    for entry in described.nodes.values():
        seen = {**shared, **apart[entry.id]} if entry.id in apart else pins
        for item in entry.requirements():
            line = item.value if entry.id in apart else import_folders.kept(item.value, shared)
            wanted = Requirement(line)
            there = seen.get(canonicalize_name(wanted.name))
            if there is None or not wanted.specifier.contains(there, prereleases=True):
                has = f"has {wanted.name} {there}" if there else f"lacks {wanted.name}"
                yield f"the lock in {locked.folder} {has}, and the node {entry.id} asks for `{item.value}`."


def require(problems: list[str], described: LoadedVariant) -> None:
    """Raise LockError for the first of some drifts."""
    if problems:
        what = f"The lock does not fit the description: {problems[0]}"
        raise LockError(what, hint=locations.hint_for(described, requirements.RELOCK))
