"""What differs between two states of the locks, and what must not: a lock learns, and forgets nothing.

A state is read from files, or from a git revision. `lock --table` shows the difference to what was there
before; `lock --check --since` fails where something known is gone, or became something else unasked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from podkiln.errors import LockError, SourceError, UsageError
from podkiln.lock import family_bases, locations, nodes, requirements, served_model, validation
from podkiln.lock.family_bases import BasesLock
from podkiln.lock.nodes import NodesLock
from podkiln.lock.schema import LockedFile, RuntimeLock, WeightsLock
from podkiln.lock.served_model import ModelLock
from podkiln.util import git_repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from podkiln.config.variant import LoadedVariant

    Reader = Callable[[Path], bytes | None]

Kind = Literal["resolved", "changed", "lost", "dropped", "added"]
_KEYS: Final = ("sha256", "size", "revision")
_INPUTS: Final = "inputs"


@dataclass(frozen=True)
class Change:
    """One difference.

    Attributes:
        kind: resolved: a weight got hash and size; lost: a value is known no more; dropped, added: an entry.
        where: The model, or the runtime's name.
        what: The file, or the pin.
        key: Which value of a weight; "" for a whole entry, and for pins.
        before: The value then; None: not known.
        after: The value now; None: not known.
    """

    kind: Kind
    where: str
    what: str
    key: str = ""
    before: str | None = None
    after: str | None = None

    def __str__(self) -> str:
        name = f"{self.where}: {self.what}"
        if self.kind == "lost":
            return f"{name}: its {self.key or 'pin'} was {self.before}, and is not known any more."
        if self.kind == "changed":
            return f"{name}: its {self.key or 'pin'} was {self.before}, and is {self.after} now."
        return f"{name} was {self.kind}."


@dataclass
class State:
    """What locks say: weights by model and destination, and the runtimes' pins by runtime and name."""

    weights: dict[tuple[str, str], LockedFile] = field(default_factory=dict)
    pins: dict[tuple[str, str], str] = field(default_factory=dict)


def state(variants: Iterable[LoadedVariant], read: Reader) -> State:
    """Read the locks of variants. A damaged one counts as unknown; its users refuse it themselves."""
    found, variants = State(), list(variants)
    if any(locations.user_lock_dir(each) is None for each in variants) and (
        bases := _load(family_bases.path(), BasesLock, read)
    ):
        pinned = {name: part.revision for name, part in bases.bases.items() if part}
        found.pins |= {
            (family_bases.UPGRADE_NAME, f"base {name}"): revision for name, revision in pinned.items()
        }
    for described in variants:
        folder, weights = locations.folders(described)
        if locked := _load(weights, WeightsLock, read):
            for model, files in locked.models.items():
                found.weights |= {(model, file.destination): file for file in files}
        if runtime := _load(folder / "runtime.json", RuntimeLock, read):
            found.pins |= {(folder.name, name): value for name, value in _pins(folder, runtime, read)}
        if served := _load(served_model.path_of(described), ModelLock, read):
            name = served_model.name_of(described)
            found.weights |= {(name, file.destination): file for file in served.files}
            found.pins[name, _INPUTS] = " ".join(map("=".join, served.variables.items()))
        for place in locations.node_folders(described)[:1]:
            if of_nodes := _load(place / nodes.FILE, NodesLock, read):
                found.pins |= {
                    (f"{described.name}, {folder.name}", name): value
                    for name, value in _node_pins(place, of_nodes, read)
                }
    return found


def from_disk(path: Path) -> bytes | None:
    """Read a file as it is now; None without one."""
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError:
        return None


