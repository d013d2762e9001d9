"""Weights of a few bytes, the layers that they make, and what a lock would remember of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podkiln.oci import spec
from podkiln.plan.weight_layers import WeightFile, WeightLayerSpec
from podkiln.weights.assemble import WeightLayer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podkiln.oci.tar_layer import Entry

REVISION = "c" * 40


def weight(name: str, model: str) -> WeightFile:
    """Return a file whose content is its own path."""
    path = f"opt/models/{name}".encode()
    return WeightFile(
        model, name, len(path), spec.digest_of(path)[7:], f"huggingface:o/r/{name}", REVISION, {}
    )


def content(bundle: WeightLayerSpec) -> bytes:
    """Return the layer of a bundle of such files."""

    def opened(entry: Entry, offset: int) -> Iterator[bytes]:
        yield entry.path.encode()[offset:]

    return b"".join(bundle.layout.chunks(opened))


A = WeightLayerSpec((weight("checkpoints/a.safetensors", "sdxl"),))
B = WeightLayerSpec((weight("vae/b.safetensors", "sdxl"), weight("vae/b.json", "sdxl")))
BUNDLES = (A, B)
LAYERS = {bundle.recipe: spec.digest_of(content(bundle)) for bundle in BUNDLES}


def baked(bundle: WeightLayerSpec) -> WeightLayer:
    """Return the layer of one of the two bundles as part of an image."""
    return WeightLayer(bundle, spec.Descriptor(spec.LAYER, LAYERS[bundle.recipe], bundle.size))
