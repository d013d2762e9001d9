"""Where a lock and what is described have come apart: a sentence each, for `lock --check` and each build."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from podkiln.lock import apt, cuda_wheels, requirements
from podkiln.lock.locations import apt_folders
from podkiln.lock.schema import contradiction, from_description, read_weights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from podkiln.config.model import Model
    from podkiln.config.variant import LoadedVariant
    from podkiln.lock.schema import Lock, LockedLayer


def apt_drifts(described: LoadedVariant) -> list[str]:
    """Return which of a variant's apt locks are of other packages than are described: one sentence each."""
    wanted = tuple(sorted(described.spec.runtime.apt))
    return [
        f"{each.folder} is of other packages than runtime.apt lists."
        for each in apt.read_all(apt_folders(described)[0]).values()
        if each.index.installed != wanted and each.serves(described.platform)
    ]


def weight_drifts(
    path: Path, models: Mapping[str, Model], *, exact: bool, target: Path | None = None
) -> list[str]:
    """Return where a weights lock is not what is described: one sentence each.

    Args:
        path: The lock.
        models: The models that it has to hold, by id.
        exact: Whether it must hold no others. Raises LockError when it is damaged.
        target: The lock that `lock` would write, where that is another one than it reads.
    """
    if not os.path.lexists(path) and path.parent.is_dir():
        return [f"There is no lock {path}."]
    known = read_weights(path).models
    path = target or path
    found = [f"{path}: {name!r} is not a model any more." for name in known if exact and name not in models]
    for name, model in models.items():
        locked = {file.destination: file for file in known.get(name, ())}
        described = {file.destination: from_description(file) for file in model.files}
        missing, extra = sorted(described.keys() - locked.keys()), sorted(locked.keys() - described.keys())
        found += [f"{path}: {name}: {each} is described, and not locked." for each in missing]
        found += [f"{path}: {name}: {each} is locked, and not described." for each in extra]
        for destination in sorted(described.keys() & locked.keys()):
            key = contradiction(described[destination], locked[destination])
            if key:
                found.append(f"{path}: {name}: {destination} is described with another {key}.")
    return found


def find_drift(described: LoadedVariant, lock: Lock) -> list[str]:
    """Return where lock and description have come apart: one sentence each, none when all is well."""
    runtime, locked = described.spec.runtime, lock.runtime
    pairs = [
        ("runtime.base.image", runtime.base.image, locked.base_image),
        ("runtime.base.digest", runtime.base.digest, locked.base_digest),
        ("runtime.epoch", runtime.epoch, locked.epoch),
        ("runtime.comfyui.repo", runtime.comfyui.repo, locked.comfyui_repo),
        ("runtime.comfyui.commit", runtime.comfyui.commit, locked.comfyui_commit),
        ("runtime.comfyui.tree", runtime.comfyui.tree, locked.comfyui_tree),
        ("runtime.python.version", runtime.python.version, locked.python),
    ]
    found = [
        f"{key} is {described_value}, the lock says {locked_value}."
        for key, described_value, locked_value in pairs
        if described_value != locked_value
    ]
    if requirements.inputs_digest(described) != locked.inputs:
        found.append("the Python requirements or layers have changed since they were resolved.")
    if of_another := cuda_wheels.contradiction(described, lock.pins()):
        found.append(f"runtime.cuda is {runtime.cuda}, and {of_another}.")
    return found + [
        problem for layer in (*locked.installed, locked.uv) for problem in damage(lock.folder, layer)
    ]


def damage(folder: Path, layer: LockedLayer) -> list[str]:
    """Return what is wrong with a requirements file of a lock: one sentence, or none."""
    path = folder / layer.file
    if not path.is_file():
        return [f"{path} is missing."]
    if hashlib.sha256(path.read_bytes()).hexdigest() != layer.sha256:
        return [f"{path} was changed by hand: its sha256 is not the locked one."]
    text = path.read_text(encoding="utf-8", errors="replace")
    if number := requirements.foreign_line(text):
        return [f"{path}:{number}: a lock has versions and hashes alone."]
    if len(requirements.known_pins([text])) != layer.packages:
        return [f"{path} has other packages than the {layer.packages} that are locked."]
    return []
