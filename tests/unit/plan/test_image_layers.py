"""Layers before the build: weights by size, the runtime by name, from the bottom up."""

from __future__ import annotations

from plans import plan_of

from podkiln.oci.spec import Digest
from podkiln.plan import image_layers


def test_the_runtime_lies_by_rate_of_change() -> None:
    described = plan_of("lazy").described
    found = image_layers.of_runtime(described)
    python = [f"Python: {layer.name}" for layer in described.spec.runtime.python.layers]
    assert [layer.what for layer in found] == [
        *("base: debian:trixie-slim", "system packages", "Python environment"),
        *python,
        *("JupyterLab", "ComfyUI 0.33.0", "podkiln and start.sh"),
    ]
    assert not any(layer.is_weight or layer.digest for layer in found)


def test_weights_have_sizes_and_the_digests_that_bakes_came_to() -> None:
    bundles = plan_of("baked", no_weights=False).bundles
    known = {bundles[1].recipe: Digest("sha256:" + "1" * 64)}
    found = image_layers.of_weights(bundles, known)
    assert [layer.size for layer in found] == [each.size for each in bundles]
    assert [layer.digest for layer in found] == [None, known[bundles[1].recipe], *[None] * (len(bundles) - 2)]
    assert all(layer.is_weight for layer in found)
    assert found[0].what == "sdxl-base: checkpoints/sd_xl_base_1.0.safetensors"
