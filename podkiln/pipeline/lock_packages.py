"""Debian's packages locked: for each base of some variants, what apt would install onto it today.

What is locked already stays, unless an upgrade is asked for. A base that cannot be had here keeps what it
has: a warning where nobody asked for just this, because the lock of all else is none the worse for it.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from podkiln.build import apt_resolver, base_image, engine
from podkiln.errors import DescriptionError, EngineError, PodkilnError, UsageError
from podkiln.lock import additions, apt, locations, reader, schema
from podkiln.lock.apt import AddedIndex
from podkiln.lock.resolve import relock
from podkiln.lock.schema import Lock
from podkiln.pipeline import planning
from podkiln.pipeline.request import check_options
from podkiln.render.bake_file import BuildSecrets

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from podkiln.build.apt_resolver import ResolvedPackages
    from podkiln.config.variant import LoadedVariant
    from podkiln.lock.apt import AptLock, PackageChange
    from podkiln.options import BuildRequest

log = logging.getLogger(__name__)
_SUITE: Final = "trixie"  # of scripts/host/bootstrap_base.sh


@dataclass(frozen=True)
class PackagesResult:
    """What was done. `warnings`: why a base is not locked; `changes` are those of all bases."""

    changed: tuple[Path, ...] = ()
    changes: tuple[PackageChange, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Base:
    """A base to lock: BuildKit's name of it, its digest, and where its lock is written."""

    described: LoadedVariant
    context: str
    digest: str
    folder: Path
    known: AptLock | None

    @classmethod
    def of(cls, described: LoadedVariant, request: BuildRequest) -> _Base:
        """Return the base of a variant, or the one that was asked for in its place. Raises UsageError."""
        locked = Lock(
            locations.folders(described)[0], schema.read_runtime(locations.folders(described)[0]), {}
        )
        runtime = locked.runtime
        context, digest = f"docker-image://{runtime.base_image}@{runtime.base_digest}", runtime.base_digest
        for each in planning.substitutes(request, locked):
            context, digest = each.context, each.actual
        if not digest.startswith("sha256:"):
            raise UsageError(
                f"--base: {digest} names no digest, and each apt lock is of one.", hint="Write NAME@sha256:…"
            )
        folder = locations.apt_folders(described)[0] / apt.folder_name(digest)
        return cls(described, context, digest, folder, reader.apt_locks(described).get(digest))

    def resolve(self, request: BuildRequest, builder: str | None) -> ResolvedPackages:
        """Ask apt in it."""
        log.info("Asking apt in %s what it would install.", self.context)
        runtime = self.described.spec.runtime
        secrets = BuildSecrets(request.network, runtime.base.suite)
        return apt_resolver.resolve(
            self.context, self.digest, runtime.apt, secrets, builder, self.described.platform
        )

    def write(self, found: ResolvedPackages) -> PackagesResult:
        """Write down what apt answered, unless it is what is locked."""
        before = self.known or (apt.read(self.folder) if (self.folder / apt.FILE).is_file() else None)
        return _write(self.folder, found, before)


@dataclass(frozen=True)
class _Added:
    """What a variant adds above the packages of a base, which have to be locked by then."""

    base: _Base
    upgrade: bool

    @property
    def folder(self) -> Path:
        """Where it is locked."""
        own = locations.additions_folder(self.base.described) / locations.APT
        return own / apt.folder_name(self.base.digest)

    def lock(self, request: BuildRequest, builder: str | None) -> PackagesResult:
        """Ask apt for it, and write that down. Raises DescriptionError, SourceError, LockError."""
        described = self.base.described
        shared = reader.apt_locks(described).get(self.base.digest)
        if shared is None:  # of which a warning tells
            return PackagesResult()
        before = apt.read(self.folder, AddedIndex) if (self.folder / apt.FILE).is_file() else None
        log.info("Asking apt in %s what %s adds to it.", self.base.context, described.name)
        secrets = BuildSecrets(request.network, described.spec.runtime.base.suite)
        found = apt_resolver.resolve_added(self.base.context, shared, described, secrets, builder)
        return _write(self.folder, found, before)

    @property
    def is_due(self) -> bool:
        """Whether apt has to be asked."""
        described = self.base.described
        known = additions.apt_locks(described, reader.apt_locks(described))
        return bool(described.additions.packages) and (self.upgrade or self.base.digest not in known)


def _write(folder: Path, found: ResolvedPackages, before: AptLock | None) -> PackagesResult:
    """Write a lock, unless it is the one that is there, and say how it differs."""
    if before and found.index == before.index.model_copy(update={"snapshot_at": found.index.snapshot_at}):
        return PackagesResult()
    changed = apt.write(folder, found.index, found.packages)
    after = {each.name: each for packages in found.packages.values() for each in packages}
    changes = apt.compare(before.all if before else {}, after, found.security)
    of_base = (
        replace(each, before=found.index.replaced.get(each.name)) if each.before is None else each
        for each in changes
    )
    return PackagesResult(tuple(changed), tuple(of_base))


