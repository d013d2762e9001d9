"""The lock of what a variant adds above its runtime's shared layers, and whether it still fits.

It lies beside the variant's other locks, in `additions/`: in a folder a runtime `additions.json` and
`additions.txt` for the Python packages, and in `apt/` a folder a base, as a runtime's (podkiln.lock.apt). All
say what they were resolved onto, because they hold only what is not there already.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import Field

from podkiln.config.additions import LAYER
from podkiln.config.document import TupleOf
from podkiln.config.fields import Digest
from podkiln.lock import apt, locations, nodes, requirements, validation
from podkiln.lock.apt import AddedIndex, AptLock
from podkiln.lock.drift import damage
from podkiln.lock.schema import LockedLayer
from podkiln.lock.validation import Locked, Schema, Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from podkiln.config.variant import LoadedVariant
    from podkiln.lock.schema import Lock

FILE: Final = "additions.json"
REQUIREMENTS: Final = f"{LAYER}.txt"


class PythonAdditions(Locked):
    """additions.json.

    Attributes:
        asked: What was asked for (`runtime.python.add`).
        onto: Digest over the runtime's Python layers that it was resolved onto.
        layer: The requirements file.
        wheel_bytes: The wheels together, as far as the index told their sizes.
    """

    schema_version: Schema = validation.SCHEMA
    asked: TupleOf[Text]
    onto: Digest
    layer: LockedLayer
    wheel_bytes: Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class LockedAdditions:
    """What is locked of a variant's additions. `apt`: by the digest of the base that each is for."""

    folder: Path
    python: PythonAdditions | None = None
    apt: Mapping[str, AptLock] = field(default_factory=dict)

    def digest_text(self, base: str) -> str:
        """Return what the digest of a variant's lock covers of it."""
        own = self.apt.get(base)
        return (self.python.model_dump_json() if self.python else "") + (own.digest if own else "")

    @property
    def requirements(self) -> str:
        """The text of the requirements file; empty without Python packages. Raises OSError."""
        return (self.folder / REQUIREMENTS).read_text(encoding="utf-8") if self.python else ""


def read(described: LoadedVariant, shared: Mapping[str, AptLock]) -> LockedAdditions | None:
    """Read what is locked of a variant's additions; None for one that adds nothing.

    Args:
        described: The variant.
        shared: The apt locks of its runtime, by base.

    Raises LockError: damaged, or no longer what is described.
    """
    wanted = described.additions
    if not wanted.packages and not wanted.requirements:
        return None
    folder = locations.python_additions_folder(described)
    with locations.hinted(described):
        python = read_python(folder) if wanted.requirements else None
        return LockedAdditions(folder, python, apt_locks(described, shared))


def apt_locks(described: LoadedVariant, shared: Mapping[str, AptLock]) -> dict[str, AptLock]:
    """Return the apt locks of what is described, by base. Raises LockError: a damaged one."""
    found = apt.read_all(locations.additions_folder(described) / locations.APT, AddedIndex)
    return {base: each for base, each in found.items() if fits(each, described, shared.get(base))}


def fits(locked: AptLock, described: LoadedVariant, shared: AptLock | None) -> bool:
    """Tell whether a lock is of what is described, and made for what it is installed onto."""
    index = locked.index
    return (
        shared is not None
        and isinstance(index, AddedIndex)
        and index.installed == described.additions.packages
        and index.onto == shared.digest
    )


def read_python(folder: Path) -> PythonAdditions | None:
    """Read additions.json; None without one. Raises LockError: a damaged one."""
    try:
        return validation.read(folder / FILE, PythonAdditions, hint=validation.DAMAGED)
    except FileNotFoundError:
        return None


def python_drifts(described: LoadedVariant, lock: Lock) -> list[str]:
    """Return where the Python packages that are added are not those that are locked: one sentence each.

    `lock`: that of the runtime.
    """
    wanted = described.additions.requirements
    folder = locations.python_additions_folder(described)
    if not wanted:
        return []
    locked = read_python(folder)
    if locked is None:
        return [f"runtime.python.add is not locked: there is no {folder / FILE}."]
    if locked.asked != wanted:
        return ["runtime.python.add has changed since it was locked."]
    if locked.onto != nodes.onto(lock.runtime, lock.nodes):
        return ["runtime.python.add was locked for other Python layers than the runtime has now."]
    return damage(folder, locked.layer) or _contradictions(
        folder / REQUIREMENTS, wanted, lock.pins_with_nodes()
    )


def _contradictions(path: Path, wanted: Sequence[str], shared: Mapping[str, str]) -> list[str]:
    """Return what no resolution would come to, of a file that is whole: one merged and hashed again."""
    pins = requirements.known_pins([path.read_text(encoding="utf-8")])
    found = [
        f"{path} has {name} {pins[name]}, which the layers of the runtime have as {shared[name]}."
        for name in sorted(pins.keys() & shared.keys())
    ]
    for each in map(Requirement, wanted):
        name = canonicalize_name(each.name)
        there = pins.get(name) or (shared.get(name) if each.extras else None)
        if there is None or not each.specifier.contains(there, prereleases=True):
            found.append(
                f"{path} has {each.name} {there}, and `{each}` is added."
                if there
                else f"{path} lacks {each.name}, which is added."
            )
    return found


def apt_drifts(described: LoadedVariant, shared: Mapping[str, AptLock]) -> list[str]:
    """Return which of the apt locks of additions are of something else than is described."""
    found = apt.read_all(locations.additions_folder(described) / locations.APT, AddedIndex)
    wanted = described.additions.packages
    if wanted and not found:
        return [f"{', '.join(wanted)}: these Debian packages are added, and locked for no base."]
    return [
        f"{each.folder} is of other packages than the variant adds, or was made for others below them."
        for base, each in found.items()
        if not wanted or not fits(each, described, shared.get(base))
    ]


def check(described: LoadedVariant, locked: Mapping[str, str]) -> None:
    """Refuse Python packages that the runtime or a custom node has already.

    Args:
        described: The variant.
        locked: Version by canonical name of each package of their Python layers.

    Raises DescriptionError.
    """
    for each in described.additions.python:
        wanted = Requirement(each.value)
        there = locked.get(canonicalize_name(wanted.name))
        if there is None:
            continue
        if not wanted.specifier.contains(there, prereleases=True):
            raise each.error(
                f"{each.value} would change {wanted.name} {there}, which the layers of the runtime have.",
                hint="Only `runtime.python.requirements` changes that (docs/how-to/python-packages.md).",
            )
        if not wanted.extras:
            raise each.error(f"{wanted.name} is there already: the layers of the runtime have {there}.")


def layer_of(text: str) -> LockedLayer:
    """Return what is locked of a requirements file."""
    return LockedLayer.of(LAYER, REQUIREMENTS, text)
