"""The custom nodes there are, and those of a variant, in the order of their layers."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Final

from pod.source_trees import patches
from pod.source_trees.patches import PatchError
from pod.util.git_objects import LINK
from podkiln.config import document, list_changes, node_list
from podkiln.config.document import ROOT
from podkiln.config.fields import IDENTIFIER, one_name
from podkiln.config.list_changes import Item
from podkiln.config.node import Node
from podkiln.errors import DescriptionError, SourceError
from podkiln.util import files, git_tree, source_files
from podkiln.util.quoting import did_you_mean, shown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from podkiln.config.document import Document, Location
    from podkiln.config.node_parts import Patch
    from podkiln.config.variant import LoadedVariant
    from podkiln.util.git_tree import SourceFile

NODES: Final = ROOT / "variants" / "nodes"
MODULE: Final = "__init__.py"
"""What ComfyUI imports of a node's folder."""


@dataclass(frozen=True)
class NodeEntry:
    """A node under its id, and the file that describes it; `place` is the key in that file."""

    id: str
    node: Node
    source: Document
    place: Location = ()

    def error(self, location: Location, what: str, *, hint: str | None = None) -> DescriptionError:
        """Make the error for a key of the node."""
        return self.source.error((*self.place, *location), what, hint=hint)

    def where(self, location: Location) -> str:
        """File and line of a key, for other sentences."""
        return f"{self.source.path.name}:{self.source.line((*self.place, *location))}"

    @property
    def folder(self) -> str:
        """Its folder below custom_nodes."""
        return self.node.folder_name

    def requirements(self) -> Iterator[Item]:
        """Yield the packages that are installed for it, each where it is written."""
        python = self.node.python
        for at, line in enumerate(python.install):
            yield Item(line, self.source, (*self.place, "python", "install", at))
        for at, each in enumerate(python.replaced):
            yield Item(each.by, self.source, (*self.place, "python", "replaced", at, "by"))

    def own_files(self) -> list[SourceFile]:
        """Return the files of a node that lies in this repository; none of another one.

        Raises DescriptionError: there is no such folder, or not one that a build can take.
        """
        if self.node.source is None:
            return []
        folder = ROOT / self.node.source
        if not folder.is_dir():
            raise self.error(("source",), f"{shown(self.node.source)} is no folder of this repository.")
        if not folder.resolve().is_relative_to(ROOT):
            raise self.error(("source",), f"{shown(self.node.source)} leads out of this repository.")
        try:
            found = git_tree.files(folder)
            source_files.refuse_secrets(found, folder)
        except SourceError as unreadable:
            raise self.error(("source",), str(unreadable), hint=unreadable.hint) from None
        if link := next((each for each in found if each.mode == LINK), None):
            raise self.error(("source",), f"{link.place} is a symlink, which a build does not take.")
        try:
            source_files.refuse_foreign(found, folder)
        except SourceError as foreign:
            raise self.error(("source",), str(foreign)) from None
        if not found:
            raise self.error(("source",), f"the folder {shown(self.node.source)} is empty.")
        if all(each.path != MODULE.encode() for each in found):
            what = f"{shown(self.node.source)} has no {MODULE}, so ComfyUI finds no node in it."
            raise self.error(("source",), what)
        return found

    @property
    def own_tree(self) -> str | None:
        """The tree, as git calls it, of these files as they are now; None of another node."""
        return git_tree.tree_id(ROOT / self.node.source) if self.node.source else None

    def patches(self) -> Iterator[bytes]:
        """Yield its patches. Raises DescriptionError: one is not there, or another one than is described."""
        yield from self._patches(self.node.patches, ())

    def code_patches(self, at: int) -> Iterator[bytes]:
        """Yield those of an entry of `code`. Raises DescriptionError likewise."""
        yield from self._patches(self.node.code[at].patches, ("code", at))

    def _patches(self, listed: Sequence[Patch], place: Location) -> Iterator[bytes]:
        for at, each in enumerate(listed):
            path = self.source.path.parent / each.file
            if problem := files.problem(path):
                raise self.error((*place, "patches", at, "file"), f"{shown(each.file)} {problem}.")
            with path.open("rb") as file:
                content = file.read(patches.LARGEST + 1)
            if len(content) > patches.LARGEST:
                what = f"{shown(each.file)} is larger than the {patches.LARGEST >> 20} MiB of a patch."
                raise self.error((*place, "patches", at, "file"), what)
            has = hashlib.sha256(content).hexdigest()
            if has != each.sha256:
                what = f"{shown(each.file)} has the sha256 {has}, which is not the one that stands here."
                raise self.error((*place, "patches", at, "sha256"), what)
            try:
                patches.files_of(content)
            except PatchError as wrong:
                raise self.error((*place, "patches", at, "file"), f"{shown(each.file)} {wrong}.") from None
            yield content


