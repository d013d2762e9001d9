"""The lock: what every input of an image resolved to, and whether that still fits what is described.

A runtime's lock is a folder, variants/locks/<runtime>/: `runtime.json` with the pins, one hash-locked
requirements file a Python layer, and in `apt/` a folder for each base (podkiln.lock.apt). The weights' lock,
variants/locks/weights.json, is shared by all runtimes.
Reading and checking touch no network; podkiln.lock.resolve.relock writes locks.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, field_validator

from podkiln.config import variant
from podkiln.config.document import TupleOf
from podkiln.config.fields import Digest, Identifier, LayerName, PythonVersion, Revision, SafePath
from podkiln.config.model import UNRESOLVED, Model, ModelFile
from podkiln.errors import LockError
from podkiln.lock import apt, requirements, validation
from podkiln.lock.validation import Locked, Schema, Sha256, Size, Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from podkiln.config.catalog import VariantModel
    from podkiln.config.variant import LoadedVariant
    from podkiln.lock.apt import AptLock


LOCKS = variant.SHIPPED / "locks"
WEIGHTS = "weights.json"
APT = "apt"
_DAMAGED = "Restore it with git (`git checkout HEAD -- FILE`), or delete it and run `./build.py lock`."
_MOST_PACKAGES = 100_000


class LockedLayer(Locked):
    """One Python layer: its requirements file, and that file's sha256."""

    name: LayerName
    file: SafePath
    sha256: Sha256
    packages: Annotated[int, Field(ge=0, le=_MOST_PACKAGES)]


class LockedNode(Locked):
    """A custom node's source."""

    repo: Text
    commit: Revision
    tree: Revision | None


class RuntimeLock(Locked):
    """Everything below the weights. `inputs` is the digest of what was described when it was made."""

    schema_version: Schema = validation.SCHEMA
    inputs: Digest
    epoch: Annotated[int, Field(gt=0)]
    base_image: Text
    base_digest: Digest
    comfyui_repo: Text
    comfyui_commit: Revision
    comfyui_tree: Revision
    nodes: dict[Text, LockedNode]
    python: PythonVersion
    python_layers: TupleOf[LockedLayer]
    jupyter: LockedLayer | None = None
    uv: LockedLayer

    @property
    def installed(self) -> tuple[LockedLayer, ...]:
        """What goes into the image."""
        return (*self.python_layers, self.jupyter) if self.jupyter else self.python_layers


class LockedFile(Locked):
    """One weight; null where hash or size are not known yet."""

    destination: SafePath
    source: Text
    revision: Revision | None
    size: Size | None
    sha256: Sha256 | None

    @property
    def resolved(self) -> bool:
        """Whether hash and exact size are known, so that the file can be baked."""
        return not self.lacking

    @property
    def lacking(self) -> tuple[str, ...]:
        """Which of the two is not known, in words."""
        parts = {"trusted sha256": self.sha256, "exact size": self.size}
        return tuple(what for what, known in parts.items() if known is None)


class WeightsLock(Locked):
    """The files of every model, by model id."""

    schema_version: Schema = validation.SCHEMA
    models: dict[Identifier, TupleOf[LockedFile]]

    @field_validator("models")
    @classmethod
    def _no_duplicates(cls, models: dict[str, tuple[LockedFile, ...]]) -> dict[str, tuple[LockedFile, ...]]:
        """Refuse what a merge leaves behind: two entries of one file, which may differ."""
        for name, files in models.items():
            for file in files:
                if sum(each.destination == file.destination for each in files) > 1:
                    raise ValueError(f"{name} has two entries for {file.destination!r}")
        return models


@dataclass(frozen=True)
class ModelSize:
    """Bytes of the files that come with a model, and those whose size nobody knows: the sum lacks them."""

    known_bytes: int
    unknown: tuple[str, ...]

    @classmethod
    def of(cls, model: Model, locked: Iterable[LockedFile]) -> ModelSize:
        """Add up what the description says, exactly or not, and else the lock."""
        sizes = {
            file.destination: file.known_bytes or known.size
            for file, known in zip(model.files, locked, strict=True)
            if not file.optional
        }
        unknown = tuple(destination for destination, size in sizes.items() if size is None)
        return cls(sum(size or 0 for size in sizes.values()), unknown)