def from_git(revision: str, folder: Path) -> Reader:
    """Return what reads a file as it was at a git revision; None without one.

    Raises UsageError: no such revision of the repository that a folder lies in. What is returned raises
    SourceError: the repository was cloned in part, without the file.
    """
    root = git_repository.root_of(folder.resolve())
    try:
        commit = None
        if root:
            with git_repository.opened(root) as given:
                commit = given.commit(revision) if given else None
    except SourceError as failed:
        raise UsageError(f"--since: {failed}") from None
    if root is None or commit is None:
        raise UsageError(
            f"--since: git has no revision {revision!r} in {folder}.",
            hint="Name a commit, a tag or a branch; a shallow clone has no others.",
        )

    def read(path: Path) -> bytes | None:
        parent = next(each for each in path.parents if each.is_dir())
        try:
            inside = parent.resolve().relative_to(root) / path.relative_to(parent)
        except ValueError:  # of another repository
            return None
        with git_repository.opened(root) as then:
            return then.file(commit, str(inside)) if then else None

    return read


def compare(before: State, after: State) -> list[Change]:
    """Return all differences, in the order of models and runtimes."""
    found: list[Change] = []
    for place in sorted(before.weights.keys() | after.weights.keys()):
        found += _weight(place, before.weights.get(place), after.weights.get(place))
    for place in sorted(before.pins.keys() | after.pins.keys()):
        old, new = before.pins.get(place), after.pins.get(place)
        if old != new:
            kind: Kind = "added" if old is None else "dropped" if new is None else "changed"
            found.append(Change(kind, *place, before=old, after=new))
    return found


def losses(changes: Iterable[Change], stated: Iterable[tuple[str, str]]) -> list[Change]:
    """Return the differences that no relock may make.

    Args:
        changes: All of them.
        stated: Weights, by model and destination, whose hash stands in the description: it decides.
    """
    changes, decided = list(changes), set(stated)
    redescribed = {change.where for change in changes if change.what == _INPUTS}
    return [
        change
        for change in changes
        if change.kind == "lost"
        or (
            change.kind == "changed"
            and change.key in {"sha256", "size"}
            and (change.where, change.what) not in decided
            and change.where not in redescribed
        )
        or (
            change.kind == "changed"
            and change.what.startswith("package ")
            and change.where not in redescribed
        )
    ]


def _load(path: Path, shape: type[validation.L], read: Reader) -> validation.L | None:
    content = read(path)
    try:
        return None if content is None else validation.loads(content, path, shape, hint="")
    except LockError:
        return None


def _pins(folder: Path, runtime: RuntimeLock, read: Reader) -> Iterator[tuple[str, str]]:
    for name in (_INPUTS, "base_image", "base_digest", "comfyui_commit", "comfyui_tree", "python"):
        yield name, getattr(runtime, name)
    for layer in (*runtime.installed, runtime.uv):
        text = (read(folder / layer.file) or b"").decode(errors="replace")
        environment = {"jupyter": " of JupyterLab", "uv": " of the build"}.get(layer.name, "")
        for package, version in requirements.known_pins([text]).items():
            yield f"package {package}{environment}", version


def _node_pins(folder: Path, locked: NodesLock, read: Reader) -> Iterator[tuple[str, str]]:
    yield _INPUTS, " ".join(line for node in locked.nodes for line in (node.id, *node.asked)) + locked.onto
    for node in locked.nodes:
        yield f"node {node.id}", node.source or f"{node.commit} (tree {node.tree or 'unknown'})"
        text = (read(folder / node.packages.file) or b"").decode(errors="replace") if node.packages else ""
        for package, version in requirements.known_pins([text]).items():
            yield f"package {package} of {f'the node {node.id}' if node.venv else 'nodes'}", version


def _weight(place: tuple[str, str], old: LockedFile | None, new: LockedFile | None) -> Iterator[Change]:
    if new is None or old is None:
        kind: Kind = "dropped" if new is None else "added"
        if kind == "added" and new and new.resolved:
            kind = "resolved"
        yield Change(kind, *place)
        return
    if old.source != new.source:
        yield Change("changed", *place, "source", old.source, new.source)
        return
    for key in _KEYS:
        then, now = getattr(old, key), getattr(new, key)
        if then is not None and then != now:
            lost = now is None
            yield Change("lost" if lost else "changed", *place, key, str(then), None if lost else str(now))
    if new.resolved and not old.resolved:
        yield Change("resolved", *place)
