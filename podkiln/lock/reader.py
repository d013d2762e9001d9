"""Locks, read and checked: every failure is a LockError with the command that mends it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from podkiln.errors import LockError
from podkiln.lock import (
    additions,
    apt,
    drift,
    family_bases,
    nodes,
    requirements,
    schema,
    served_model,
    serving,
)
from podkiln.lock.locations import apt_folders, folders, hint_for, hinted
from podkiln.lock.schema import Lock, LockedFile, WeightsLock, merged

if TYPE_CHECKING:
    from collections.abc import Iterable

    from podkiln.config.catalog import VariantModel
    from podkiln.config.variant import LoadedVariant
    from podkiln.lock.apt import AptLock


def read(described: LoadedVariant, offered: Iterable[VariantModel], *, check: bool = True) -> Lock:
    """Read a variant's lock. Raises LockError: missing, damaged, or no longer what is described."""
    folder, weights_file = folders(described)
    with hinted(described):
        runtime = schema.read_runtime(folder)
        known = schema.read_weights(weights_file)
        packages = apt_locks(described)
    weights = {offer.id: _weights(offer, known) for offer in offered}
    added = additions.read(described, packages)
    lock = Lock(folder=folder, runtime=runtime, weights=weights, apt=packages, additions=added)
    of_nodes, node_drifts = nodes.read(described, runtime, lock.pins())
    of_serving, serving_drifts = serving.read(described, runtime)
    with hinted(described):
        of_model, model_drifts = served_model.read(described)
    lock = replace(lock, nodes=of_nodes, serving=of_serving, model=of_model, bases=_bases(described))
    if check:
        drifts = [*drift.find_drift(described, lock), *node_drifts, *serving_drifts, *model_drifts]
        if not drifts and added:
            additions.check(described, lock.pins_with_nodes())
            drifts = additions.python_drifts(described, lock)
        if drifts:
            what = f"The lock does not fit the description: {drifts[0]}"
            raise LockError(what, hint=hint_for(described, requirements.RELOCK))
    return lock


def _bases(described: LoadedVariant) -> dict[str, Any]:
    """Return what an image with the server of one model has of the lock of families."""
    return {} if described.spec.has_comfyui else family_bases.pinned()


def apt_locks(described: LoadedVariant) -> dict[str, AptLock]:
    """Return the apt locks of the packages that are described, by base. Raises LockError: a damaged one."""
    wanted = tuple(sorted(described.spec.runtime.apt))
    fitting: dict[str, AptLock] = {}
    for folder in apt_folders(described):
        for base, each in apt.read_all(folder).items():
            if each.index.installed == wanted and each.serves(described.platform):
                fitting.setdefault(base, each)
    return fitting


def _weights(offer: VariantModel, known: WeightsLock) -> tuple[LockedFile, ...]:
    """Put what the lock found out on top of what the description knows; a description's own hash wins."""
    found = {file.destination: file for file in known.models.get(offer.id, ())}
    return tuple(merged(file, found.get(file.destination)) for file in offer.model.files)
