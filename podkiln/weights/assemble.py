"""One image from a runtime and weight layers: a manifest and a config, made without a byte of any layer.

Weights lie below the runtime, so that an update of it leaves their chain ids as they are; those declared
`above` lie on top. The same layers make the same manifest, byte for byte.
Source: OCI image-spec v1.1, config.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from podkiln.errors import IntegrityError, PlanRefusedError
from podkiln.oci import spec, tar_layer
from podkiln.oci.layout import Layout
from podkiln.oci.spec import Descriptor, ImageConfig, Manifest
from podkiln.plan.plan import MAX_LAYERS
from podkiln.util import atomic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from podkiln.plan.weight_layers import WeightLayerSpec

MODEL: Final = "io.podkiln.model"
FILES: Final = "io.podkiln.files"
PACKING: Final = "io.podkiln.packing"


@dataclass(frozen=True)
class WeightLayer:
    """A weight layer as part of an image: what is in it, and its digest and size."""

    bundle: WeightLayerSpec
    blob: Descriptor

    @property
    def descriptor(self) -> Descriptor:
        """The layer as it stands in the manifest; the annotations say which files are in it, for `verify`."""
        files = [
            {"path": each.path, "size": each.size, "sha256": each.sha256, "source": each.source}
            for each in self.bundle.weights
        ]
        annotations = {
            MODEL: self.bundle.model,
            FILES: spec.canonical_json(files).decode(),
            PACKING: str(tar_layer.PACKING),
        }
        return replace(self.blob, media_type=spec.LAYER, annotations=annotations)

    def history(self, created: str | None) -> dict[str, Any]:
        """Return what `docker history` shows of the layer."""
        files = "; ".join(map(str, self.bundle.weights))
        entry = {"created_by": f"podkiln bake {self.bundle.model}: {files}", "comment": "podkiln"}
        return {"created": created, **entry} if created else entry


@dataclass(frozen=True)
class AssembledImage:
    """An image that consists of its two documents; its layers are wherever they are."""

    manifest: Manifest
    manifest_bytes: bytes
    config: ImageConfig
    config_bytes: bytes

    @property
    def descriptor(self) -> Descriptor:
        """The manifest, as it stands in an index."""
        digest = spec.digest_of(self.manifest_bytes)
        return Descriptor(spec.MANIFEST, digest, len(self.manifest_bytes), platform=self.config.platform)


def assemble(
    manifest: Manifest,
    config: ImageConfig,
    below: Sequence[WeightLayer],
    above: Sequence[WeightLayer] = (),
) -> AssembledImage:
    """Put weight layers below and above a runtime, each group in its declared order.

    Raises:
        PlanRefusedError: More layers than engines start.
        IntegrityError: The runtime is not an OCI image, or its history does not tell of each of its layers.
    """
    _check_runtime(manifest, config)
    layers = (
        *(layer.descriptor for layer in below),
        *manifest.layers,
        *(layer.descriptor for layer in above),
    )
    if len(layers) > MAX_LAYERS:
        raise PlanRefusedError(
            f"The image would have {len(layers)} layers; engines start images of at most {MAX_LAYERS}.",
            hint="Bake fewer models, and fetch the others at start.",
        )
    config_bytes = spec.canonical_json(_config(config, below, above))
    made = Manifest(
        media_type=spec.MANIFEST,
        config=Descriptor(spec.CONFIG, spec.digest_of(config_bytes), len(config_bytes)),
        layers=layers,
        annotations=manifest.annotations,
    )
    parsed = ImageConfig.parse(config_bytes, "The assembled config")
    return AssembledImage(made, made.encode(), parsed, config_bytes)


def _config(
    config: ImageConfig, below: Sequence[WeightLayer], above: Sequence[WeightLayer]
) -> dict[str, Any]:
    created = config.document.get("created")
    rootfs: Mapping[str, Any] = config.document["rootfs"]
    return {
        **config.document,
        "rootfs": {
            **rootfs,
            "diff_ids": [
                *(layer.blob.digest for layer in below),
                *config.diff_ids,
                *(layer.blob.digest for layer in above),
            ],
        },
        "history": [
            *(layer.history(created) for layer in below),
            *config.history,
            *(layer.history(created) for layer in above),
        ],
    }


def _check_runtime(manifest: Manifest, config: ImageConfig) -> None:
    foreign = [
        blob.media_type for blob in (manifest.config, *manifest.layers) if ".docker." in blob.media_type
    ]
    if manifest.media_type != spec.MANIFEST or foreign:
        raise IntegrityError("The runtime is in Docker's format; weights are put to OCI images only.")
    counts = (len(manifest.layers), len(config.diff_ids), len(config.layer_history))
    if len(set(counts)) > 1:
        layers, diff_ids, told = counts
        told_of = f"{diff_ids} diff_ids, and a history of {told}"
        raise IntegrityError(f"The runtime has {layers} layers, {told_of}: these must agree.")


def store(image: AssembledImage, folder: Path, *, index: bool) -> Layout:
    """Put the two documents into an OCI layout that holds the runtime, and return the image as it lies there.

    Args:
        image: What was assembled.
        folder: The layout.
        index: Make it the image of the layout, in place of the runtime: when the weights are there too.
            Without, the layout stays what it was; the result can be pushed to where its weights are already.
    """
    _write(folder, image.config_bytes, image.manifest.config.digest)
    _write(folder, image.manifest_bytes, image.descriptor.digest)
    if index:
        content = {"schemaVersion": 2, "mediaType": spec.INDEX, "manifests": [image.descriptor.to_json()]}
        atomic.write(folder / "index.json", spec.canonical_json(content))
    return Layout(folder, image.descriptor, image.manifest, image.manifest_bytes, image.config)


def _write(folder: Path, data: bytes, digest: spec.Digest) -> None:
    atomic.write(folder / "blobs" / digest.replace(":", "/"), data)
