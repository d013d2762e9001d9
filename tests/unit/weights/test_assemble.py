"""An image of runtime and weights: right in every field that engines look at, and the same each time."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from layouts import layer_of, make_layout

from podkiln.errors import IntegrityError, PlanRefusedError
from podkiln.oci import layout, spec
from podkiln.oci.spec import ImageConfig, Manifest
from podkiln.plan.plan import MAX_LAYERS
from podkiln.plan.weight_layers import WeightFile, WeightLayerSpec
from podkiln.weights.assemble import FILES, MODEL, PACKING, WeightLayer, assemble, store

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.oci.layout import Layout

CREATED = "2026-08-24T00:00:00Z"


def weight_layer(name: str, *more: str, model: str = "sdxl") -> WeightLayer:
    weights = tuple(
        WeightFile(model, each, 5, spec.digest_of(each.encode())[7:], f"huggingface:a/b/{each}", "c" * 40, {})
        for each in (name, *more)
    )
    group = WeightLayerSpec(weights)
    return WeightLayer(group, spec.Descriptor(spec.LAYER, spec.digest_of(name.encode()), group.size))


A, B, C = (
    weight_layer("checkpoints/a"),
    weight_layer("vae/b", "vae/b.json"),
    weight_layer("loras/c", model="x"),
)


@pytest.fixture
def runtime(tmp_path: Path) -> Layout:
    """A runtime of two layers, whose history lists a step without one too."""
    found = layout.read(make_layout(tmp_path, layer_of(base="1"), layer_of(start="2")))
    history = [*found.config.history, {"created_by": "CMD", "empty_layer": True}]
    document = {**found.config.document, "history": history, "created": CREATED}
    return replace(found, config=ImageConfig.parse(spec.canonical_json(document), "x"))


def test_weights_lie_below_the_runtime_in_declared_order(runtime: Layout) -> None:
    image = assemble(runtime.manifest, runtime.config, [A, B], [C])
    digests = [
        A.blob.digest,
        B.blob.digest,
        *(layer.digest for layer in runtime.manifest.layers),
        C.blob.digest,
    ]
    diff_ids = [A.blob.digest, B.blob.digest, *runtime.config.diff_ids, C.blob.digest]
    assert [layer.digest for layer in image.manifest.layers] == digests
    assert list(image.config.diff_ids) == diff_ids
    assert len(image.config.layer_history) == len(digests)
    assert [entry["created_by"].split(":")[0] for entry in image.config.history] == [
        "podkiln bake sdxl",
        "podkiln bake sdxl",
        "layer 0",
        "layer 1",
        "CMD",
        "podkiln bake x",
    ]


def test_an_update_of_the_runtime_leaves_the_chain_of_the_weights(runtime: Layout, tmp_path: Path) -> None:
    other = layout.read(make_layout(tmp_path / "other", layer_of(base="1"), layer_of(start="3")))
    before, after = (assemble(each.manifest, each.config, [A, B]) for each in (runtime, other))
    assert before.config.diff_ids[:3] == after.config.diff_ids[:3]
    assert before.descriptor.digest != after.descriptor.digest


def test_history_and_annotations_say_what_a_layer_holds(runtime: Layout) -> None:
    image = assemble(runtime.manifest, runtime.config, [B])
    sha256 = [each.sha256 for each in B.bundle.weights]
    assert image.config.history[0] == {
        "created": CREATED,
        "created_by": (
            f"podkiln bake sdxl: vae/b from huggingface:a/b/vae/b@{'c' * 40} sha256:{sha256[0]}; "
            f"vae/b.json from huggingface:a/b/vae/b.json@{'c' * 40} sha256:{sha256[1]}"
        ),
        "comment": "podkiln",
    }
    layer = image.manifest.layers[0]
    assert layer.media_type == "application/vnd.oci.image.layer.v1.tar"
    assert (layer.annotations[MODEL], layer.annotations[PACKING]) == ("sdxl", "1")
    assert json.loads(layer.annotations[FILES])[1] == {
        "path": "opt/models/vae/b.json",
        "size": 5,
        "sha256": sha256[1],
        "source": "huggingface:a/b/vae/b.json",
    }


def test_how_the_runtime_runs_stays_as_it_is(runtime: Layout) -> None:
    image = assemble(runtime.manifest, runtime.config, [A])
    kept = runtime.config.document.keys() - {"rootfs", "history"}
    assert {key: image.config.document[key] for key in kept} == {
        key: runtime.config.document[key] for key in kept
    }


def test_the_same_layers_make_the_same_manifest(runtime: Layout) -> None:
    first, second = (assemble(runtime.manifest, runtime.config, [A, B]) for _ in range(2))
    swapped = assemble(runtime.manifest, runtime.config, [B, A])
    assert first.manifest_bytes == second.manifest_bytes
    assert first.descriptor.digest != swapped.descriptor.digest
    assert Manifest.parse(first.manifest_bytes, "x") == first.manifest


def test_an_image_has_at_most_120_layers(runtime: Layout) -> None:
    many = [weight_layer(f"x/{number}") for number in range(MAX_LAYERS - 1)]
    assert MAX_LAYERS == 120
    assert len(assemble(runtime.manifest, runtime.config, many[:-1]).manifest.layers) == 120
    with pytest.raises(PlanRefusedError, match="would have 121 layers"):
        assemble(runtime.manifest, runtime.config, many)


def test_a_runtime_must_be_one_that_can_be_added_to(runtime: Layout) -> None:
    docker = replace(runtime.manifest, media_type=spec.DOCKER_MANIFEST)
    mute = replace(runtime.config, history=())
    with pytest.raises(IntegrityError, match="Docker's format"):
        assemble(docker, runtime.config, [A])
    with pytest.raises(IntegrityError, match="2 layers, 2 diff_ids, and a history of 0"):
        assemble(runtime.manifest, mute, [A])


def test_an_assembled_image_takes_the_runtimes_place_in_a_layout(runtime: Layout) -> None:
    image = assemble(runtime.manifest, runtime.config, [A])
    place = runtime.blob_path(A.blob.digest)
    place.write_bytes(bytes(A.blob.size))
    stored = store(image, runtime.path, index=True)
    assert layout.read(runtime.path) == stored
    assert list(runtime.path.rglob(".*")) == []


def test_an_assembled_image_may_lie_beside_the_runtime(runtime: Layout) -> None:
    before = layout.read(runtime.path)
    image = assemble(runtime.manifest, runtime.config, [A])
    stored = store(image, runtime.path, index=False)
    assert layout.read(runtime.path) == before
    assert b"".join(stored.chunks(stored.manifest.config)) == image.config_bytes
