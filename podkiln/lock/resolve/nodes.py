"""The lock of custom nodes, written: packages are resolved, and trees looked up that nobody describes."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING

from podkiln.config import nodes as node_config
from podkiln.errors import LockError, SourceError
from podkiln.lock import locations, nodes, requirements, schema, validation
from podkiln.lock.nodes import FILE, LockedNode, NodePackages, NodesLock
from podkiln.lock.resolve import python, upgrades
from podkiln.lock.resolve.node_packages import Resolution
from podkiln.lock.resolve.python import CompiledLayer
from podkiln.lock.schema import Lock
from podkiln.util import atomic

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from podkiln.config.nodes import NodeEntry
    from podkiln.config.variant import LoadedVariant
    from podkiln.lock.nodes import LockedNodes
    from podkiln.lock.resolve.wheels import Wheel

ALL = "nodes"
"""What --upgrade calls the packages of all nodes."""


def relock(described: LoadedVariant, upgrade: Sequence[str], warnings: list[str]) -> list[Path]:
    """Write the lock of a variant's nodes where none fits; return the files that changed.

    Args:
        described: The variant. Its runtime's own lock has to be there already.
        upgrade: Packages whose pin is given up, or `all`.
        warnings: Told what a person should know, one sentence each.

    Raises DescriptionError for what cannot be had above the runtime, LockError.
    """
    folder = locations.node_folders(described)[0]
    if not described.nodes:
        return _remove(folder, set())
    runtime_folder, _ = locations.folders(described)
    runtime = schema.read_runtime(runtime_folder)
    shared = Lock(runtime_folder, runtime, {}).pins()
    with _unreadable_ones_made_anew(warnings):
        found, problems = nodes.read(described, runtime, shared)
        if found and not problems:
            if locations.user_lock_dir(described) is None:
                folder = found.folder  # of shipped variants with the same nodes, one has the lock
            if not _upgraded(found, upgrade):
                return _with_trees(described, found, warnings) if found.folder == folder else []
    before = _before(described, folder)
    kept = None if {ALL, "all"} & set(upgrade) else _begun_with(described, before)
    made = Resolution(
        described.spec.runtime.python,
        shared,
        _without(kept.pins(), {*upgrade, *shared}) if kept else {},
        {name: _without(pins, upgrade) for name, pins in kept.venv_pins().items()} if kept else {},
    )
    for entry in described.nodes.values():
        made.add(entry)
    wheels = made.wheels()
    texts = {name: _text(described.nodes[name], each) for name, each in wheels.items() if each}
    known = before.nodes if before else {}
    document = NodesLock(
        onto=nodes.onto(runtime),
        nodes=tuple(
            _locked(entry, texts.get(name), wheels[name], known, warnings)
            for name, entry in described.nodes.items()
        ),
    )
    return _write(folder, texts, document)


def packages(described: LoadedVariant) -> set[str]:
    """Return the names of the Python packages that are locked for a variant's nodes."""
    found: set[str] = set()
    for folder in locations.node_folders(described):
        with contextlib.suppress(LockError):
            locked = nodes.read_at(folder) if described.nodes else None
            found |= locked.all_packages() if locked else set()
    return found


def _write(folder: Path, texts: Mapping[str, str], document: NodesLock) -> list[Path]:
    changed = [
        folder / nodes.file_of(name)
        for name, text in texts.items()
        if atomic.write(folder / nodes.file_of(name), text)
    ]
    # Last: until it is there, the hashes in the old one say that something is not finished.
    if atomic.write_json(folder / FILE, document.model_dump()):
        changed.append(folder / FILE)
    return [*changed, *_remove(folder, {FILE, *map(nodes.file_of, texts)})]


def _remove(folder: Path, kept: set[str]) -> list[Path]:
    """Remove the files of a lock, but for some."""
    stale = [path for path in sorted(folder.glob("node*")) if path.is_file() and path.name not in kept]
    for path in stale:
        path.unlink()
    with contextlib.suppress(OSError):  # it is not empty, or not there
        folder.rmdir()
    return stale


