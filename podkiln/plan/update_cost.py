"""What a host that has an image pulls again for its next one, after the usual changes. Pure.

An engine with the containerd image store knows layers by their digest, so it pulls those that changed. One
with overlay2 knows them by their chain id, which covers all beneath: it pulls the lowest that changed and all
above.
Measured, both: bench/update_pull.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from podkiln.plan.image_layers import Kind, Layer
    from podkiln.plan.plan import Plan

Storage: TypeAlias = Literal["containerd", "overlay2"]
Order: TypeAlias = Literal["below", "above"]

STORAGES: Final[tuple[Storage, ...]] = ("containerd", "overlay2")
ORDERS: Final[tuple[Order, ...]] = ("below", "above")

NEW_WEIGHT: Final = "a weight more"
_CHANGES: Final[dict[str, Kind]] = {
    "start.sh": "podkiln",
    "a Python wheel": "python",
    "ComfyUI's commit": "comfyui",
    NEW_WEIGHT: "weights",
}


@dataclass(frozen=True)
class UpdateCost:
    """What one change costs: bytes of weights that are there already, and the runtime layers, by name.

    A weight that is new is pulled in any case, and is not counted.
    """

    change: str
    order: Order
    storage: Storage
    weight_bytes: int
    runtime: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it for scripts."""
        return {
            "change": self.change,
            "weights": self.order,
            "storage": self.storage,
            "weight_bytes": self.weight_bytes,
            "runtime_layers": list(self.runtime),
        }


def usual(plan: Plan) -> list[UpdateCost]:
    """Return what the usual changes cost, were all weights below the runtime or all above it.

    Nothing for an image without weights: there is no order to choose.
    """
    weights = [layer for layer in plan.layers if layer.is_weight]
    runtime = [layer for layer in plan.layers if not layer.is_weight]
    return list(_pulls(weights, runtime, _usual_layer(plan))) if weights else []


def _usual_layer(plan: Plan) -> str:
    """Return the Python layer that a wheel mostly changes: the one that takes all that no other names."""
    layers = plan.described.spec.runtime.python.layers
    return next((layer.name for layer in layers if "*" in layer.packages), layers[-1].name)


def _pulls(weights: Sequence[Layer], runtime: Sequence[Layer], python: str) -> Iterator[UpdateCost]:
    kinds = {each.kind for each in (*weights, *runtime)}
    for change, kind in _CHANGES.items():
        if kind not in kinds:  # an image without ComfyUI
            continue
        name = python if kind == "python" else ""
        for order in ORDERS:
            layers = [*weights, *runtime] if order == "below" else [*runtime, *weights]
            if change == NEW_WEIGHT:  # new ones are appended
                lowest, changed = (len(weights) if order == "below" else len(layers)), []
            else:
                found = (layer.kind == kind and layer.name == name for layer in layers)
                lowest = list(found).index(True)
                changed = [layers[lowest]]
            for storage in STORAGES:
                yield _pull(change, order, storage, changed if storage == "containerd" else layers[lowest:])


def _pull(change: str, order: Order, storage: Storage, pulled: Sequence[Layer]) -> UpdateCost:
    names = tuple(layer.what for layer in pulled if not layer.is_weight)
    return UpdateCost(change, order, storage, sum(layer.size or 0 for layer in pulled), names)
