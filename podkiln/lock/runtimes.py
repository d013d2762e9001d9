"""Digests of the runtime's layers by what they are built from, remembered in runtimes.json by each push.

The next push of the same runtime looks them up in its registry, and builds only what lies above them:
podkiln's own code and start.sh, whose layers are remembered too, for `verify`. The recipes
(podkiln.render.runtime_recipe) cover all that goes into them, so an entry can only be out of date where apt
is not locked. The file lies beside the other locks.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from pydantic import Field

from podkiln.config.document import TupleOf
from podkiln.config.fields import Digest as Sha256Digest
from podkiln.errors import LockError
from podkiln.lock import layers, validation
from podkiln.lock.layers import MAX_PLACES, Place
from podkiln.lock.validation import Locked, Schema, Sha256, Size, Text
from podkiln.oci import spec
from podkiln.oci.reference import Reference
from podkiln.oci.spec import Digest
from podkiln.util import atomic, cache_folder, seal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Self

    from podkiln.config.variant import LoadedVariant

T = TypeVar("T")
_log = logging.getLogger(__name__)

FILE: Final = "runtimes.json"
MAX_RUNTIMES: Final = 20  # the ones pushed longest ago are forgotten first
MAX_OWN: Final = 100  # likewise
_DELETE: Final = "Delete it: the next push writes it again."


class RuntimeLayer(Locked):
    """A layer as it is stored, and the digest of its tar."""

    digest: Sha256Digest
    size: Size
    diff_id: Sha256Digest


class RememberedRuntime(Locked):
    """All layers of a runtime but those of podkiln's own code, which lie above.

    `base`: how many of them are the base's and that of the system packages; what is built above needs these.
    `settings` and `history` are the base's, where the Dockerfile does not say them. `seal` is a digest of all
    but itself and the places.
    """

    name: Text
    layers: Annotated[TupleOf[RuntimeLayer], Field(min_length=1, max_length=127)]
    base: Annotated[int, Field(ge=1)]
    settings: dict[str, Any]
    history: TupleOf[dict[str, Any]]
    places: TupleOf[Place] = ()
    seal: Sha256 = "0" * 64

    def sealed(self, recipe: str) -> RememberedRuntime:
        """Return it with the seal that belongs to it under this recipe."""
        return self.model_copy(update={"seal": seal.of(recipe, self.model_dump(exclude={"places", "seal"}))})


class OwnLayers(Locked):
    """The layers of podkiln's own code above a runtime. `seal` is a digest of all but itself."""

    name: Text
    layers: Annotated[TupleOf[RuntimeLayer], Field(min_length=1, max_length=127)]
    seal: Sha256 = "0" * 64

    def sealed(self, recipe: str) -> OwnLayers:
        """Return it with the seal that belongs to it under this recipe."""
        return self.model_copy(update={"seal": seal.of(recipe, self.model_dump(exclude={"seal"}))})


class RuntimesLock(Locked):
    """runtimes.json, in the order in which they were pushed."""

    schema_version: Schema = validation.SCHEMA
    runtimes: dict[Sha256Digest, RememberedRuntime] = Field(default_factory=dict)
    own: dict[Sha256Digest, OwnLayers] = Field(default_factory=dict)


@dataclass(frozen=True)
class PushedLayers:
    """What is remembered of one image: its runtime, and podkiln's own layers above it."""

    runtime: RememberedRuntime | None = None
    own: OwnLayers | None = None

    @classmethod
    def read(cls, path: Path, runtime: Digest, own: Digest) -> Self:
        """Look both up by their recipes. Raises LockError for a damaged memory."""
        found = _read(path)
        return cls(found.runtimes.get(runtime), found.own.get(own))


def path_of(described: LoadedVariant, *, substituted: bool) -> Path:
    """Return where a variant's memory lies: beside that of its weight layers.

    What was built with a substitute is not what a lock is about; this machine alone remembers it.
    """
    return cache_folder.path() / FILE if substituted else layers.path_of(described).with_name(FILE)


NOTHING: Final = PushedLayers()


def read(path: Path) -> dict[Digest, RememberedRuntime]:
    """Return recipe -> runtime. Empty without the file. Raises LockError for a damaged one."""
    return {Digest(recipe): each for recipe, each in _read(path).runtimes.items()}


def _read(path: Path) -> RuntimesLock:
    """Read the file.

    One in this machine's cache is only worth a build: damaged, or of another podkiln, it counts as none.
    """
    try:
        return _checked(path)
    except FileNotFoundError:
        return RuntimesLock()
    except LockError as error:
        if path.parent != cache_folder.path():
            raise
        _log.debug("%s It is begun anew.", error)
        return RuntimesLock()


def _checked(path: Path) -> RuntimesLock:
    found = validation.read(path, RuntimesLock, hint=_DELETE)
    entries: list[tuple[str, RememberedRuntime | OwnLayers]] = [*found.runtimes.items(), *found.own.items()]
    for recipe, each in entries:
        if each != each.sealed(recipe):
            what = f"{path}: what it remembers of {spec.short(Digest(recipe))} is not what was written there."
            raise LockError(what, hint=_DELETE)
    return found


def places(path: Path) -> dict[Digest, tuple[Reference, ...]]:
    """Return layer -> the repositories that it was pushed to. Raises LockError for a damaged memory."""
    return {
        Digest(layer.digest): tuple(map(Reference.parse, each.places))
        for each in read(path).values()
        for layer in each.layers
    }


def write(path: Path, recipe: Digest, made: RememberedRuntime, place: Reference) -> None:
    """Add a runtime and the repository that it was pushed to. Raises LockError, OSError."""
    with atomic.exclusive(path):
        known = _read(path)
        before = known.runtimes.get(recipe)
        places = before.places if before and before.layers == made.layers else ()
        if before and place.name in places:
            return
        made = made.model_copy(update={"places": (*places, place.name)[-MAX_PLACES:]}).sealed(recipe)
        _write(path, known, runtimes=_last(known.runtimes, recipe, made, MAX_RUNTIMES))


def write_own(path: Path, recipe: Digest, made: OwnLayers) -> None:
    """Add podkiln's own layers of an image that was pushed. Raises LockError, OSError."""
    with atomic.exclusive(path):
        known, sealed = _read(path), made.sealed(recipe)
        if known.own.get(recipe) != sealed:
            _write(path, known, own=_last(known.own, recipe, sealed, MAX_OWN))


def forget(path: Path, recipe: Digest) -> None:
    """Forget a runtime that a registry no longer has. Raises LockError, OSError."""
    with atomic.exclusive(path):
        known = _read(path)
        _write(path, known, runtimes={key: each for key, each in known.runtimes.items() if key != recipe})


def _last(known: Mapping[str, T], recipe: str, made: T, most: int) -> dict[str, T]:
    """Return what is known with one more, or another, at the end; of too many, the first are left out."""
    rest = [(key, each) for key, each in known.items() if key != recipe]
    return dict([*rest, (recipe, made)][-most:])


def _write(path: Path, known: RuntimesLock, **changed: object) -> None:
    data = known.model_copy(update=changed).model_dump()
    atomic.write(path, json.dumps(data, indent=1) + "\n")
