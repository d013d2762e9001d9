"""A plan whose variant adds packages, with a small lock of them: as `./build.py lock` writes it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import apt_locks
from descriptions import variant, write

from podkiln.config import variant as variants
from podkiln.lock import additions, locations, nodes, schema
from podkiln.lock.additions import LockedAdditions, PythonAdditions
from podkiln.lock.apt import AddedIndex, AptLock
from podkiln.options import BuildRequest
from podkiln.pipeline import planning

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.plan.plan import Plan

RUNTIME = "runtime: {apt: {add: [%s]}, python: {add: [humanize]}, extras: [compiler]}\n"
WHEEL = f"humanize==4.12.3 \\\n    --hash=sha256:{'3' * 64}\n"


def plan(folder: Path, *, apt: str = "git", locked: bool = True) -> Plan:
    """Return the plan. `locked`: whether its Debian packages are; the runtime's are in any case."""
    path = write(folder / "studio.yaml", variant(RUNTIME % apt))
    described = variants.load(str(path))
    runtime = schema.read_runtime(locations.folders(described)[0])
    shared = schema.Lock(locations.folders(described)[0], runtime, {}).pins()
    of_nodes, _ = nodes.read(described, runtime, shared)
    own = locations.python_additions_folder(described)
    layer = additions.layer_of(WHEEL)
    python = PythonAdditions(
        asked=("humanize",), onto=nodes.onto(runtime, of_nodes), layer=layer, wheel_bytes=128_000
    )
    write(own / additions.FILE, python.model_dump_json())
    write(own / additions.REQUIREMENTS, WHEEL)
    made = apt_locks.with_apt(planning.make_plan(described, BuildRequest.of([str(path)], no_weights=True)))
    base = made.lock.runtime.base_digest
    found = {base: added(made)} if locked else {}
    return replace(made, lock=replace(made.lock, additions=LockedAdditions(own, python, found)))


def added(made: Plan) -> AptLock:
    """Return a lock of Debian packages that are added onto those of a plan."""
    assert made.apt
    small = apt_locks.make(made.base_digest, made.described.additions.packages)
    index = AddedIndex(**dict(small.index), onto=made.apt.digest)
    return AptLock(small.folder, index, small.packages)
