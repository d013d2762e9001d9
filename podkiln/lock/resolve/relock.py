"""Locking: what descriptions leave open is resolved once, written down, and kept until more is asked for.

Writing uses the network, and only for what is not locked yet; checking never does.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from podkiln.config import catalog, cuda_releases, variant
from podkiln.config.model import UNRESOLVED
from podkiln.errors import LockError, UsageError
from podkiln.lock import additions as locked_additions
from podkiln.lock import drift, kept_image, layers, locations, reader, runtimes, schema
from podkiln.lock import family_bases as locked_bases
from podkiln.lock import nodes as locked_nodes
from podkiln.lock import served_model as locked_model
from podkiln.lock import serving as locked_serving
from podkiln.lock.resolve import (
    additions,
    changes,
    family_bases,
    nodes,
    runtime,
    served_model,
    serving,
    upgrades,
    weights,
)
from podkiln.lock.schema import Lock
from podkiln.util.quoting import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from podkiln.config.catalog import Entry
    from podkiln.config.variant import LoadedVariant
    from podkiln.lock.apt import PackageChange
    from podkiln.lock.resolve.changes import Change
    from podkiln.lock.resolve.weights import ResolveResult
    from podkiln.lock.schema import LockedFile

__all__ = ["RelockResult", "check", "relock"]


@dataclass(frozen=True)
class RelockResult:
    """What `lock` did.

    Attributes:
        changed: Files that are not what they were.
        resolved: Weights with hash and exact size.
        unresolved: Weights that lack one of them.
        warnings: Why some are unresolved; no failure.
        problems: What only a person can put right: one sentence each, with file and line.
        changes: What the locks say now and did not before, or the other way round.
        files: What is locked, by model and destination.
        open_files: Model, destination and reason of each weight that is not resolved.
        packages: Debian packages whose locked version changed.
    """

    changed: tuple[Path, ...]
    resolved: int
    unresolved: int
    warnings: tuple[str, ...]
    problems: tuple[str, ...]
    changes: tuple[Change, ...] = ()
    files: Mapping[tuple[str, str], LockedFile] = field(default_factory=dict)
    open_files: tuple[tuple[str, str, str], ...] = ()
    packages: tuple[PackageChange, ...] = ()

    @property
    def exit_code(self) -> int:
        """0, or that of LockError when a description has to be changed by hand."""
        return LockError.exit_code if self.problems else 0


_UPGRADES = (
    "A Python package, uv, apt, additions, nodes, the id of a model or node, model (the served one), "
    "families, base, comfyui or all."
)


@dataclass(frozen=True)
class _Upgrade:
    """What `--upgrade` names, by kind: packages, models, nodes with base and ComfyUI, what a server has."""

    packages: tuple[str, ...]
    models: frozenset[str]
    pins: tuple[str, ...]
    of_server: frozenset[str]


def relock(names: Sequence[str], upgrade: Sequence[str] = (), cuda: str | None = None) -> RelockResult:
    """Write the locks of variants.

    Args:
        names: Shipped variants, or paths of users' files; `all` for all shipped ones, none for these and each
            CUDA release and platform.
        upgrade: What is looked up again although it is locked: Python packages, `uv`, model ids, `model` (the
            served one), `families`, or `all` of these. `base`, `comfyui` and node ids are pinned in
            descriptions: for those it is said what is newest and which line to change, which counts as a
            problem.
        cuda: The CUDA release to lock them for; else each variant's own.

    Raises DescriptionError, LockError, UsageError (an unknown name in `upgrade`), RegistryError, SourceError.
    """
    variants = load_variants(names, cuda)
    shipped = catalog.load()
    wanted = _sorted(upgrade, variants, shipped)
    problems = _newer(
        wanted.pins, variants
    )  # first: what cannot be reached ends it before anything is written
    before = changes.state(variants, changes.from_disk)
    changed: list[Path] = []
    warnings: list[str] = []
    once = {(locations.user_lock_dir(each), each.spec.runtime.name): each for each in reversed(variants)}
    for described in reversed(once.values()):
        with locations.hinted(described):
            changed += runtime.relock(described, _of_runtime(described, wanted), warnings)
    _refuse_two_meanings(variants)
    for described in variants:
        with locations.hinted(described):
            changed += nodes.relock(described, wanted.packages, warnings)
            changed += serving.relock(described, wanted.packages)
            changed += additions.relock(described, wanted.packages)
    outcomes = [*_relock_weights(variants, shipped, wanted.models), *_relock_served(variants, wanted)]
    after = changes.state(variants, changes.from_disk)
    return RelockResult(
        changed=(*changed, *(path for outcome in outcomes for path in outcome.changed)),
        resolved=sum(outcome.count(resolved=True) for outcome in outcomes),
        unresolved=sum(outcome.count(resolved=False) for outcome in outcomes),
        warnings=tuple(
            dict.fromkeys([*warnings, *(text for outcome in outcomes for text in outcome.warnings)])
        ),
        problems=tuple(
            dict.fromkeys([*problems, *(text for outcome in outcomes for text in outcome.problems)])
        ),
        changes=tuple(changes.compare(before, after)),
        files=after.weights,
        open_files=tuple(
            (model, file.destination, outcome.reasons.get((model, file.destination), "It was not looked up."))
            for outcome in outcomes
            for model, files in outcome.models.items()
            for file in files
            if not file.resolved
        ),
    )


def _of_runtime(described: LoadedVariant, wanted: _Upgrade) -> list[str]:
    """Return the packages to look up again that its runtime has, JupyterLab's environment among it."""
    own = {"all", "uv", *runtime.packages(described)}
    return [name for name in wanted.packages if name in own]