@dataclass(frozen=True)
class Lock:
    """The lock of one variant, read and checked. `apt`: by the digest of the base that each is for."""

    folder: Path
    runtime: RuntimeLock
    weights: dict[str, tuple[LockedFile, ...]]
    apt: Mapping[str, AptLock] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Digest over all pins: two images with the same one were made from the same inputs."""
        text = self.runtime.model_dump_json() + "".join(
            file.model_dump_json() for name in sorted(self.weights) for file in self.weights[name]
        )
        # Of its own base alone: what is locked for a substitute of that changes no other image.
        if own := self.apt.get(self.runtime.base_digest):
            text += own.digest
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    def requirements(self) -> dict[str, str]:
        """Return the text of each layer's requirements file, by the file's plain name."""
        files = [self.folder / layer.file for layer in self.runtime.installed]
        return {file.name: file.read_text(encoding="utf-8") for file in files}

    def python_packages(self) -> frozenset[str]:
        """Return the canonical names of what ComfyUI's Python environment has."""
        return frozenset(name for names in self.packages_by_layer().values() for name in names)

    def packages_by_layer(self) -> dict[str, frozenset[str]]:
        """Return the canonical names of the packages of each of ComfyUI's Python layers, by layer."""
        return {
            layer.name: frozenset(
                requirements.pinned_blocks((self.folder / layer.file).read_text(encoding="utf-8"))
            )
            for layer in self.runtime.python_layers
        }


def user_lock_dir(described: LoadedVariant) -> Path | None:
    """Return the folder of a user's own locks, `<file>.locks` beside the file; None for a shipped variant."""
    own = described.chain[0].path
    return None if own.resolve().parent == variant.SHIPPED else own.parent / f"{own.stem}.locks"


def folders(described: LoadedVariant) -> tuple[Path, Path]:
    """Return where a variant's runtime lock and weights lock lie: beside a user's file, if any."""
    own = user_lock_dir(described)
    name = described.spec.runtime.name
    runtime = own / name if own and is_there(own / name) else LOCKS / name
    weights = own / WEIGHTS if own and is_there(own / WEIGHTS) else LOCKS / WEIGHTS
    return runtime, weights


def apt_folders(described: LoadedVariant) -> tuple[Path, ...]:
    """Return where the apt locks of a variant's bases lie: beside a user's file, then with the shipped."""
    own = user_lock_dir(described)
    shipped = LOCKS / described.spec.runtime.name / APT
    return (own / APT, shipped) if own else (shipped,)


def apt_locks(described: LoadedVariant) -> dict[str, AptLock]:
    """Return the apt locks of the packages that are described, by base. Raises LockError: a damaged one."""
    wanted = tuple(sorted(described.spec.runtime.apt))
    fitting: dict[str, AptLock] = {}
    for folder in apt_folders(described):
        for base, each in apt.read_all(folder).items():
            if each.index.installed == wanted:
                fitting.setdefault(base, each)
    return fitting


def apt_drifts(described: LoadedVariant) -> list[str]:
    """Return which of a variant's apt locks are of other packages than are described: one sentence each."""
    wanted = tuple(sorted(described.spec.runtime.apt))
    return [
        f"{each.folder} is of other packages than runtime.apt lists."
        for each in apt.read_all(apt_folders(described)[0]).values()
        if each.index.installed != wanted
    ]


def is_there(path: Path) -> bool:
    """Whether a user's own lock exists, even damaged (a dangling link, or a file in place of the folder)."""
    return os.path.lexists(path) or (os.path.lexists(path.parent) and not path.parent.is_dir())


def read(described: LoadedVariant, offered: Iterable[VariantModel], *, check: bool = True) -> Lock:
    """Read a variant's lock. Raises LockError: missing, damaged, or no longer what is described."""
    folder, weights_file = folders(described)
    with hinted(described):
        runtime = read_runtime(folder)
        known = read_weights(weights_file)
        packages = apt_locks(described)
    weights = {offer.id: _weights(offer, known) for offer in offered}
    lock = Lock(folder=folder, runtime=runtime, weights=weights, apt=packages)
    if check:
        drift = find_drift(described, lock)
        if drift:
            what = f"The lock does not fit the description: {drift[0]}"
            raise LockError(what, hint=hint_for(described, requirements.RELOCK))
    return lock


