"""The runtime's lock: what is described is written down, and Python is resolved."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from podkiln.errors import LockError
from podkiln.lock import cuda_wheels, drift, locations, requirements, schema, validation
from podkiln.lock.resolve import python
from podkiln.lock.schema import Lock, LockedLayer, RuntimeLock
from podkiln.lock.validation import UnreadableLockError
from podkiln.util import atomic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from podkiln.config.variant import LoadedVariant
    from podkiln.lock.resolve.python import CompiledLayer


@dataclass(frozen=True)
class Present:
    """The lock that is there: `runtime` is None where it is damaged; the pins count all the same.

    `damage` is why it could not be read. Pins are those of ComfyUI's environment, of JupyterLab's, and of
    the build's: `python`, `jupyter`, `uv`.
    """

    folder: Path
    runtime: RuntimeLock | None
    pins: dict[str, dict[str, str]]
    damage: str | None = None

    @classmethod
    def at(cls, folder: Path) -> Present:
        """Read whatever can be read in a lock's folder.

        Raises UnreadableLockError for what must not be written over: a newer lock, and requirements of
        which a merge has left two versions.
        """
        runtime: RuntimeLock | None = None
        damage = None
        try:
            runtime = schema.read_runtime(folder)
        except UnreadableLockError as unreadable:
            if unreadable.newer:
                raise
            damage = str(unreadable)
        except LockError:
            pass  # there is none yet
        pins: dict[str, dict[str, str]] = {"python": {}, "jupyter": {}, "uv": {}}
        for file in _requirements_files(folder):
            environment = "python" if file.parent != folder else file.stem
            validation.refuse_merge(file)
            pins[environment] |= requirements.known_pins([file.read_text(encoding="utf-8", errors="replace")])
        return cls(folder, runtime, pins, damage)

    def drifts(self, described: LoadedVariant) -> list[str]:
        """Return where it is not what is described."""
        if self.runtime is None:
            return [f"There is no lock in {self.folder}."]
        return drift.find_drift(described, Lock(self.folder, self.runtime, {}))


def relock(described: LoadedVariant, upgrade: Sequence[str], warnings: list[str]) -> list[Path]:
    """Write the runtime's lock where it differs from the description. Returns the files that changed.

    A user's own variant uses the shipped lock as long as that fits, and else gets one beside its file.

    Args:
        described: The variant.
        upgrade: Python packages whose pins are given up; `all` for every one.
        warnings: Told what a person should know, one sentence each.

    Raises LockError for what could not be resolved, or must not be written over.
    """
    shared = Present.at(locations.LOCKS / described.spec.runtime.name)
    own = locations.user_lock_dir(described)
    if own is None:
        return _write(described, shared, shared.folder, upgrade, warnings)
    private = own / described.spec.runtime.name
    if locations.is_there(private):
        if not private.is_dir():
            schema.read_runtime(private)  # raises what is wrong with it
        return _write(described, Present.at(private), private, upgrade, warnings)
    if not upgrade and not shared.drifts(described):
        return []
    return _write(described, shared, private, upgrade, warnings)


def packages(described: LoadedVariant) -> set[str]:
    """Return the names of the Python packages that a variant's lock pins."""
    folder, _ = locations.folders(described)
    return {name for pins in Present.at(folder).pins.values() for name in pins}


def _write(
    described: LoadedVariant, present: Present, folder: Path, upgrade: Sequence[str], warnings: list[str]
) -> list[Path]:
    if folder == present.folder and not upgrade and not present.drifts(described):
        return []
    compiled = _compiled(described, _begun(present, described), upgrade)
    layers = described.spec.runtime.python.layers
    locked = _lock(
        described,
        [compiled[layer.name].locked(layer.name, python.layer_file(layer.name)) for layer in layers],
        compiled["jupyter"].locked("jupyter", "jupyter.txt") if "jupyter" in compiled else None,
        compiled["uv"].locked("uv", "uv.txt"),
    )
    files = {layer.file: compiled[layer.name].text for layer in (*locked.installed, locked.uv)}
    changed = [folder / file for file, text in files.items() if atomic.write(folder / file, text)]
    # Last: until it is there, the hashes in the old one say that something is not finished.
    if atomic.write_json(folder / "runtime.json", locked.model_dump()):
        changed.append(folder / "runtime.json")
    for stale in set(_requirements_files(folder)) - {folder / file for file in files}:
        stale.unlink()
        changed.append(stale)
    if present.damage:
        said = present.damage.rstrip(".")
        warnings.append(f"{said}; everything in it was resolved again: compare before you commit.")
    return changed


def _begun(present: Present, described: LoadedVariant) -> Present:
    """Return the versions to begin with, where there is no lock at all yet: so most layers stay the same.

    Those of the runtime that differs in CUDA or platform only, or else those of the shipped variants.
    """
    if present.runtime or any(present.pins.values()):
        return present
    for folder in (locations.kin(described), locations.default_runtime()):
        pins = Present.at(folder).pins
        if any(pins.values()):
            return replace(present, pins=pins)
    return present


def _compiled(described: LoadedVariant, present: Present, upgrade: Sequence[str]) -> dict[str, CompiledLayer]:
    """Return the requirements files by layer name, `jupyter` and `uv` included.

    Raises DescriptionError where the wheels are of another CUDA than is described.
    """
    packages = [name for name in upgrade if name != "uv"]
    target = described.spec.runtime.python
    compiled = python.compile_layers(described, present.pins["python"], packages)
    cuda_wheels.require(described, requirements.known_pins(each.text for each in compiled.values()))
    if asked := requirements.jupyter_file(described):
        compiled["jupyter"] = python.compile_jupyter(asked, target, present.pins["jupyter"], packages)
    wanted = [name for name in upgrade if name in {"uv", "all"}]
    return {**compiled, "uv": python.compile_uv(target, present.pins["uv"], wanted)}


def _lock(
    described: LoadedVariant,
    layers: Sequence[LockedLayer],
    jupyter: LockedLayer | None,
    uv: LockedLayer,
) -> RuntimeLock:
    runtime = described.spec.runtime
    return RuntimeLock(
        inputs=requirements.inputs_digest(described),
        epoch=runtime.epoch,
        base_image=runtime.base.image,
        base_digest=runtime.base.digest,
        comfyui_repo=runtime.comfyui.repo,
        comfyui_commit=runtime.comfyui.commit,
        comfyui_tree=runtime.comfyui.tree,
        python=runtime.python.version,
        python_layers=tuple(layers),
        jupyter=jupyter,
        uv=uv,
    )


def _requirements_files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("python/*.txt"), *folder.glob("jupyter.txt"), *folder.glob("uv.txt")])