def check(names: Sequence[str], since: str | None = None, cuda: str | None = None) -> list[str]:
    """Return where locks have come apart from descriptions, one sentence each; touches no network.

    Args:
        names: As for `relock`.
        since: A git revision: what the locks knew there they must know still.
        cuda: As for `relock`.

    Raises DescriptionError, LockError for a lock that is damaged, and UsageError for an unknown revision.
    """
    shipped = catalog.load()
    variants = load_variants(names, cuda)
    found: list[str] = []
    for described in variants:
        with locations.hinted(described):
            found += _check(described, shipped)
    if any(locations.user_lock_dir(each) is None for each in variants):
        found += locked_bases.find_drift()
    if since is not None:
        found += _forgotten(variants, shipped, since)
    return list(dict.fromkeys(found))


def _check(described: LoadedVariant, shipped: Mapping[str, Entry]) -> list[str]:
    """Return where a variant's locks have come apart from it. Raises LockError for one that is damaged."""
    found: list[str] = []
    folder, file = locations.folders(described)
    if folder.is_dir() and not os.path.lexists(folder / "runtime.json"):
        found.append(f"There is no lock {folder / 'runtime.json'}.")
    else:
        locked = Lock(folder, schema.read_runtime(folder), {})
        of_nodes, problems = locked_nodes.read(described, locked.runtime, locked.pins())
        locked = replace(locked, nodes=of_nodes)
        drifts = [*drift.find_drift(described, locked), *problems]
        drifts += locked_additions.python_drifts(described, locked)
        drifts += locked_serving.read(described, locked.runtime)[1]
        drifts += locked_model.find_drift(described)
        found += [f"{described.name}: {each}" for each in drifts]
    found += [f"{described.name}: {each}" for each in drift.apt_drifts(described)]
    added = locked_additions.apt_drifts(described, reader.apt_locks(described))
    found += [f"{described.name}: {each}" for each in added]
    entries = _entries(described, shipped)
    own = locations.user_lock_dir(described)
    exact = own is None or file.parent != locations.LOCKS
    models = {name: entry.model for name, entry in entries.items()}
    found += drift.weight_drifts(file, models, exact=exact, target=own and own / locations.WEIGHTS)
    layers.read(layers.path_of(described))  # refuses one that is damaged, as does the next
    runtimes.read(runtimes.path_of(described, substituted=False))
    kept_image.find(described)
    return found


def _forgotten(variants: Sequence[LoadedVariant], shipped: Mapping[str, Entry], since: str) -> list[str]:
    """Return what the locks knew at a git revision and do not know now, one sentence each."""
    stated = {
        (name, file.destination)
        for described in variants
        for name, entry in _entries(described, shipped).items()
        for file in entry.model.files
        if file.sha256 != UNRESOLVED
    }
    after = changes.state(variants, changes.from_disk)
    found: list[str] = []
    for place in dict.fromkeys(each.chain[0].path.parent for each in variants):
        there = [each for each in variants if each.chain[0].path.parent == place]
        before = changes.state(there, changes.from_git(since, place))
        found += [str(each) for each in changes.losses(changes.compare(before, after), stated)]
    return found


def load_variants(names: Sequence[str], cuda: str | None = None) -> list[LoadedVariant]:
    """Return the variants that are named, `all` being the shipped ones; for no name, see `relock`."""
    wanted = [each for name in names or ["all"] for each in (variant.names() if name == "all" else [name])]
    named = [variant.load(name, cuda) for name in dict.fromkeys(wanted)]
    return named if names else [*named, *_for_other_runtimes(wanted)]


