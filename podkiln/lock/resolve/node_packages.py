"""The Python packages of custom nodes: resolved node by node, onto those of the runtime, which stay.

A node's packages are resolved together with those of all nodes before it, and prefer what these have come to:
so a node that is appended leaves alone what is there, and variants that begin with the same nodes have the
same packages for them. What unpacks into one folder (variants/system/import-folders.yaml) is had once.

An environment of a node's own is resolved by itself: what the runtime has is taken from there where it fits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from packaging.utils import canonicalize_name

from podkiln.config import import_folders
from podkiln.config.fields import requirement
from podkiln.lock.resolve import python
from podkiln.lock.resolve.uv import UnresolvedError
from podkiln.util.quoting import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from podkiln.config.list_changes import Item
    from podkiln.config.nodes import NodeEntry
    from podkiln.config.runtime import Python
    from podkiln.errors import DescriptionError
    from podkiln.lock.resolve.wheels import Wheel

# uv's words.
_NO_WHEELS: Final = re.compile(
    r"(?:all versions of |only )?(\S+?)(?:==\S+)? (?:has|have) no (?:usable )?wheels"
)
_OTHER_PYTHON: Final = re.compile(r"no wheels with a matching Python")
_UNREACHABLE: Final = re.compile(r"[Ff]ailed to fetch|error sending request|UnknownIssuer|dns error")
_PAGE: Final = "docs/how-to/custom-nodes.md"


@dataclass(frozen=True)
class _Question:
    """One resolution: what is asked for, and what is kept of earlier ones. Equal ones are asked once."""

    asked: tuple[str, ...]
    target: tuple[str, str]
    shared: frozenset[tuple[str, str]]
    kept: frozenset[tuple[str, str]]


_answers: dict[_Question, dict[str, str]] = {}


@dataclass
class Resolution:
    """The packages of some nodes onto those of a runtime; `shared`: version by package of what that has."""

    target: Python
    shared: Mapping[str, str]
    pins: Mapping[str, str]
    venv_pins: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Those of each environment of a node's own, by its id."""
    asked: list[str] = field(default_factory=list)
    entries: list[NodeEntry] = field(default_factory=list)
    found: dict[str, str] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    """Package -> the first node that needs it."""
    venvs: dict[str, dict[str, str]] = field(default_factory=dict)
    """Node -> the packages of its own environment."""

    def add(self, entry: NodeEntry) -> None:
        """Resolve one node more. Raises DescriptionError: what it asks for cannot be had here."""
        if entry.node.python.venv:
            self.venvs[entry.id] = self._venv(entry)
            return
        lines = [self._line(entry, each) for each in entry.requirements()]
        if lines:
            try:
                self.found = self._versions([*self.asked, *lines], {**self.pins, **self.found})
            except UnresolvedError as failed:
                if _UNREACHABLE.search(failed.reason):
                    raise
                raise self._explained(entry, failed) from None
        self.asked += lines
        self.entries.append(entry)
        for name in self.found:
            self.first.setdefault(name, entry.id)

    def _line(self, entry: NodeEntry, item: Item) -> str:
        """Return a line as it is resolved. Raises DescriptionError: the runtime has another version."""
        line = import_folders.kept(item.value, self.shared)
        wanted = requirement(line)
        name = canonicalize_name(wanted.name)
        there = self.shared.get(name)
        if there is not None and not wanted.specifier.contains(there, prereleases=True):
            raise _runtime_has(entry, item, f"does not go with {name} {there}")
        return line

    def wheels(self) -> dict[str, list[Wheel]]:
        """Return the wheels of each node: those that no node before it needs. Raises LockError."""
        dealt: dict[str, list[Wheel]] = {each.id: [] for each in self.entries}
        dealt |= {name: python.wheels_of(found, self.target) for name, found in self.venvs.items()}
        for wheel in python.wheels_of(self.found, self.target):
            dealt[self.first[wheel.package]].append(wheel)
        return dealt

    def _versions(self, asked: Sequence[str], kept: Mapping[str, str]) -> dict[str, str]:
        question = _Question(
            tuple(asked),
            (self.target.version, self.target.platform),
            frozenset(self.shared.items()),
            frozenset(kept.items()),
        )
        if question not in _answers:
            _answers[question] = _one_owner(asked, self.target, self.shared, kept)
        return _answers[question]

    def _venv(self, entry: NodeEntry) -> dict[str, str]:
        """Resolve an environment of a node's own. Raises DescriptionError: its lines cannot be had."""
        items, kept = [*entry.requirements()], self.venv_pins.get(entry.id, {})
        if not items:
            return {}

        def resolved(lines: Sequence[str]) -> dict[str, str]:
            return python.versions_added(lines, self.target, self.shared, kept, binding=False)

        try:
            return resolved([each.value for each in items])
        except UnresolvedError as failed:
            if _UNREACHABLE.search(failed.reason):
                raise
            together = failed
        for item in items:
            try:
                resolved([item.value])
            except UnresolvedError as alone:
                raise _lacking(entry, item, alone) from None
        what = f"the packages of this node do not go together: {together.cause}"
        raise entry.error(("python",), what, hint=together.hint)

    def _explained(self, entry: NodeEntry, failed: UnresolvedError) -> DescriptionError:
        """Return what is wrong with one line of a node: by itself, or with what another node asks for."""
        for item in entry.requirements():
            if found := self._blamed(entry, item):
                return found
        for item in entry.requirements():
            line = import_folders.kept(item.value, self.shared)
            for earlier in self.entries:
                for other in earlier.requirements():
                    if not self._resolves([import_folders.kept(other.value, self.shared), line]):
                        return _item_error(
                            item,
                            f"{item.value} does not go with {other.value} of the node {earlier.id} "
                            f"({earlier.where(other.place[len(earlier.place) :])}): {failed.cause}",
                            hint="Give one of them another version, or leave one of the nodes out.",
                        )
        what = f"the packages of this node do not go together: {failed.cause}"
        return entry.error(("python",), what, hint=failed.hint)

    def _blamed(self, entry: NodeEntry, item: Item) -> DescriptionError | None:
        """Return why one line of a node cannot be had above the runtime; None where it can."""
        line = import_folders.kept(item.value, self.shared)
        try:
            _one_owner([line], self.target, self.shared, {})
        except UnresolvedError as failed:
            alone = failed
        else:
            return None
        changed = {} if _NO_WHEELS.search(alone.reason) else self._changed(line)
        if changed:
            needs = ", ".join(f"{name} {version}" for name, version in changed.items())
            has = ", ".join(f"{name} {self.shared[name]}" for name in changed)
            return _runtime_has(entry, item, f"needs {needs}, and does not go with {has}")
        pinned = {f"{name}=={version}": name for name, version in self.shared.items()}
        clash = next(
            (word for word in re.findall(r"[\w.-]+==[\w.+!-]*\w", alone.reason) if word in pinned), None
        )
        if clash:
            name = pinned[clash]
            return _runtime_has(entry, item, f"needs another {name} than {name} {self.shared[name]}")
        return _lacking(entry, item, alone)

    def _changed(self, line: str) -> dict[str, str]:
        """Return which packages of the runtime a line would change, and to which versions."""
        try:
            free = python.versions_added([line], self.target, self.shared, {}, binding=False)
        except UnresolvedError:
            return {}
        return {name: version for name, version in free.items() if name in self.shared}

    def _resolves(self, asked: Sequence[str]) -> bool:
        try:
            _one_owner(asked, self.target, self.shared, self.found)
        except UnresolvedError:
            return False
        return True


