"""The documents of the lock: what every input of an image resolved to.

podkiln.lock.locations says where they lie, podkiln.lock.reader reads them, podkiln.lock.drift compares them
with what is described. Nothing of this touches the network; podkiln.lock.resolve.relock writes locks.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, field_validator

from podkiln.config.document import TupleOf
from podkiln.config.fields import Digest, Identifier, LayerName, PythonVersion, Revision, SafePath
from podkiln.config.model import UNRESOLVED, Model, ModelFile
from podkiln.errors import LockError
from podkiln.lock import requirements, validation
from podkiln.lock.validation import Locked, Schema, Sha256, Size, Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from podkiln.lock.additions import LockedAdditions
    from podkiln.lock.apt import AptLock
    from podkiln.lock.nodes import LockedNodes
    from podkiln.lock.served_model import LockedModel
    from podkiln.lock.serving import LockedServing

_MOST_PACKAGES = 100_000


class LockedLayer(Locked):
    """One Python layer: its requirements file, that file's sha256, and the bytes of its wheels if known."""

    name: LayerName
    file: SafePath
    sha256: Sha256
    packages: Annotated[int, Field(ge=0, le=_MOST_PACKAGES)]
    wheel_bytes: Size | None = None

    @classmethod
    def of(cls, name: str, file: str, text: str, wheel_bytes: int | None = None) -> LockedLayer:
        """Return what is locked of a requirements file with a text."""
        digest = hashlib.sha256(text.encode()).hexdigest()
        packages = len(requirements.pinned_blocks(text))
        return cls(name=name, file=file, sha256=digest, packages=packages, wheel_bytes=wheel_bytes)


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
    """The lock of one variant, read and checked. `apt`: by the digest of the base that each is for.

    `nodes`, `additions` and `serving`: what lies above the layers of the runtime; None where a variant has
    none. `model`: that of the server, which pods fetch; `bases`: commit and hashes of the bases of families,
    by repository, in an image with that server.
    """

    folder: Path
    runtime: RuntimeLock
    weights: dict[str, tuple[LockedFile, ...]]
    apt: Mapping[str, AptLock] = field(default_factory=dict)
    additions: LockedAdditions | None = None
    nodes: LockedNodes | None = None
    serving: LockedServing | None = None
    model: LockedModel | None = None
    bases: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Digest over all pins: two images with the same one were made from the same inputs."""
        text = self.runtime.model_dump_json() + "".join(
            file.model_dump_json() for name in sorted(self.weights) for file in self.weights[name]
        )
        # Of its own base alone: what is locked for a substitute of that changes no other image.
        if own := self.apt.get(self.runtime.base_digest):
            text += own.digest
        if self.nodes:
            text += self.nodes.digest
        if self.additions:
            text += self.additions.digest_text(self.runtime.base_digest)
        if self.serving:
            text += self.serving.document.model_dump_json()
        if self.bases:
            text += json.dumps(self.bases, sort_keys=True)
        if self.model:
            text += self.model.document.model_dump_json()
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    def requirements(self) -> dict[str, str]:
        """Return the text of each layer's requirements file, by the file's plain name."""
        files = [self.folder / layer.file for layer in self.runtime.installed]
        return {file.name: file.read_text(encoding="utf-8") for file in files}

    def pins(self) -> dict[str, str]:
        """Return the versions of the runtime's Python packages, by canonical name; a file may be missing."""
        files = [self.folder / layer.file for layer in self.runtime.python_layers]
        return requirements.known_pins(
            file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file()
        )

    def pins_with_nodes(self) -> dict[str, str]:
        """Return the same, and those of the packages of custom nodes, or of the server in ComfyUI's place."""
        of_server = self.serving.pins() if self.serving and self.serving.beside_none else {}
        return {**self.pins(), **(self.nodes.pins() if self.nodes else {}), **of_server}

    def python_packages(self) -> frozenset[str]:
        """Return the canonical names of what ComfyUI's Python environment has."""
        added = requirements.pinned_blocks(self.additions.requirements) if self.additions else ()
        of_nodes = self.nodes.pins() if self.nodes else ()
        return frozenset(
            [*added, *of_nodes, *(name for names in self.packages_by_layer().values() for name in names)]
        )

    def packages_by_layer(self) -> dict[str, frozenset[str]]:
        """Return the canonical names of the packages of each shared Python layer of ComfyUI's, by layer."""
        return {
            layer.name: frozenset(
                requirements.pinned_blocks((self.folder / layer.file).read_text(encoding="utf-8"))
            )
            for layer in self.runtime.python_layers
        }


def read_runtime(folder: Path) -> RuntimeLock:
    """Read a runtime's pins. Raises LockError: missing or damaged."""
    path = folder / "runtime.json"
    try:
        return validation.read(path, RuntimeLock, hint=validation.DAMAGED)
    except FileNotFoundError:
        raise LockError(f"There is no lock {path}.", hint="`./build.py lock` makes it.") from None


def read_weights(path: Path) -> WeightsLock:
    """Read a weights lock; without one, only descriptions are known. Raises LockError: damaged."""
    try:
        return validation.read(path, WeightsLock, hint=validation.DAMAGED)
    except FileNotFoundError:
        return WeightsLock(models={})


def merged(file: ModelFile, found: LockedFile | None) -> LockedFile:
    """Return what is known of a file: what its description says, and where that is silent the lock."""
    described = from_description(file)
    if found is None or contradiction(described, found):
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


def contradiction(described: LockedFile, found: LockedFile) -> str | None:
    """Return the key in which a lock says something else than the description says itself."""
    stated = described.model_dump(exclude_none=True)
    return next((key for key, value in stated.items() if getattr(found, key) != value), None)