def _for_other_runtimes(names: Sequence[str]) -> list[LoadedVariant]:
    """Return shipped variants for each CUDA release and platform that they are not described for."""
    return [
        variant.load(name, None if release == cuda_releases.default() else release, platform)
        for release, platform in cuda_releases.runtimes()[1:]
        for name in names
    ]


def _entries(described: LoadedVariant, shipped: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return the models of a variant's weights lock: all shipped ones, or those that a user's file offers."""
    offered = {offer.id: offer.entry for offer in catalog.offered(described, dict(shipped))}
    return dict(shipped) if locations.user_lock_dir(described) is None else offered


def _sorted(
    upgrade: Sequence[str], variants: Sequence[LoadedVariant], shipped: Mapping[str, Entry]
) -> _Upgrade:
    """Sort the names of --upgrade by kind. Raises UsageError for an unknown name."""
    models = {name for each in variants for name in _entries(each, shipped)}
    of_server = {locked_bases.UPGRADE_NAME}
    of_server |= {locked_model.UPGRADE_NAME} if any(each.spec.model for each in variants) else set()
    pins = {"base", "comfyui", *(name for each in variants for name in each.nodes)}
    packages = {"all", "uv", *(name for each in variants for name in runtime.packages(each))}
    packages |= {additions.ALL, *(name for each in variants for name in additions.packages(each))}
    packages |= {name for each in variants for name in serving.packages(each)}
    packages |= {nodes.ALL, *(name for each in variants for name in nodes.packages(each))}
    for name in upgrade:
        if name not in models | pins | of_server and canonicalize_name(name) not in packages:
            if name == locked_model.UPGRADE_NAME:
                raise UsageError("No variant that is locked here has a `model:`.", hint=_UPGRADES)
            meant = did_you_mean(name, models | pins | of_server | packages)
            raise UsageError(f"Nothing in the lock is called {name!r}.", hint=meant or _UPGRADES)
    return _Upgrade(  # a node and a package may have one name, and so may a model: all of them are meant
        packages=tuple(canonicalize_name(name) for name in upgrade if canonicalize_name(name) in packages),
        models=frozenset(name for name in upgrade if name in models | {"all"}),
        pins=tuple(name for name in upgrade if name in pins),
        of_server=frozenset(name for name in upgrade if name in of_server | {"all"}),
    )


def _newer(pins: Iterable[str], variants: Sequence[LoadedVariant]) -> list[str]:
    asked = {"base": upgrades.base, "comfyui": upgrades.comfyui}
    found = []
    for name in pins:
        for described in variants:
            if name in asked:
                found.append(asked[name](described))
            elif name in described.nodes:
                found.append(upgrades.node(described, name))
    return [text for text in dict.fromkeys(found) if text]


def _refuse_two_meanings(variants: Iterable[LoadedVariant]) -> None:
    """After locking, only two variants that give one name to different runtimes can still be apart."""
    for described in variants:
        folder, _ = locations.folders(described)
        drifts = drift.find_drift(described, Lock(folder, schema.read_runtime(folder), {}))
        if drifts:
            what = f"another variant describes a runtime of this name otherwise: {drifts[0]}"
            raise described.error(
                ("runtime", "name"), what, hint="Give this variant's runtime a name of its own."
            )


def _relock_served(variants: Sequence[LoadedVariant], wanted: _Upgrade) -> list[ResolveResult]:
    """Lock the bases of families, and the models that are served.

    Variants for several runtimes have one lock of theirs.
    """
    outcomes = []
    if any(locations.user_lock_dir(each) is None for each in variants):
        renewed = not wanted.of_server.isdisjoint((locked_bases.UPGRADE_NAME, "all"))
        outcomes.append(family_bases.relock(upgrade=renewed))
    once = {locked_model.path_of(each): each for each in variants}
    renewed = not wanted.of_server.isdisjoint((locked_model.UPGRADE_NAME, "all"))
    for described in once.values():
        with locations.hinted(described):
            outcomes.append(served_model.relock(described, upgrade=renewed))
    return outcomes


def _relock_weights(
    variants: Sequence[LoadedVariant], shipped: Mapping[str, Entry], upgrade: Iterable[str]
) -> list[ResolveResult]:
    shared = locations.LOCKS / locations.WEIGHTS
    outcomes = []
    if any(locations.user_lock_dir(each) is None for each in variants):
        outcomes.append(weights.relock(shared, shipped, frozenset(upgrade), start=shared))
    for described in variants:
        own = locations.user_lock_dir(described)
        if own is not None:
            path = own / locations.WEIGHTS
            start = path if locations.is_there(path) else shared
            entries = _entries(described, shipped)
            with locations.hinted(described):
                outcomes.append(weights.relock(path, entries, frozenset(upgrade), start=start))
    return outcomes
