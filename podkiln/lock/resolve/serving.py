"""The packages with which an image takes jobs: resolved onto those of its runtime, which stay as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podkiln.config import serving as wanted_by
from podkiln.lock import locations, nodes, requirements, schema, serving
from podkiln.lock.additions import PythonAdditions
from podkiln.lock.resolve import additions, python
from podkiln.lock.resolve.uv import UnresolvedError
from podkiln.lock.schema import Lock
from podkiln.util import atomic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from podkiln.config.variant import LoadedVariant


def relock(described: LoadedVariant, upgrade: Sequence[str]) -> list[Path]:
    """Write the lock of a variant's way to serve where none fits; return the files that changed.

    `upgrade`: packages whose pin is given up, `additions`, or `all`. The runtime's own lock has to be there
    already. Raises DescriptionError for what cannot be resolved, LockError.
    """
    way, asked = described.spec.serve, wanted_by.requirements(described)
    if way is None or not asked:
        return []
    place, _ = locations.folders(described)
    runtime = schema.read_runtime(place)
    found, problems = serving.read(described, runtime)
    pins = _pins(described)
    given_up = (
        ["all"] if {additions.ALL, "all"} & set(upgrade) else [each for each in upgrade if each in pins]
    )
    if found and not problems and not given_up:
        return []
    shared = Lock(place, runtime, {}).pins()
    try:
        wheels = python.resolve_added(asked, described.spec.runtime.python, shared, pins, given_up)
    except UnresolvedError as failed:
        what = f"what `serve: {way}` asks for does not go with the runtime: {failed.reason}"
        raise described.error(("serve",), what, hint=failed.hint) from None
    text = python.header(f"What `serve: {way}` adds to the Python packages of the runtime.")
    text += python.as_text(wheels)
    made = PythonAdditions(
        asked=asked,
        onto=nodes.onto(runtime),
        layer=serving.layer_of(way, text),
        wheel_bytes=sum(each.size or 0 for each in wheels),
    )
    folder = locations.serving_folders(described)[0]
    changed = [folder / made.layer.file] if atomic.write(folder / made.layer.file, text) else []
    # Last: until it is there, the hash in the old one says that something is not finished.
    if atomic.write_json(serving.file_in(folder, way), made.model_dump()):
        changed.append(serving.file_in(folder, way))
    return changed


def packages(described: LoadedVariant) -> set[str]:
    """Return the names of the packages that are locked for it."""
    return set(_pins(described))


def _pins(described: LoadedVariant) -> dict[str, str]:
    """Return the versions that are locked already, of this runtime or else of the usual one."""
    way = described.spec.serve
    places = [*locations.serving_folders(described), locations.usual_serving_folder()]
    files = [place / f"{way}.txt" for place in places]
    there = next((file for file in files if file.is_file()), None)
    return requirements.known_pins([there.read_text(encoding="utf-8", errors="replace")]) if there else {}