def hint_for(described: LoadedVariant, hint: str | None) -> str | None:
    """Return a hint with the variant's own file in its commands: without, they lock the shipped ones."""
    return hint and hint.replace("`./build.py lock`", f"`./build.py lock{described.option}`")


@contextlib.contextmanager
def hinted(described: LoadedVariant) -> Iterator[None]:
    """Put the variant's own file into the hints of locks that cannot be read."""
    try:
        yield
    except LockError as damaged:
        damaged.hint = hint_for(described, damaged.hint)
        raise


def read_runtime(folder: Path) -> RuntimeLock:
    """Read a runtime's pins. Raises LockError: missing or damaged."""
    path = folder / "runtime.json"
    try:
        return validation.read(path, RuntimeLock, hint=_DAMAGED)
    except FileNotFoundError:
        raise LockError(f"There is no lock {path}.", hint="`./build.py lock` makes it.") from None


def read_weights(path: Path) -> WeightsLock:
    """Read a weights lock; without one, only descriptions are known. Raises LockError: damaged."""
    try:
        return validation.read(path, WeightsLock, hint=_DAMAGED)
    except FileNotFoundError:
        return WeightsLock(models={})


def _weights(offer: VariantModel, known: WeightsLock) -> tuple[LockedFile, ...]:
    """Put what the lock found out on top of what the description knows; a description's own hash wins."""
    found = {file.destination: file for file in known.models.get(offer.id, ())}
    return tuple(merged(file, found.get(file.destination)) for file in offer.model.files)


def merged(file: ModelFile, found: LockedFile | None) -> LockedFile:
    """Return what is known of a file: what its description says, and where that is silent the lock."""
    described = from_description(file)
    if found is None or _contradiction(described, found):
        return described
    return found.model_copy(update=described.model_dump(exclude_none=True))


def from_description(file: ModelFile) -> LockedFile:
    """Return what the description alone says of a file."""
    return LockedFile(
        destination=file.destination,
        source=source_name(file),
        revision=file.revision,
        size=file.size,
        sha256=None if file.sha256 == UNRESOLVED else file.sha256,
    )


def source_name(file: ModelFile) -> str:
    """Return a file's source in one word, as it stands in locks, labels and messages."""
    if file.huggingface:
        return f"huggingface:{file.huggingface}/{file.path}"
    if file.civitai:
        number = f"+{file.civitai.file}" if file.civitai.file else ""
        return f"civitai:{file.civitai.model}@{file.civitai.version}{number}"
    return file.url or f"local:{file.local}"


def _contradiction(described: LockedFile, found: LockedFile) -> str | None:
    """Return the key in which a lock says something else than the description says itself."""
    stated = described.model_dump(exclude_none=True)
    return next((key for key, value in stated.items() if getattr(found, key) != value), None)


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
            key = _contradiction(described[destination], locked[destination])
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
    if not _same_nodes(described, locked):
        found.append("the custom nodes described and locked are not the same.")
    if requirements.inputs_digest(described) != locked.inputs:
        found.append("the Python requirements or layers have changed since they were resolved.")
    return found + [problem for layer in (*locked.installed, locked.uv) for problem in _damage(lock, layer)]


def _same_nodes(described: LoadedVariant, locked: RuntimeLock) -> bool:
    """Whether the custom nodes are those that are locked; a tree that is not described may be known there."""
    nodes = described.spec.nodes
    return nodes.keys() == locked.nodes.keys() and all(
        (node.repo, node.commit) == (there.repo, there.commit) and node.tree in (None, there.tree)
        for name, node in nodes.items()
        for there in (locked.nodes[name],)
    )


def _damage(lock: Lock, layer: LockedLayer) -> list[str]:
    path = lock.folder / layer.file
    if not path.is_file():
        return [f"{path} is missing."]
    if hashlib.sha256(path.read_bytes()).hexdigest() != layer.sha256:
        return [f"{path} was changed by hand: its sha256 is not the locked one."]
    return []
