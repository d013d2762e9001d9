"""Which files of which models make which weight layer: the same answer for the same description and lock.

Pure. A file of 64 MiB or more is a layer of its own, so that it is pulled alone and beside others; smaller
ones of one model share a layer, which stands where the first of them does. All in declared order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from podkiln.lock import schema
from podkiln.oci import spec, tar_layer
from podkiln.oci.tar_layer import Entry, TarLayer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from podkiln.config.catalog import VariantModel
    from podkiln.config.model import ModelFile
    from podkiln.lock.schema import LockedFile
    from podkiln.oci.spec import Digest

ROOT: Final = "opt/models"
SMALL: Final = 64 << 20
"""Bytes below which a file shares a layer."""


@dataclass(frozen=True)
class WeightFile:
    """One file to bake: all that is known of it beforehand.

    `origin` says where it comes from, as in models.json; `source` is that in one word, for people.
    """

    model: str
    destination: str
    size: int
    sha256: str
    source: str
    revision: str | None
    origin: Mapping[str, Any]

    @property
    def path(self) -> str:
        """Path in the image, without the slash at its beginning."""
        return f"{ROOT}/{self.destination}"

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return f"{self.destination} from {self.source}{at} sha256:{self.sha256}"


@dataclass(frozen=True)
class WeightLayerSpec:
    """The files of one weight layer."""

    weights: tuple[WeightFile, ...]

    @property
    def model(self) -> str:
        """The model that they belong to."""
        return self.weights[0].model

    @property
    def name(self) -> str:
        """What to call the layer: its file, or its model and the number of files."""
        if len(self.weights) == 1:
            return self.weights[0].destination
        return f"{self.model} ({len(self.weights)} files)"

    @property
    def title(self) -> str:
        """What to call the layer among those of other models."""
        return f"{self.model}: {self.name}" if len(self.weights) == 1 else self.name

    @property
    def layout(self) -> TarLayer:
        """The tar of the layer."""
        return TarLayer(tuple(Entry(weight.path, weight.size) for weight in self.weights))

    @property
    def size(self) -> int:
        """Bytes of the layer."""
        return self.layout.size

    @property
    def content_bytes(self) -> int:
        """Bytes of the files alone: what is fetched."""
        return sum(weight.size for weight in self.weights)

    @property
    def recipe(self) -> Digest:
        """Content key: digest of packing version, paths, sizes, hashes; layers.json maps it to a layer."""
        files = [[weight.path, weight.size, weight.sha256] for weight in self.weights]
        return spec.digest_of(spec.canonical_json([tar_layer.PACKING, files]))


def bundles(weights: Iterable[WeightFile]) -> tuple[WeightLayerSpec, ...]:
    """Deal files out to layers. A destination that two models share is baked once, with the first of them."""
    dealt: dict[tuple[str, str], list[WeightFile]] = {}
    seen: set[str] = set()
    for weight in weights:
        if weight.destination not in seen:
            seen.add(weight.destination)
            alone = weight.destination if weight.size >= SMALL else ""
            dealt.setdefault((weight.model, alone), []).append(weight)
    return tuple(WeightLayerSpec(tuple(group)) for group in dealt.values())


def weights_of(
    offers: Iterable[VariantModel], locked: Mapping[str, tuple[LockedFile, ...]]
) -> list[WeightFile]:
    """Return the files to bake, in declared order. All must be resolved: the plan sees to that."""
    return [
        _weight(offer, file, known)
        for offer in offers
        for file, known in zip(offer.model.files, locked[offer.id], strict=True)
        if not file.optional
    ]


def _weight(offer: VariantModel, file: ModelFile, known: LockedFile) -> WeightFile:
    if known.size is None or known.sha256 is None:
        raise ValueError(f"{offer.id}: {file.destination} is not resolved")
    return WeightFile(
        model=offer.id,
        destination=file.destination,
        size=known.size,
        sha256=known.sha256,
        source=schema.source_name(file),
        revision=known.revision,
        origin=origin(file, known, offer.entry.source.path.parent),
    )


def origin(file: ModelFile, known: LockedFile, folder: Path) -> dict[str, Any]:
    """Return where a file comes from, as models.json has it; local ones lie relative to `folder`."""
    if file.huggingface:
        return {
            "kind": "huggingface",
            "repo": file.huggingface,
            "revision": known.revision,
            "path": file.path,
        }
    if file.civitai:
        number = {"file": file.civitai.file} if file.civitai.file else {}
        return {"kind": "civitai", "model": file.civitai.model, "version": file.civitai.version, **number}
    if file.local:
        return {"kind": "local", "path": str(folder / file.local)}
    return {"kind": "https", "url": file.url}
