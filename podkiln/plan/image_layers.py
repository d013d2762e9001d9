"""The layers that an image will have, as far as they are known before it is built. Pure. Sizes are bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from podkiln.config import model_server

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from podkiln.config.variant import LoadedVariant
    from podkiln.lock.additions import PythonAdditions
    from podkiln.lock.apt import AptLock
    from podkiln.lock.serving import LockedServing
    from podkiln.oci.spec import Digest
    from podkiln.plan.weight_layers import WeightLayerSpec


Kind: TypeAlias = Literal[
    "weights",
    "base",
    "system",
    "environment",
    "python",
    "jupyter",
    "comfyui",
    "node packages",
    "node",
    "addition",
    "podkiln",
]


UNPACKING: Final = 4
"""How many times its .debs or wheels an addition takes unpacked: 254 MB of 66 for a compiler."""


@dataclass(frozen=True)
class Layer:
    """One layer: a runtime layer's digest and size come with the build.

    `what` is for people; code tells layers apart by `kind`, and those of one kind by `name`. `about`: the
    bytes of the packages that go into it, which its size will be near.
    """

    what: str
    kind: Kind
    name: str = ""
    size: int | None = None
    digest: Digest | None = None
    about: int | None = None

    @property
    def is_weight(self) -> bool:
        """Whether it holds weights: only their sizes are known before the build."""
        return self.kind == "weights"


def of_weights(bundles: Sequence[WeightLayerSpec], known: Mapping[Digest, Digest]) -> list[Layer]:
    """Return the layers of weights. `known`: recipe of a bundle -> digest of the layer that it came to."""
    return [Layer(each.title, "weights", each.title, each.size, known.get(each.recipe)) for each in bundles]


def of_additions(
    described: LoadedVariant, apt: AptLock | None, python: PythonAdditions | None
) -> list[Layer]:
    """Return the layers of what a variant adds above those that it shares, as far as that is locked."""
    added, found = described.additions, []
    if added.packages:
        about = apt.deb_bytes if apt else None
        found.append(Layer(f"added Debian packages: {added.named()}", "addition", "apt", about=about))
    if added.requirements:
        about = python.wheel_bytes or None if python else None
        what = f"added Python packages: {', '.join(added.requirements)}"
        found.append(Layer(what, "addition", "python", about=about))
    return found


def of_serving(locked: LockedServing | None) -> list[Layer]:
    """Return the layer of what takes jobs; none where that needs no packages."""
    if locked is None:
        return []
    about = locked.document.wheel_bytes or None
    what = "what serves the model" if locked.beside_none else "what takes jobs"
    return [Layer(f"{what}: {', '.join(locked.document.asked)}", "addition", "serve", about=about)]


def of_runtime(described: LoadedVariant, above: Sequence[Layer] = ()) -> list[Layer]:
    """Return the layers of the runtime, from the bottom up; `above`: those of nodes, and of additions."""
    runtime = described.spec.runtime
    return [
        Layer(f"base: {runtime.base.image}", "base"),
        Layer("system packages", "system"),
        Layer("Python environment", "environment"),
        *(
            Layer(f"Python: {layer.name}", "python", layer.name)
            for layer in model_server.python_layers(described)
        ),
        *([Layer("JupyterLab", "jupyter")] if runtime.has_jupyterlab else []),
        *([Layer(f"ComfyUI {runtime.comfyui.version}", "comfyui")] if described.spec.has_comfyui else []),
        *above,
        Layer("podkiln and start.sh", "podkiln"),
    ]
