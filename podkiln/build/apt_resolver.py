"""What apt would install onto a base image, asked of apt in that base: the content of an apt lock.

apt runs in a step of BuildKit, so whatever builds an image can resolve for it, and its network and secrets
are those of a build. scripts/resolve_packages.sh says what is asked; the answers are read here.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from podkiln.build import apt_conflicts as conflicts
from podkiln.config import apt_archives
from podkiln.errors import CommandError, LockError, SourceError
from podkiln.lock import apt
from podkiln.lock.apt import AddedIndex, AptIndex, BaseIndex, LockedArchive, Package
from podkiln.util import process
from podkiln.util.masking import masked

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from podkiln.config.apt_archives import AptArchive
    from podkiln.config.variant import LoadedVariant
    from podkiln.lock.apt import AptLock
    from podkiln.render.bake_file import BuildSecrets

_SCRIPT: Final = Path(__file__).parents[2] / "scripts" / "resolve_packages.sh"
_DOCKERFILE: Final = """\
FROM base AS resolved
COPY resolve_packages.sh locked /build/
RUN --mount=type=secret,id=apt-sources \\
    --mount=type=secret,id=apt-conf,target=/etc/apt/apt.conf.d/99podkiln \\
    sh /build/resolve_packages.sh /answers {packages}
FROM scratch
COPY --from=resolved /answers/ /
"""
_SECONDS: Final = 900
# The snapshot service imports an archive some times a day, and what is replaced stays there for longer than
# that: a day later its copy has all of the index.
_UNTIL_SNAPSHOT: Final = timedelta(days=1)
_FILES: Final = ("archives", "base", "simulated", "uris", "stanzas", "unknown", "refused", "blamed")
_URI: Final = re.compile(r"^'(?P<url>[^']+)' \S+ (?P<size>[0-9]+) SHA256:(?P<sha256>[0-9a-f]{64})$")
_INSTALLED: Final = re.compile(r"^Inst (?P<name>\S+)( \[(?P<before>[^\]]+)\])? \(\S+ (?P<origins>[^\[]*)\[")


@dataclass(frozen=True)
class ResolvedPackages:
    """What apt answered, as a lock. `security`: packages whose version is (also) a security update."""

    index: AptIndex
    packages: Mapping[str, tuple[Package, ...]]
    security: frozenset[str]


def resolve(
    base: str,
    digest: str,
    wanted: Sequence[str],
    environment: BuildSecrets,
    builder: str | None,
    platform: str | None = None,
) -> ResolvedPackages:
    """Ask apt in a base.

    Args:
        base: The base as BuildKit names a context.
        digest: The base's digest.
        wanted: The packages to install.
        environment: The builder's network.
        builder: The buildx builder; None is the default one.
        platform: What to resolve for; None is what the builder is.

    Raises SourceError where base or packages cannot be fetched, LockError for what cannot be locked.
    """
    return read(_answers(base, wanted, environment, builder, platform), digest, wanted, datetime.now(UTC))


def resolve_added(
    base: str, shared: AptLock, described: LoadedVariant, environment: BuildSecrets, builder: str | None
) -> ResolvedPackages:
    """Ask apt in a base what the packages that a variant adds come to, above those of its runtime.

    Args:
        base: The base as BuildKit names a context.
        shared: What the runtime installs onto it; all of that stays as it is.
        described: The variant.
        environment: The builder's network.
        builder: The buildx builder; None is the default one.

    Raises as `resolve`, and DescriptionError for a package that there is not, or that changes another one.
    """
    wanted = described.additions.packages
    answers = _answers(base, wanted, environment, builder, described.platform, shared)
    conflicts.require_none(answers, described)
    found = read(answers, shared.index.base_digest, wanted, datetime.now(UTC))
    index = AddedIndex(**{**dict(found.index), "onto": shared.digest})
    return ResolvedPackages(index, found.packages, found.security)


def _answers(
    base: str,
    wanted: Sequence[str],
    environment: BuildSecrets,
    builder: str | None,
    platform: str | None = None,
    shared: AptLock | None = None,
) -> dict[str, str]:
    """Run the script in a base, as if what is `shared` were installed; return its files by name."""
    with tempfile.TemporaryDirectory(prefix="podkiln-lock-") as name:
        folder = Path(name)
        shutil.copy(_SCRIPT, folder)
        (folder / "locked").write_text(installed(shared) if shared else "", encoding="ascii")
        (folder / "Dockerfile").write_text(_DOCKERFILE.format(packages=" ".join(sorted(wanted))))
        argv = ["docker", "buildx", "build", *(["--builder", builder] if builder else []), "--no-cache"]
        argv += [f"--platform={platform}"] if platform else []
        argv += ["--progress=plain", "--provenance=false", f"--build-context=base={base}"]
        argv += [word for secret in environment.secrets() for word in ("--secret", secret)]
        argv += [f"--output=type=local,dest={folder / 'answers'}", name]
        try:
            process.run(argv, env={**os.environ, **environment.variables()}, timeout=_SECONDS)
        except CommandError as failed:
            raise SourceError(
                f"apt could not be asked in the base {base}: {_reason(str(failed))}",
                hint="See that the base and its Debian mirror can be reached (--base REF, --apt-mirror URL).",
            ) from None
        return {each: (folder / "answers" / each).read_text("ascii", "replace") for each in _FILES}


def resolve_base(
    base: str, architecture: str, environment: BuildSecrets, builder: str | None
) -> tuple[BaseIndex, dict[str, tuple[Package, ...]]]:
    """Ask apt in a base where the packages come from that it consists of.

    Raises SourceError, LockError.
    """
    answers = _answers(base, (), environment, builder)
    packages = _dealt(answers)
    named = {each.name for group in packages.values() for each in group}
    own = {line.split(" ")[0].partition(":")[0] for line in answers["base"].splitlines()}
    if named != own:
        lacking = ", ".join(sorted(own - named))
        raise LockError(f"The base cannot be locked: its archives have another version of {lacking} by now.")
    index = BaseIndex(
        architecture=architecture,
        snapshot_at=_snapshot_time(datetime.now(UTC)),
        archives=tuple(_locked(archive, packages) for archive in _listed(packages)),
    )
    return index, packages


def installed(shared: AptLock) -> str:
    """Return locked packages as dpkg's status file tells of those that are installed (dpkg(1))."""
    packages = sorted(shared.all.values(), key=lambda each: each.name)
    return "\n".join(str(each).replace("\n", "\nStatus: install ok installed\n", 1) for each in packages)


