"""The Python packages that a variant adds: resolved onto those of its runtime, which stay as they are."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from podkiln.lock import additions, locations, nodes, requirements, schema, serving, validation
from podkiln.lock.additions import FILE, REQUIREMENTS, PythonAdditions
from podkiln.lock.resolve import python
from podkiln.lock.resolve.uv import UnresolvedError
from podkiln.lock.schema import Lock
from podkiln.util import atomic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from podkiln.config.list_changes import Item
    from podkiln.config.variant import LoadedVariant
    from podkiln.errors import DescriptionError
    from podkiln.lock.resolve.wheels import Wheel

ALL = "additions"
"""What --upgrade calls all that a variant adds."""


def relock(described: LoadedVariant, upgrade: Sequence[str]) -> list[Path]:
    """Write the lock of the Python packages that a variant adds; return the files that changed.

    `upgrade`: packages whose pin is given up, or `all`. The runtime's own lock has to be there already.
    Raises DescriptionError for what does not go with the runtime, LockError.
    """
    folder = locations.python_additions_folder(described)
    wanted = described.additions
    if not wanted.requirements:
        return _remove(locations.additions_folder(described))
    runtime_folder, _ = locations.folders(described)
    locked = Lock(runtime_folder, schema.read_runtime(runtime_folder), {})
    of_nodes, problems = nodes.read(described, locked.runtime, locked.pins())
    nodes.require(problems, described)
    of_serving, _ = serving.read(described, locked.runtime)
    locked = replace(locked, nodes=of_nodes, serving=of_serving)
    shared = locked.pins_with_nodes()
    additions.check(described, shared)
    pins = _pins(folder)
    upgraded = ["all"] if {ALL, "all"} & set(upgrade) else [name for name in upgrade if name in pins]
    if not upgraded and not additions.python_drifts(described, locked):
        return []
    wheels = _resolved(described, shared, pins, upgraded)
    text = python.header(f"What {described.name} adds to the Python packages of its runtime.")
    text += python.as_text(wheels)
    made = PythonAdditions(
        asked=wanted.requirements,
        onto=nodes.onto(locked.runtime, locked.nodes),
        layer=additions.layer_of(text),
        wheel_bytes=sum(each.size or 0 for each in wheels),
    )
    changed = [folder / REQUIREMENTS] if atomic.write(folder / REQUIREMENTS, text) else []
    # Last: until it is there, the hash in the old one says that something is not finished.
    if atomic.write_json(folder / FILE, made.model_dump()):
        changed.append(folder / FILE)
    return changed


def _remove(folder: Path) -> list[Path]:
    """Remove the lock of a variant that adds no Python packages any more."""
    stale = [path for name in (FILE, REQUIREMENTS) for path in folder.glob(f"*/{name}") if path.is_file()]
    for path in stale:
        path.unlink()
    for place in {path.parent for path in stale}:
        with contextlib.suppress(OSError):  # something of somebody's own is in it
            place.rmdir()
    return stale


def packages(described: LoadedVariant) -> set[str]:
    """Return the names of the Python packages that are locked as additions."""
    return set(_pins(locations.python_additions_folder(described)))


def _pins(folder: Path) -> dict[str, str]:
    file = folder / REQUIREMENTS
    if not file.is_file():
        return {}
    validation.refuse_merge(file)
    return requirements.known_pins([file.read_text(encoding="utf-8", errors="replace")])


def _resolved(
    described: LoadedVariant, shared: Mapping[str, str], pins: Mapping[str, str], upgrade: Sequence[str]
) -> list[Wheel]:
    target = described.spec.runtime.python
    asked = described.additions.requirements
    try:
        return python.resolve_added(asked, target, shared, pins, upgrade)
    except UnresolvedError as failed:
        raise _explained(described, shared, failed) from None


def _explained(
    described: LoadedVariant, shared: Mapping[str, str], failed: UnresolvedError
) -> DescriptionError:
    """Return what is wrong with one of the requirements, or else with all of them together."""
    for each in described.additions.python:
        try:
            python.resolve_added([each.value], described.spec.runtime.python, shared, {}, ())
        except UnresolvedError as alone:
            return _blamed(described, each, shared, alone)
    what = f"these packages do not go together: {failed.reason}"
    return described.error(("runtime", "python", "add"), what, hint=failed.hint)


def _blamed(
    described: LoadedVariant, item: Item, shared: Mapping[str, str], alone: UnresolvedError
) -> DescriptionError:
    """Return why one requirement cannot be added: what of the runtime it would change, or uv's own reason."""
    if unknown := alone.unknown_package:
        return item.error(f"the package index has no package {unknown!r}.", hint=alone.hint)
    target = described.spec.runtime.python
    try:
        free = python.resolve_added([item.value], target, shared, {}, (), binding=False)
    except UnresolvedError:
        free = []
    changed = [each for each in free if each.package in shared]
    if not changed:
        return item.error(f"{item.value} cannot be had: {alone.cause}", hint=alone.hint)
    needs = ", ".join(f"{each.package} {each.version}" for each in changed)
    has = ", ".join(f"{each.package} {shared[each.package]}" for each in changed)
    return item.error(
        f"{item.value} needs {needs}, and the layers of the runtime have {has}, which stay as they are.",
        hint="Add another version of it, or write the whole list yourself (docs/how-to/python-packages.md).",
    )
