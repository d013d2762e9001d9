"""What hosts pull again: the same as bench/update_pull.py counts at a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from descriptions import FILE, SHA, model, variant, write
from plans import plan_of

from podkiln.config import catalog
from podkiln.config import variant as variants
from podkiln.lock import reader
from podkiln.plan import plan, update_cost

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.plan.update_cost import UpdateCost

WEIGHTS = "all"
NODES = "custom nodes and their packages"


def usual() -> dict[tuple[str, str, str], UpdateCost]:
    return {
        (each.change, each.order, each.storage): each
        for each in update_cost.usual(plan_of("baked", no_weights=False))
    }


@pytest.mark.parametrize(
    ("change", "order", "storage", "weights", "runtime"),
    [
        ("start.sh", "below", "containerd", 0, ["podkiln and start.sh"]),
        ("start.sh", "below", "overlay2", 0, ["podkiln and start.sh"]),
        ("start.sh", "above", "containerd", 0, ["podkiln and start.sh"]),
        ("start.sh", "above", "overlay2", WEIGHTS, ["podkiln and start.sh"]),
        ("ComfyUI's commit", "below", "overlay2", 0, ["ComfyUI 0.33.0", NODES, "podkiln and start.sh"]),
        ("ComfyUI's commit", "above", "overlay2", WEIGHTS, ["ComfyUI 0.33.0", NODES, "podkiln and start.sh"]),
        ("a Python wheel", "below", "containerd", 0, ["Python: libraries"]),
        ("a weight more", "below", "containerd", 0, []),
        ("a weight more", "above", "overlay2", 0, []),
    ],
)
def test_a_change_costs(change: str, order: str, storage: str, weights: object, runtime: list[str]) -> None:
    found = usual()[change, order, storage]
    assert found.weight_bytes == (plan_of("baked", no_weights=False).weight_bytes if weights else 0)
    told = [NODES if "node " in layer else layer for layer in found.runtime]
    assert list(dict.fromkeys(told)) == runtime


def test_a_weight_added_below_moves_the_whole_runtime_on_overlay2() -> None:
    plan = plan_of("baked", no_weights=False)
    runtime = [layer.what for layer in plan.layers if not layer.is_weight]
    assert list(usual()["a weight more", "below", "overlay2"].runtime) == runtime


def test_below_no_change_of_the_runtime_costs_a_byte_of_weights() -> None:
    assert {each.weight_bytes for each in usual().values() if each.order == "below"} == {0}


def test_the_layers_of_a_variant_of_ones_own_may_be_called_anything(tmp_path: Path) -> None:
    """Code tells layers apart by their kind; the names are for people, and are the user's."""
    layers = "[{name: torch, why: x, packages: [torch]}, {name: rest, why: x, packages: ['*']}]"
    more = f"runtime: {{python: {{layers: {layers}}}}}\n"
    file = f"{FILE.replace('unresolved', SHA)}  size: 99\n"
    text = variant(more, mine=model(file)).replace("{offer: [sdxl-base]}", "{offer: [], bake: [mine]}")
    described = variants.load(str(write(tmp_path / "mine.yaml", text)))
    offered = catalog.offered(described, {})
    made = plan.make(described, reader.read(described, offered, check=False), offered)
    rows = {(each.change, each.order, each.storage): each.runtime for each in update_cost.usual(made)}
    assert rows["a Python wheel", "below", "containerd"] == ("Python: rest",)
    assert rows["ComfyUI's commit", "below", "containerd"] == ("ComfyUI 0.33.0",)
    only = variant(
        "runtime: {python: {layers: [{name: comfyui, why: x, packages: [torch]}]}}\n", mine=model(file)
    )
    path = write(tmp_path / "only.yaml", only.replace("{offer: [sdxl-base]}", "{offer: [], bake: [mine]}"))
    described = variants.load(str(path))
    made = plan.make(described, reader.read(described, offered, check=False), catalog.offered(described, {}))
    assert {each.change for each in update_cost.usual(made)} == {
        "start.sh",
        "a Python wheel",
        "ComfyUI's commit",
        update_cost.NEW_WEIGHT,
    }


def test_without_weights_there_is_nothing_to_order() -> None:
    assert update_cost.usual(plan_of("lazy")) == []
