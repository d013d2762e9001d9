"""The layers that an image will have, as far as they are known before it is built. Pure. Sizes are bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podkiln.bundle import Bundle
    from podkiln.oci import Digest
    from podkiln.variant import Described


@dataclass(frozen=True)
class Layer:
    """One layer: a runtime layer's digest and size come with the build."""

    what: str
    size: int | None = None
    digest: Digest | None = None

    @property
    def is_weight(self) -> bool:
        """Whether it holds weights: only their sizes are known before the build."""
        return self.size is not None


def of_weights(bundles: Sequence[Bundle], known: Mapping[Digest, Digest]) -> list[Layer]:
    """Return the layers of weights. `known`: recipe of a bundle -> digest of the layer that it came to."""
    return [Layer(what=each.title, size=each.size, digest=known.get(each.recipe)) for each in bundles]


def of_runtime(described: Described) -> list[Layer]:
    """Return the layers of the runtime, from the bottom up."""
    runtime = described.spec.runtime
    python = [f"Python: {layer.name}" for layer in runtime.python.layers]
    nodes = [f"custom node {name}" for name in described.spec.nodes]
    names = [
        f"base: {runtime.base.image}",
        "system packages",
        "Python environment",
        *python,
        *(["JupyterLab"] if runtime.jupyter else []),
        f"ComfyUI {runtime.comfyui.version}",
        *nodes,
        "podkiln and start.sh",
    ]
    return [Layer(what=name) for name in names]
