"""The apt lock of one base image: the index of exactly the packages that are installed onto it.

A folder a base, named by the first digits of its digest: `apt.json`, and an `<archive>.packages` for each
archive, stanzas of its Packages index in one fixed form, so that differences can be read. Each stanza has the
sha256 of its .deb, so a build needs neither a Release file nor a key nor a date, and any mirror serves.

Format: https://wiki.debian.org/DebianRepository/Format#A.22Packages.22_Indices; names and versions:
https://www.debian.org/doc/debian-policy/ch-controlfields.html.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AfterValidator, Field

from podkiln.config.document import TupleOf
from podkiln.config.fields import AptPackage, Digest, LayerName, distinct
from podkiln.config.messages import PatternType
from podkiln.errors import LockError
from podkiln.lock import validation
from podkiln.lock.validation import Locked, Schema, Sha256
from podkiln.util import atomic

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

FILE: Final = "apt.json"
NOT_LOCKED: Final = "not locked"
"""The image's label, where the base has no apt lock."""
_HINT: Final = (
    "Restore it with git (`git checkout HEAD -- FILE`), or delete its folder and run `./build.py lock`."
)
_DIGITS: Final = 12  # of a base's digest, in the name of its folder

# What apt needs to choose and to install. What it only shows (Description, Tag, Homepage) is left out.
KEYS: Final = (
    "Package",
    "Version",
    "Architecture",
    "Multi-Arch",
    "Essential",
    "Protected",
    "Priority",
    "Section",
    "Pre-Depends",
    "Depends",
    "Provides",
    "Conflicts",
    "Breaks",
    "Replaces",
    "Filename",
    "Size",
    "SHA256",
)
_NEEDED: Final = ("Package", "Version", "Architecture", "Filename", "Size", "SHA256")
_FORMS: Final = {
    "Package": re.compile(r"[a-z0-9][a-z0-9+.-]+"),
    "Version": re.compile(r"([0-9]+:)?[0-9][A-Za-z0-9.+~-]*"),
    "Architecture": re.compile(r"all|[a-z0-9]+"),
    "Filename": re.compile(r"(?!.*/\.{0,2}/)pool/[A-Za-z0-9.+~_%:/-]+\.deb"),
    "Size": re.compile(r"[1-9][0-9]{0,11}"),
    "SHA256": re.compile(r"[0-9a-f]{64}"),
}
_ANY: Final = re.compile(r"[ -~]+")  # dependencies are names, versions and signs

DebianVersion = Annotated[
    str, PatternType(r"^([0-9]+:)?[0-9][A-Za-z0-9.+~-]*$", "the version of a Debian package")
]
Timestamp = Annotated[str, PatternType(r"^[0-9]{8}T[0-9]{6}Z$", "a time such as 20260824T000000Z")]


@dataclass(frozen=True)
class Package:
    """One stanza; its values by key, in the order of KEYS."""

    values: Mapping[str, str]

    @property
    def name(self) -> str:
        """The package's name."""
        return self.values["Package"]

    @property
    def version(self) -> str:
        """Its version."""
        return self.values["Version"]

    @property
    def size(self) -> int:
        """Bytes of its .deb."""
        return int(self.values["Size"])

    def __str__(self) -> str:
        return "".join(f"{key}: {self.values[key]}\n" for key in KEYS if key in self.values)


class LockedArchive(Locked):
    """An archive and its part of the index. Whoever installs asks the mirrors that apt has there."""

    name: LayerName
    sha256: Sha256
    packages: Annotated[int, Field(ge=1, le=10_000)]

    @property
    def file(self) -> str:
        """The name of its file in the lock's folder."""
        return f"{self.name}.packages"


class AptIndex(Locked):
    """apt.json.

    Attributes:
        base_digest: The base that the packages are installed onto.
        base_packages: sha256 of what that base has: lines `name version`, sorted by byte.
        installed: What was asked for (`runtime.apt`), in alphabetical order; the index has what these need.
        snapshot_at: The time to ask the snapshot service for, when mirrors have other versions by then.
        replaced: Packages of the base that are installed in another version, with the base's.
        archives: The archives, in alphabetical order.
    """

    schema_version: Schema = validation.SCHEMA
    base_digest: Digest
    base_packages: Sha256
    installed: Annotated[TupleOf[AptPackage], AfterValidator(distinct)]
    snapshot_at: Timestamp
    replaced: dict[AptPackage, DebianVersion]
    archives: Annotated[TupleOf[LockedArchive], Field(min_length=1)]