def _one_owner(
    asked: Iterable[str], target: Python, shared: Mapping[str, str], kept: Mapping[str, str]
) -> dict[str, str]:
    """Resolve, and again where packages asked for others that own one folder. Raises UnresolvedError."""
    lines, never = list(asked), list[str]()
    while True:
        found = python.versions_added(lines, target, shared, kept, never=never)
        strangers = [name for name in found if name not in never and _is_stranger(name, shared)]
        if not strangers:
            return found
        never += strangers
        owners = {each.owner(shared) for name in strangers if (each := import_folders.of_package(name))}
        lines += sorted(owners - {*lines, *shared})


def _is_stranger(name: str, shared: Mapping[str, str]) -> bool:
    """Tell whether another package than this one owns its folder in images."""
    folder = import_folders.of_package(name)
    return folder is not None and name != folder.owner(shared)


def _lacking(entry: NodeEntry, item: Item, alone: UnresolvedError) -> DescriptionError:
    """Return why nobody can have a line: the index has no such package, or none that is built."""
    if unknown := alone.unknown_package:
        return _item_error(item, f"the package index has no package {shown(unknown)}.", alone.hint)
    if found := _NO_WHEELS.search(alone.reason):
        other = _OTHER_PYTHON.search(alone.reason)
        has = "for other versions of Python" if other else "as source"
        return _item_error(
            item,
            f"{item.value} of the node {entry.id} needs {found[1]}, which the package index has {has} "
            "alone, and a build compiles nothing.",
            f"Put its repository on the path, pinned: `paths:` of the node ({_PAGE}).",
        )
    return _item_error(item, f"{item.value} cannot be had: {alone.cause}", alone.hint)


def _runtime_has(entry: NodeEntry, item: Item, clash: str) -> DescriptionError:
    """Return that a line wants another package than the runtime has locked."""
    return _item_error(
        item,
        f"{item.value} of the node {entry.id} {clash}, which the layers of the runtime have and keep.",
        f"Drop or replace the line, where the node does without ({_PAGE}).",
    )


def _item_error(item: Item, what: str, hint: str | None = None) -> DescriptionError:
    return item.error(what, hint=hint)
