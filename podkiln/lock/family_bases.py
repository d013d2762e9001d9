"""The bases of families, families.json: which commit of each gives what a checkpoint, part or LoRA lacks.

A family names the repository (variants/families/). This pins it, with the hashes of its small files: all that
a checkpoint takes of it. What no hub has told yet is null, and a pod takes that base as it is that day.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

from pydantic import model_validator

from podkiln.config import families
from podkiln.lock import locations, validation
from podkiln.lock.served_model import LockedPart
from podkiln.lock.validation import Locked, Schema, Text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

UPGRADE_NAME: Final = "families"
"""What --upgrade calls them."""


class BasesLock(Locked):
    """The document: by repository."""

    schema_version: Schema = validation.SCHEMA
    bases: dict[Text, LockedPart | None]

    @model_validator(mode="after")
    def _named(self) -> Self:
        for name, part in self.bases.items():
            if part and part.source.get("repo") != name:
                raise ValueError(f"{name} is locked from another repository")
        return self


def path() -> Path:
    """Return where the lock lies."""
    return locations.LOCKS / locations.FAMILIES


def described() -> tuple[str, ...]:
    """Return the repositories that families name, but for those of which nothing is served."""
    served = [family for family in families.load().values() if family.loads != "nothing"]
    found = {each.base for family in served for each in family.checkpoints}
    return tuple(sorted(found))


def named_by(repository: str) -> Path:
    """Return the file of the family that names a base; the folder of all where none does."""
    for name, family in families.load().items():
        if any(each.base == repository for each in family.checkpoints):
            return families.FOLDER / f"{name}.yaml"
    return families.FOLDER


def read() -> BasesLock:
    """Return the lock, whether it fits or not. Raises LockError: damaged."""
    try:
        return validation.read(path(), BasesLock, hint=validation.DAMAGED)
    except FileNotFoundError:
        return BasesLock(bases={})


def find_drift() -> list[str]:
    """Return where it is not what is described: one sentence each. Raises LockError: damaged."""
    wanted, locked = set(described()), read().bases.keys()
    return [
        *(f"{path()}: the base {each} is described, and not locked." for each in sorted(wanted - locked)),
        *(f"{path()}: the base {each} is locked, and not described." for each in sorted(locked - wanted)),
    ]


def pinned() -> dict[str, Any]:
    """Return commit and hashes of the bases that are locked, by repository. Raises LockError: damaged."""
    return {
        name: {"revision": part.revision, "files": {each.path: each.sha256 for each in part.files}}
        for name, part in sorted(read().bases.items())
        if part
    }


def knowledge(bases: Mapping[str, Any]) -> dict[str, Any]:
    """Return detection.json, with bases as `pinned` gives them. Raises DescriptionError."""
    return {**families.to_json(), "bases": bases}