@contextlib.contextmanager
def _unreadable_ones_made_anew(warnings: list[str]) -> Iterator[None]:
    """Go on where a lock cannot be read, and say so: it is resolved again."""
    try:
        yield
    except validation.UnreadableLockError as damaged:
        if damaged.newer:
            raise
        said = str(damaged).rstrip(".")
        warnings.append(f"{said}; everything in it was resolved again: compare before you commit.")


def _upgraded(found: LockedNodes, upgrade: Sequence[str]) -> bool:
    return bool({ALL, "all"} & set(upgrade) or found.all_packages() & set(upgrade))


def _before(described: LoadedVariant, folder: Path) -> LockedNodes | None:
    """Return the lock to begin with: the variant's own, or the one that has most of its nodes."""
    found = []
    for place in locations.node_folders(described):
        with contextlib.suppress(LockError):
            if locked := nodes.read_at(place):
                found.append(locked)
    own = next((each for each in found if each.folder == folder), None)
    shared = lambda each: len(each.nodes.keys() & described.nodes.keys())  # noqa: E731
    return own or max(found, key=shared, default=None)


def _begun_with(described: LoadedVariant, before: LockedNodes | None) -> LockedNodes | None:
    """Return the lock whose versions are kept where they fit; without one of its own, that of its kin."""
    if before is None:
        for place in locations.kin_node_folders(described):
            with contextlib.suppress(LockError):
                if locked := nodes.read_at(place):
                    return locked
        return None
    for each in before.document.nodes:
        if each.packages and (before.folder / each.packages.file).is_file():
            validation.refuse_merge(before.folder / each.packages.file)
    return before


def _without(pins: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    return {name: version for name, version in pins.items() if name not in names}


def _text(entry: NodeEntry, wheels: Sequence[Wheel]) -> str:
    how = (
        "has in an environment of its own" if entry.node.python.venv else "brings: no node before it needs it"
    )
    return python.header(f"What the node {entry.id} {how}.") + python.as_text(wheels)


def _locked(
    entry: NodeEntry,
    text: str | None,
    wheels: Sequence[Wheel],
    known: Mapping[str, LockedNode],
    warnings: list[str],
) -> LockedNode:
    packages_of = None
    if text is not None:
        packages_of = NodePackages(
            file=nodes.file_of(entry.id),
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            packages=len(requirements.pinned_blocks(text)),
            wheel_bytes=CompiledLayer.of(text, wheels).wheel_bytes,
        )
    return LockedNode(
        id=entry.id,
        source=entry.node.source,
        repo=entry.node.repo,
        commit=entry.node.commit,
        tree=_tree(entry, known.get(entry.id), warnings),
        parts=nodes.trees(entry),
        submodules=nodes.submodules(entry),
        asked=tuple(each.value for each in entry.requirements()),
        venv=entry.node.python.venv is not None,
        packages=packages_of,
    )


def _with_trees(described: LoadedVariant, found: LockedNodes, warnings: list[str]) -> list[Path]:
    """Look up the trees that are still unknown; where there are none, no network is touched."""
    known = found.nodes
    if all(each.tree or each.source for each in known.values()):
        return []
    made = tuple(
        each.model_copy(update={"tree": _tree(described.nodes[name], each, warnings)})
        for name, each in known.items()
    )
    document = found.document.model_copy(update={"nodes": made})
    path = found.folder / FILE
    return [path] if atomic.write_json(path, document.model_dump()) else []


def _tree(entry: NodeEntry, before: LockedNode | None, warnings: list[str]) -> str | None:
    """Return the tree of a node: described, known already, or else asked of its repository.

    Raises DescriptionError: there is nothing in it that ComfyUI imports.
    """
    node = entry.node
    if node.tree or not (node.repo and node.commit):  # it lies in this repository
        return node.tree
    if before and before.tree and (before.repo, before.commit) == (node.repo, node.commit):
        return before.tree
    try:
        tree, names = upgrades.root(node.repo, node.commit)
    except SourceError as silent:
        warnings.append(f"The tree of node {entry.id} stays unknown: {silent}")
        return None
    if node_config.MODULE not in names:
        what = f"{node.repo} has no {node_config.MODULE} at its root there, so ComfyUI finds no node in it."
        raise entry.error(("commit",), what)
    return tree