@cache
def _load(path: Path) -> NodeEntry:
    if not re.fullmatch(IDENTIFIER, path.stem) or path.stem in node_list.WORDS:
        raise DescriptionError(
            f"{path}:1: the file's name is the node's id: use only lower-case letters, digits and . _ -, "
            f"and not the words {' and '.join(node_list.WORDS)}."
        )
    source = document.load(path)
    return NodeEntry(path.stem, source.parse(Node), source)


def load(folder: Path = NODES) -> dict[str, NodeEntry]:
    """Load every node of a folder, by id. Raises DescriptionError."""
    return {path.stem: _load(path) for path in document.files(folder)}


def of(described: LoadedVariant) -> dict[str, NodeEntry]:
    """Return a variant's nodes by id, in the order in which they are declared. Raises DescriptionError."""
    found: dict[str, NodeEntry] = {}
    for item in described.node_items:
        inline = described.spec.nodes.get(item.value) if item.inline else None
        if inline:
            found[item.value] = NodeEntry(item.value, inline, item.file, item.place)
        else:
            found[item.value] = _shipped(item)
    return found


def _shipped(item: node_list.NodeItem) -> NodeEntry:
    path = NODES / f"{item.value}.yaml"
    if not path.is_file():
        known = [each.stem for each in document.files(NODES)]
        what = f"there is no node {shown(item.value)}. {did_you_mean(item.value, known)}".rstrip()
        hint = "variants/nodes/ has those that there are; `NAME: {repo: …, commit: …}` describes one here."
        raise item.file.error(item.place, what, hint=hint)
    return _load(path)


def check(described: LoadedVariant) -> None:
    """Raise DescriptionError for nodes that cannot be in one image."""
    entries = described.nodes
    _check_folders(entries)
    _check_inputs(entries)
    _check_variables(entries)
    for each in entries.values():
        each.own_files()
        listed = [each.patches(), *(each.code_patches(at) for at in range(len(each.node.code)))]
        for _ in chain.from_iterable(listed):
            pass  # read, and so compared with their hashes


def check_models(described: LoadedVariant, known: Collection[str]) -> None:
    """Raise DescriptionError for a model that a node serves and that there is not."""
    for entry in described.nodes.values():
        for at, name in enumerate(entry.node.models):
            if name not in known:
                what = f"there is no model {shown(name)}. {did_you_mean(name, known)}".rstrip()
                raise entry.error(("models", at), what)


def _check_folders(entries: Mapping[str, NodeEntry]) -> None:
    owners: dict[str, NodeEntry] = {}
    for each in entries.values():
        other = owners.setdefault(one_name(each.folder), each)
        if other is not each:
            what = f"its folder {each.folder!r} is that of the node {other.id!r} already."
            key = next(key for key in ("folder", "source", "repo") if getattr(each.node, key))
            raise each.error((key,), what)


def _check_inputs(entries: Mapping[str, NodeEntry]) -> None:
    """Refuse two inputs of one name: the node `a-b`, and the part `b` of the node `a`."""
    owners: dict[str, str] = {}
    for each in entries.values():
        for name in inputs({each.id: each}):
            if name in owners:
                what = f"its input {name} is one of the node {owners[name]!r} too: give one another name."
                raise each.error((), what)
            owners[name] = each.id


def _check_variables(entries: Mapping[str, NodeEntry]) -> None:
    owners: dict[str, tuple[str, str]] = {}
    for each in entries.values():
        code = {one.variable: f"code {one.name} of {each.id}" for one in each.node.code}
        variables = each.node.environment | code
        if each.node.python.venv:
            variables[each.node.python.venv] = f"the Python of {each.id}"
        for name, value in variables.items():
            owner, other = owners.setdefault(name, (each.id, value))
            if other != value:
                what = f"{name} is {shown(value)}, and the node {owner!r} sets {shown(other)}."
                raise each.error(_place_of(name, each.node), what)


def _place_of(variable: str, node: Node) -> Location:
    if variable in node.environment:
        return ("environment", variable)
    return ("python", "venv") if variable == node.python.venv else ("code",)


def inputs(entries: Mapping[str, NodeEntry]) -> Iterator[str]:
    """Yield what the sources of nodes are called as inputs of a build, those of their parts among them."""
    for each in entries.values():
        yield f"node-{each.id}"
        yield from (f"node-{each.id}-{part}" for part in each.node.parts)


def apt_items(described: LoadedVariant) -> Iterator[Item]:
    """Yield the Debian packages that nodes call and that the variant does not list, each once."""
    lists = described.lists
    there = set(described.spec.runtime.apt)
    there |= {each.value for each in lists[list_changes.APT].added} if lists else set()
    for each in described.nodes.values():
        for at, name in enumerate(each.node.apt):
            if name not in there:
                there.add(name)
                yield Item(name, each.source, (*each.place, "apt", at))