def _snapshot_time(now: datetime) -> str:
    return (now + _UNTIL_SNAPSHOT).strftime("%Y%m%dT%H%M%SZ")


def _reason(said: str) -> str:
    """Return the line in which a program says why it failed: apt's own, or else the last."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    of_apt = [line.partition(" E: ")[2] for line in lines if " E: " in line]
    return masked((of_apt or lines[-1:])[0])


def read(answers: Mapping[str, str], digest: str, wanted: Sequence[str], now: datetime) -> ResolvedPackages:
    """Make a lock of apt's answers, by the names of the script's files. Raises LockError."""
    packages = _dealt(answers)
    installed = [found for found in map(_INSTALLED.match, answers["simulated"].splitlines()) if found]
    if {each["name"].partition(":")[0] for each in installed} != {
        each.name for group in packages.values() for each in group
    }:
        raise LockError("apt's answers do not fit together: it would fetch other packages than it installs.")
    index = AptIndex(
        base_digest=digest,
        base_packages=hashlib.sha256(answers["base"].encode()).hexdigest(),
        installed=tuple(sorted(wanted)),
        snapshot_at=_snapshot_time(now),
        replaced={each["name"]: each["before"] for each in installed if each["before"]},
        archives=tuple(_locked(archive, packages) for archive in _listed(packages)),
    )
    return ResolvedPackages(index, packages, frozenset(_security(installed)))


def _dealt(answers: Mapping[str, str]) -> dict[str, tuple[Package, ...]]:
    """Return the packages that apt would fetch, by the name of their archive. Raises LockError."""
    try:
        known = {_key(each): each for each in apt.parse(answers["stanzas"])}
    except ValueError as wrong:
        raise LockError(f"apt's index cannot be locked: {wrong}.") from None
    archives = _archives(answers["archives"])
    dealt: dict[str, list[Package]] = {}
    for line in answers["uris"].splitlines():
        archive, package = _find(line, archives, known)
        dealt.setdefault(archive.name, []).append(package)
    return {name: tuple(sorted(dealt[name], key=lambda each: each.name)) for name in sorted(dealt)}


def _key(package: Package) -> tuple[str, str]:
    return package.values["Filename"].rpartition("/")[2], package.values["SHA256"]


def _archives(text: str) -> dict[str, AptArchive | None]:
    """Return the archives by URL; None for one of which it is not known where else it is served."""
    rows = (line.partition("|") for line in text.splitlines())
    return {url: apt_archives.load().get(label) for label, _, url in rows}


def _find(
    line: str, archives: Mapping[str, AptArchive | None], known: Mapping[tuple[str, str], Package]
) -> tuple[AptArchive, Package]:
    """Return archive and stanza of what apt would fetch. Raises LockError."""
    found = _URI.match(line)
    if not found:
        raise LockError(f"apt would fetch something without a sha256: {masked(line)[:200]}")
    url = unquote(found["url"])
    place = max((each for each in archives if url.startswith(each)), key=len, default="")
    archive = archives.get(place)
    name = url.rpartition("/")[2]
    package = known.get((name, found["sha256"]))
    if archive is None:
        raise LockError(
            f"{name} comes from an archive that podkiln does not know: {masked(place or url)}.",
            hint=f"Add it to {apt_archives.FILE.name} in variants/system, by the label of its Release file.",
        )
    if package is None or package.values["Filename"] != url.removeprefix(place):
        raise LockError(f"apt's answers do not fit together: it has no stanza of {name}.")
    return archive, package


def _listed(packages: Mapping[str, object]) -> list[AptArchive]:
    return sorted(
        (each for each in apt_archives.load().values() if each.name in packages), key=lambda each: each.name
    )


def _locked(archive: AptArchive, packages: Mapping[str, tuple[Package, ...]]) -> LockedArchive:
    own = packages[archive.name]
    return LockedArchive(
        name=archive.name,
        sha256=hashlib.sha256(apt.as_text(own).encode()).hexdigest(),
        packages=len(own),
    )


def _security(installed: Iterable[re.Match[str]]) -> Iterable[str]:
    labels = [each.label for each in apt_archives.load().values() if each.security]
    for each in installed:
        if any(f"{label}:" in each["origins"] for label in labels):
            yield each["name"].partition(":")[0]