class AddedIndex(AptIndex):
    """apt.json of what a variant adds above the packages of its runtime.

    `base_digest` is the base below all of them, and `base_packages` what there is once the runtime's are
    installed. `onto`: the digest of the runtime's own lock for that base.
    """

    onto: Digest


class BaseIndex(Locked):
    """apt.json of the base that is made here: all of its packages, of an architecture as Debian calls it."""

    schema_version: Schema = validation.SCHEMA
    architecture: LayerName
    snapshot_at: Timestamp
    archives: Annotated[TupleOf[LockedArchive], Field(min_length=1)]


@dataclass(frozen=True)
class _PackagesLock:
    """A folder's lock, read and checked: `packages` by the name of their archive."""

    folder: Path
    index: AptIndex | BaseIndex
    packages: Mapping[str, tuple[Package, ...]]

    @property
    def digest(self) -> str:
        """Digest over all of it: the index names the sha256 of each archive's part."""
        return "sha256:" + hashlib.sha256(self.index.model_dump_json().encode()).hexdigest()

    @property
    def deb_bytes(self) -> int:
        """Bytes of all the .debs."""
        return sum(each.size for each in self.all.values())

    @property
    def all(self) -> dict[str, Package]:
        """All packages, by name."""
        return {each.name: each for packages in self.packages.values() for each in packages}


@dataclass(frozen=True)
class AptLock(_PackagesLock):
    """What is installed onto one base."""

    index: AptIndex

    def serves(self, platform: str) -> bool:
        """Whether its packages are for a platform such as linux/amd64: Debian's names are those of OCI."""
        machines = {each.values["Architecture"] for each in self.all.values()} - {"all"}
        return machines <= {platform.partition("/")[2]}


@dataclass(frozen=True)
class BaseLock(_PackagesLock):
    """What the base that is made here consists of."""

    index: BaseIndex

    @property
    def packages_digest(self) -> str:
        """What `AptIndex.base_packages` is of this base: dpkg names the architecture where several fit."""
        names = ((each, each.values.get("Multi-Arch") == "same") for each in self.all.values())
        lines = (
            f"{each.name}{':' + each.values['Architecture'] if several else ''} {each.version}\n".encode()
            for each, several in names
        )
        return hashlib.sha256(b"".join(sorted(lines))).hexdigest()


def folder_name(base_digest: str) -> str:
    """Return the name of a base's folder."""
    return base_digest.partition(":")[2][:_DIGITS]


def read_all(folder: Path, shape: type[AptIndex] = AptIndex) -> dict[str, AptLock]:
    """Return the apt locks below a folder, by the digest of their base. Raises LockError: a damaged one."""
    found = [read(path.parent, shape) for path in sorted(folder.glob(f"*/{FILE}"))]
    return {each.index.base_digest: each for each in found}


def read(folder: Path, shape: type[AptIndex] = AptIndex) -> AptLock:
    """Read one base's lock. Raises LockError: missing, damaged, changed by hand."""
    path = folder / FILE
    try:
        index = validation.read(path, shape, hint=_HINT)
    except FileNotFoundError:
        raise LockError(f"There is no lock {path}.", hint="`./build.py lock` makes it.") from None
    if folder.name != folder_name(index.base_digest):
        raise LockError(f"The lock {path} is that of another base, {index.base_digest}.", hint=_HINT)
    return AptLock(folder, index, _read_archives(folder, index.archives))


def read_base(folder: Path) -> BaseLock | None:
    """Read the lock of the base that is made here; None without one. Raises LockError: a damaged one."""
    try:
        index = validation.read(folder / FILE, BaseIndex, hint=_HINT)
    except FileNotFoundError:
        return None
    return BaseLock(folder, index, _read_archives(folder, index.archives))


