"""The layers that an image will have, as far as they are known before it is built. Pure. Sizes are bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podkiln.config.variant import LoadedVariant
    from podkiln.oci.spec import Digest
    from podkiln.plan.weight_layers import WeightLayerSpec


Kind: TypeAlias = Literal[
    "weights", "base", "system", "environment", "python", "jupyter", "comfyui", "node", "podkiln"
]


@dataclass(frozen=True)
class Layer:
    """One layer: a runtime layer's digest and size come with the build.

    `what` is for people; code tells layers apart by `kind`, and those of one kind by `name`.
    """

    what: str
    kind: Kind
    name: str = ""
    size: int | None = None
    digest: Digest | None = None

    @property
    def is_weight(self) -> bool:
        """Whether it holds weights: only their sizes are known before the build."""
        return self.kind == "weights"


def of_weights(bundles: Sequence[WeightLayerSpec], known: Mapping[Digest, Digest]) -> list[Layer]:
    """Return the layers of weights. `known`: recipe of a bundle -> digest of the layer that it came to."""
    return [Layer(each.title, "weights", each.title, each.size, known.get(each.recipe)) for each in bundles]


def of_runtime(described: LoadedVariant) -> list[Layer]:
    """Return the layers of the runtime, from the bottom up."""
    runtime = described.spec.runtime
    return [
        Layer(f"base: {runtime.base.image}", "base"),
        Layer("system packages", "system"),
        Layer("Python environment", "environment"),
        *(Layer(f"Python: {layer.name}", "python", layer.name) for layer in runtime.python.layers),
        *([Layer("JupyterLab", "jupyter")] if runtime.jupyter else []),
        Layer(f"ComfyUI {runtime.comfyui.version}", "comfyui"),
        *(Layer(f"custom node {name}", "node", name) for name in described.spec.nodes),
        Layer("podkiln and start.sh", "podkiln"),
    ]
