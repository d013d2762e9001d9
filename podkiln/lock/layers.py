"""Digests of weight layers by content key (the recipe), remembered in layers.json by the first bake.

The next bake of the same files looks the layer up by digest in its registry and fetches nothing. A recipe
is the digest of packing version, paths, sizes and hashes (podkiln.plan.weight_layers), so an entry can never
be out of date. The repositories that got the layer are recorded too, so that it can be mounted or copied
from there; it may have been deleted since. The file lies beside the other locks.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AfterValidator

from podkiln.config.document import TupleOf
from podkiln.config.fields import Digest as Sha256Digest
from podkiln.errors import UsageError
from podkiln.lock import locations, validation
from podkiln.lock.validation import Locked, Schema, Size, Text
from podkiln.oci.reference import Reference
from podkiln.oci.spec import Digest
from podkiln.util import atomic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from podkiln.config.variant import LoadedVariant

FILE = "layers.json"
_DELETE: Final = "Delete it: the next bake writes it again."
MAX_PLACES: Final = 8  # of one layer; the oldest is forgotten first


def _place(name: str) -> str:
    try:
        Reference.parse(name)
    except UsageError as wrong:
        raise ValueError(str(wrong)) from None
    return name


Place = Annotated[str, AfterValidator(_place)]


class RememberedLayer(Locked):
    """One layer: its content in words, its digest and size (bytes), and the repositories that hold it."""

    name: Text
    digest: Sha256Digest
    size: Size
    places: TupleOf[Place] = ()


class LayersLock(Locked):
    """layers.json."""

    schema_version: Schema = validation.SCHEMA
    layers: dict[Sha256Digest, RememberedLayer]


def path_of(described: LoadedVariant) -> Path:
    """Return where a variant's memory lies: with the shipped locks, or with those of a user's own file."""
    return (locations.user_lock_dir(described) or locations.LOCKS) / FILE


def read(path: Path) -> dict[Digest, Digest]:
    """Return recipe -> digest. Empty without the file. Raises LockError for a damaged one."""
    return {Digest(recipe): Digest(layer.digest) for recipe, layer in _read(path).layers.items()}


def places(path: Path) -> dict[Digest, tuple[Reference, ...]]:
    """Return layer -> the repositories that it was put in. Raises LockError for a damaged memory."""
    layers = _read(path).layers.values()
    return {Digest(layer.digest): tuple(map(Reference.parse, layer.places)) for layer in layers}


def write(path: Path, made: Mapping[str, RememberedLayer], place: Reference | None = None) -> bool:
    """Add layers, by recipe, and the repository that they were put in; return whether the file changed."""
    with atomic.exclusive(path):
        before = _read(path).layers
        after = {**before, **{recipe: _at(each, before.get(recipe), place) for recipe, each in made.items()}}
        if after == before:
            return False
        _write(path, after)
        return True


def _at(made: RememberedLayer, before: RememberedLayer | None, place: Reference | None) -> RememberedLayer:
    known = before.places if before and before.digest == made.digest else ()
    new = (place.name,) if place and place.name not in known else ()
    return made.model_copy(update={"places": (*known, *new)[-MAX_PLACES:]})


def _read(path: Path) -> LayersLock:
    try:
        return validation.read(path, LayersLock, hint=_DELETE)
    except FileNotFoundError:
        return LayersLock(layers={})


def _write(path: Path, layers: Mapping[str, RememberedLayer]) -> None:
    ordered = sorted(layers.items(), key=lambda item: (item[1].name, item[0]))
    data = {"schema_version": 1, "layers": {recipe: layer.model_dump() for recipe, layer in ordered}}
    atomic.write(path, json.dumps(data, indent=1) + "\n")