def lock(
    names: Sequence[str],
    request: BuildRequest,
    *,
    upgrade: bool = False,
    required: bool = False,
    upgrade_added: bool = False,
) -> PackagesResult:
    """Lock the packages of variants, for their own base or the one that the request names.

    Args:
        names: Variants, as for relock.relock.
        request: Base, builder and network.
        upgrade: Ask again for what is locked.
        required: Fail where a base cannot be asked, as when the request names one.
        upgrade_added: Ask again for what variants add.

    Raises UsageError, LockError for a damaged lock, DescriptionError for what cannot be added; and where
    required EngineError and SourceError.
    """
    check_options(request)
    required = required or request.substitutes.base is not None
    made = PackagesResult()
    if request.substitutes.base == planning.BOOTSTRAP:
        made = _lock_bootstrapped(request, upgrade=upgrade)
    described = relock.load_variants(names, request.runtime.cuda)
    variants = [_Base.of(each, request) for each in described]
    bases = {(each.folder, each.digest): each for each in variants if each.known is None or upgrade}
    added = [_Added(each, upgrade or upgrade_added) for each in variants]
    made = _joined([made, *map(_without_stale, added)])
    due = [each for each in added if each.is_due]
    if not bases and not due:
        return made
    try:
        if required:
            engine.ensure()
        builder = engine.require(request.engine.builder).builder
        shared = [
            _resolved(each, request, builder, required=bool(required and names)) for each in bases.values()
        ]
        return _joined([made, *shared, *(each.lock(request, builder) for each in due)])
    except PodkilnError as failed:
        if required or isinstance(failed, DescriptionError):
            raise
        named = ", ".join(dict.fromkeys([*(base for _, base in bases), *(each.base.digest for each in due)]))
        return PackagesResult(warnings=(f"apt stays {apt.NOT_LOCKED} for the base {named}: {failed}",))


def _resolved(base: _Base, request: BuildRequest, builder: str | None, *, required: bool) -> PackagesResult:
    """Ask apt in one base. Raises EngineError where the builder is not for its platform, and that counts."""
    platform = base.described.platform
    try:
        if platform != base_image.platform_here():
            engine.require_platform(builder, platform)
    except EngineError as other:
        if required:
            raise
        return PackagesResult(warnings=(f"apt stays {apt.NOT_LOCKED} for {platform}: {other}",))
    return base.write(base.resolve(request, builder))


def _without_stale(added: _Added) -> PackagesResult:
    """Remove locks of additions that fit no more: of other packages, or of a base that has others by now."""
    described, folder = added.base.described, added.folder.parent
    fitting = additions.apt_locks(described, reader.apt_locks(described))
    stale = {path.parent for path in folder.glob(f"*/{apt.FILE}")} - {
        each.folder for each in fitting.values()
    }
    if described.additions.packages:
        stale -= {added.folder}  # it is written anew
    for each in stale:
        shutil.rmtree(each)
    return PackagesResult(tuple(sorted(stale)))


def _lock_bootstrapped(request: BuildRequest, *, upgrade: bool) -> PackagesResult:
    """Lock the packages that the base made here consists of: those of one that is made of today's."""
    folder = locations.LOCKS / planning.BOOTSTRAP
    before = apt.read_base(folder)
    if before and not upgrade:
        return PackagesResult()
    engine.ensure()
    builder = engine.require(request.engine.builder).builder
    machine = base_image.architecture()
    with tempfile.TemporaryDirectory(prefix="podkiln-lock-") as scratch:
        fresh = base_image.base_layout(Path(scratch))
        context = f"oci-layout://{fresh.path}@{fresh.digest}"
        secrets = BuildSecrets(request.network, _SUITE)
        index, packages = apt_resolver.resolve_base(context, machine, secrets, builder)
    if before and index == before.index.model_copy(update={"snapshot_at": index.snapshot_at}):
        return PackagesResult()
    changed = apt.write(folder, index, packages)
    after = {each.name: each for group in packages.values() for each in group}
    changes = apt.compare(before.all if before else {}, after, frozenset())
    return PackagesResult(tuple(changed), tuple(changes))


def _joined(results: Iterable[PackagesResult]) -> PackagesResult:
    results = list(results)
    return PackagesResult(
        tuple(path for each in results for path in each.changed),
        tuple(dict.fromkeys(change for each in results for change in each.changes)),
        tuple(dict.fromkeys(warning for each in results for warning in each.warnings)),
    )


def table(changes: Sequence[PackageChange]) -> list[str]:
    """Return lines for people: package, version before and now, and whether that is a security update."""
    rows = [("package", "before", "now", "")]
    rows += [
        (each.name, each.before or "-", each.after or "-", "security update" if each.security else "")
        for each in changes
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        "  ".join([*(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    ]