def _read_archives(folder: Path, archives: Sequence[LockedArchive]) -> dict[str, tuple[Package, ...]]:
    packages = {archive.name: _read_archive(folder / archive.file, archive) for archive in archives}
    names = [each.name for archive in packages.values() for each in archive]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise LockError(f"The lock {folder} has {twice} twice.", hint=_HINT)
    return packages


def _read_archive(path: Path, archive: LockedArchive) -> tuple[Package, ...]:
    try:
        content = validation.content_of(path)
    except OSError as unreadable:
        why = unreadable.strerror or unreadable
        raise LockError(f"The lock {path} cannot be read: {why}.", hint=_HINT) from None
    if hashlib.sha256(content).hexdigest() != archive.sha256:
        validation.refuse_merge(path)
        raise LockError(f"{path} was changed by hand: its sha256 is not the locked one.", hint=_HINT)
    try:
        packages = tuple(parse(content.decode("ascii")))
    except UnicodeDecodeError:
        raise LockError(f"The lock {path} cannot be read: it is not ASCII text.", hint=_HINT) from None
    except ValueError as wrong:
        raise LockError(f"The lock {path} cannot be read: {wrong}.", hint=_HINT) from None
    if as_text(packages).encode() != content or len(packages) != archive.packages:
        raise LockError(f"The lock {path} cannot be read: it is not as podkiln writes it.", hint=_HINT)
    return packages


def parse(text: str) -> Iterator[Package]:
    """Yield the packages of an index, without the keys that are not kept.

    Raises ValueError, in words that go on after "cannot be read: ".
    """
    for number, stanza in enumerate(filter(None, re.split(r"\n\s*\n", text.strip("\n"))), start=1):
        yield _package(_fields(stanza, number), number)


def _fields(stanza: str, number: int) -> dict[str, str]:
    fields: dict[str, str] = {}
    key = ""
    for line in stanza.split("\n"):
        if line[:1] in (" ", "\t") and key:  # a folded value goes on
            fields[key] += f" {line.strip()}"
            continue
        key, colon, value = line.partition(":")
        if not colon or not key or key in fields:
            raise ValueError(f"stanza {number} has a line that is not KEY: VALUE, or a key twice")
        fields[key] = value.strip()
    return fields


def _package(fields: Mapping[str, str], number: int) -> Package:
    name = fields.get("Package", f"stanza {number}")[:80]
    for key in _NEEDED:
        if not _FORMS[key].fullmatch(fields.get(key, "")):
            raise ValueError(f"{name!r} has no {key} of the right form")
    kept = {key: fields[key] for key in KEYS if key in fields}
    if wrong := next((key for key, value in kept.items() if not _ANY.fullmatch(value)), None):
        raise ValueError(f"{name!r} has a {wrong} that is not one line of ASCII text")
    return Package(kept)


def as_text(packages: Sequence[Package]) -> str:
    """Return an index: stanzas by name, an empty line between two."""
    return "\n".join(map(str, sorted(packages, key=lambda each: each.name)))


@dataclass(frozen=True)
class PackageChange:
    """A package whose locked version changed. `before`, `after`: None where it was, or is, not locked."""

    name: str
    before: str | None
    after: str | None
    security: bool = False


def compare(
    before: Mapping[str, Package], after: Mapping[str, Package], security: frozenset[str]
) -> list[PackageChange]:
    """Return what differs between two locks, by name. `security`: packages that are security updates now."""
    found = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old != new:
            then, now = (each.version if each else None for each in (old, new))
            found.append(PackageChange(name, then, now, security=new is not None and name in security))
    return found


def write(folder: Path, index: AptIndex | BaseIndex, packages: Mapping[str, Sequence[Package]]) -> list[Path]:
    """Write a base's lock into its folder. Returns the files that changed."""
    files = {folder / f"{name}.packages": as_text(packages[name]) for name in packages}
    changed = [path for path, text in files.items() if atomic.write(path, text)]
    # Last: until it is there, the hashes in the old one say that something is not finished.
    if atomic.write_json(folder / FILE, index.model_dump()):
        changed.append(folder / FILE)
    for stale in set(folder.glob("*.packages")) - files.keys():
        stale.unlink()
        changed.append(stale)
    return changed
