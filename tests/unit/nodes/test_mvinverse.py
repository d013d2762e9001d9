"""MVInverse's node as far as it goes without torch: sizes, definition, what is missing, where weights lie.

That its maps are upstream's is shown by bench/own_mvinverse.py, in a Python that has torch.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from nodes import mvinverse
from nodes.mvinverse import placement, sizes
from nodes.mvinverse.pod_facts import FULL, MEMORY_MODES, OFFLOAD, SEQUENTIAL, NodeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NODE = mvinverse.NODE_CLASS_MAPPINGS["PodkilnMVInverse"]


class Pictures:
    """An IMAGE, as far as its size goes."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape


@pytest.mark.parametrize(
    ("size", "longest", "fitted"),
    [
        ((1024, 768), 1024, (1022, 756)),
        ((2048, 1536), 1024, (1022, 756)),
        ((1080, 1920), 1024, (574, 1022)),  # int(1080 * (1024 / 1920)) is 576
        ((140, 98), 1024, (140, 98)),
        ((140, 98), 70, (70, 42)),
        ((14, 27), 1024, (14, 14)),
    ],
)
def test_sizes_are_those_of_upstreams_script(
    size: tuple[int, int], longest: int, fitted: tuple[int, int]
) -> None:
    assert sizes.target(*size, longest) == fitted


def test_what_is_smaller_than_a_patch_is_refused() -> None:
    with pytest.raises(NodeError, match="at least 14 x 14 pixels; these come to 100 x 13"):
        sizes.target(100, 13)
    with pytest.raises(NodeError, match="these come to 140 x 7"):
        NODE().estimate(Pictures(1, 100, 2000, 3), 140)


def test_the_node_is_one_that_comfyui_understands() -> None:
    inputs = NODE.INPUT_TYPES()
    assert list(inputs["required"]) == ["images", "longest_side"]
    assert inputs["optional"]["memory_mode"][0] == ["auto", *MEMORY_MODES]
    assert all(len(each) == 2 and each[1]["tooltip"] for part in inputs.values() for each in part.values())
    assert NODE.RETURN_NAMES == ("albedo", "normal", "roughness", "metallic", "shading")
    assert len(NODE.RETURN_TYPES) == len(NODE.OUTPUT_TOOLTIPS) == 5
    assert NODE.CATEGORY.startswith("podkiln/")
    assert callable(getattr(NODE, NODE.FUNCTION))
    assert mvinverse.NODE_DISPLAY_NAME_MAPPINGS.keys() == mvinverse.NODE_CLASS_MAPPINGS.keys()


def test_what_is_missing_is_said_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PODKILN_MVINVERSE", raising=False)
    monkeypatch.setenv("WORKSPACE", str(tmp_path))
    with pytest.raises(NodeError, match=r"PODKILN_MVINVERSE is not set.*own-nodes\.md"):
        NODE().estimate(Pictures(1, 100, 100, 3), 1024)
    (tmp_path / "mvinverse/models").mkdir(parents=True)
    (tmp_path / "mvinverse/models/mvinverse.py").touch()
    monkeypatch.setenv("PODKILN_MVINVERSE", str(tmp_path))
    with pytest.raises(NodeError, match=r"MVInverse needs mvinverse/model.safetensors.*ENABLE_MVINVERSE=1"):
        NODE().estimate(Pictures(1, 100, 100, 3), 1024)
    assert "torch" not in sys.modules


@dataclass
class Weight:
    """A tensor, as far as where it lies goes."""

    data: Place


@dataclass(frozen=True)
class Place:
    where: str = "cpu"

    def to(self, where: str) -> Place:
        return Place(where)


@dataclass
class Part:
    """A module that notes where its weight lies when it runs."""

    seen: list[str]
    weight: Weight = field(default_factory=lambda: Weight(Place()))
    before: list[Callable[..., None]] = field(default_factory=list)
    after: list[Callable[..., None]] = field(default_factory=list)

    def parameters(self) -> list[Weight]:
        return [self.weight]

    def buffers(self) -> list[Weight]:
        return []

    def register_forward_pre_hook(self, hook: Callable[..., None]) -> Handle:
        return Handle(self.before, hook)

    def register_forward_hook(self, hook: Callable[..., None], *, always_call: bool) -> Handle:
        assert always_call, "weights have to come back from a part that failed"
        return Handle(self.after, hook)

    def forward(self) -> None:
        self.seen.append(self.weight.data.where)

    def __call__(self) -> None:
        for hook in self.before:
            hook(self, ())
        self.forward()
        for hook in self.after:
            hook(self, (), None)


class Handle:
    def __init__(self, hooks: list[Callable[..., None]], hook: Callable[..., None]) -> None:
        self.hooks, self.hook = hooks, hook
        hooks.append(hook)

    def remove(self) -> None:
        self.hooks.remove(self.hook)


class Model:
    """Upstream's model: parts, and a weight that belongs to none."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.encoder = Part(self.seen)
        self.res_encoder = type("ResNeXt", (), {f"layer{n}": Part(self.seen) for n in (1, 2, 3, 4)})
        self.decoder = [Part(self.seen), Part(self.seen)]
        for name in placement.HEADS:
            setattr(self, name, Part(self.seen))
        self.register_token = Weight(Place())

    def parameters(self) -> list[Weight]:
        return [self.register_token, *(part.weight for part in placement.parts(self))]

    def buffers(self) -> list[Weight]:
        return []


@dataclass
class Memory:
    """ComfyUI's memory manager: notes what it is asked for."""

    model: Any = field(default_factory=Model)
    device: str = "card"
    asked: list[str] = field(default_factory=list)

    def make_room(self, size: int) -> None:
        self.asked.append(f"room {size >> 20}")

    def load(self, room: int) -> None:
        self.asked.append(f"load {room >> 20}")

    def unload(self) -> None:
        self.asked.append("unload")


@pytest.mark.parametrize(
    ("mode", "asked"),
    [(FULL, ["load 8000"]), (OFFLOAD, ["load 6400", "unload"]), (SEQUENTIAL, ["unload", "room 800"])],
)
def test_modes_need_less_and_less_at_once(mode: str, asked: list[str]) -> None:
    """For ten views, of which upstream's heads take all, or some, or one."""
    memory = Memory()
    own = memory.model.albedo_head.forward
    with placement.placed(memory, mode, 10):
        assert (memory.model.albedo_head.forward == own) == (mode == FULL)
    assert memory.asked == asked
    assert memory.model.albedo_head.forward == own


def test_a_model_comes_off_the_card_after_a_failure_too() -> None:
    memory = Memory()
    with pytest.raises(RuntimeError, match="out of memory"), placement.placed(memory, OFFLOAD, 1):
        raise RuntimeError("out of memory")
    assert memory.asked == ["load 800", "unload"]


def test_part_by_part_has_one_parts_weights_on_the_card() -> None:
    memory = Memory()
    model = memory.model
    with placement.placed(memory, SEQUENTIAL, 1):
        assert model.register_token.data.where == "card"
        for part in placement.parts(model):
            part()
            assert [each.weight.data.where for each in placement.parts(model)] == ["cpu"] * 12
    assert model.seen == ["card"] * 12
    assert model.register_token.data.where == "cpu"
    assert not any(part.before or part.after for part in placement.parts(model))
